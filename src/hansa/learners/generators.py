"""Seeding of every global generator that a user's own code may draw from."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from hansa.seeds import Key, global_generators


@contextlib.contextmanager
def seeded(key: Key) -> Iterator[None]:
    """Seed Python's, NumPy's and, once it is imported, torch's generators; restore them after."""
    with global_generators(key):
        torch = sys.modules.get("torch")
        if torch is None:
            yield
            return
        # Asking for the state of a GPU that nobody has used yet would start it.
        started = torch.cuda.is_available() and torch.cuda.is_initialized()
        devices = list(range(torch.cuda.device_count())) if started else []
        with torch.random.fork_rng(devices):
            _seed(torch, key.integer())
            yield


def _seed(torch: Any, seed: int) -> None:
    """Do what torch.manual_seed does, which takes milliseconds even where there is no GPU."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
