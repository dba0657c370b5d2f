"""What user code finds around it: seeded global generators, and a fixed number of threads."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from hansa.seeds import Key, global_generators

EVALUATION = Key.root(0).child("evaluate")
"""The fixed key of evaluation: a model is measured with the same draws everywhere, if any."""


def local_threads() -> int:
    """Return how many threads one client's torch code may use: 1, or what HANSA_THREADS says.

    Sums in another number of threads round otherwise, so a fixed number makes the bytes of a
    model independent of the machine's cores and of the engine.  One is also the fastest for
    models of federated size: clients run side by side, and threads that wait for each other on a
    busy machine were measured to take ten times as long.
    """
    text = os.environ.get("HANSA_THREADS", "1")
    return int(text) if text.isdecimal() and int(text) else 1


def import_torch_if_named(sources: Iterable[bytes]) -> None:
    """Import torch before code that names it, so that even its first draws are seeded."""
    if "torch" not in sys.modules and any(b"torch" in source for source in sources):
        with contextlib.suppress(ImportError):  # the code's own import says it better
            importlib.import_module("torch")


_SWAPPING = threading.RLock()
# Torch guards its generator by a lock that a thread takes while it holds the interpreter's.  When
# the garbage collector's finalizers let another thread in meanwhile, the two wait for each other
# and the whole process stands still.  So one thread at a time; user code runs outside.


@contextlib.contextmanager
def seeded(key: Key) -> Iterator[None]:
    """Seed Python's, NumPy's and, once it is imported, torch's generators; restore them after.

    Torch also gets its fixed number of threads for as long.  All these belong to the process: code
    in two threads at once draws from one sequence, and is not reproducible.
    """
    with contextlib.ExitStack() as swapped:
        with _SWAPPING:
            swapped.enter_context(global_generators(key))
            torch = sys.modules.get("torch")
            if torch is not None:
                _swap_in(torch, key, swapped)
        try:
            yield
        finally:
            with _SWAPPING:
                swapped.close()


def _swap_in(torch: Any, key: Key, swapped: contextlib.ExitStack) -> None:
    # Asking for the state of a GPU that nobody has used yet would start it.
    started = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices = list(range(torch.cuda.device_count())) if started else []
    swapped.enter_context(torch.random.fork_rng(devices))
    _seed(torch, key.integer())
    swapped.callback(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(local_threads())


def _seed(torch: Any, seed: int) -> None:
    """Do what torch.manual_seed does, which takes milliseconds even where there is no GPU."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
