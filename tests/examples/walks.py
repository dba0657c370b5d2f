"""What tests of the walkthroughs share: the scripts, and whether one left a process behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WALK_S = 900

Walk = Callable[..., str]


def processes() -> Iterator[str]:
    """Yield command lines and folders of all processes but this one, where the system has them."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            folder = os.readlink(place / "cwd")
        except OSError:
            continue
        if int(place.name) != os.getpid():
            yield f"{words} in {folder}"
