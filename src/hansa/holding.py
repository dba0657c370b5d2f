"""Who holds a folder: the system frees its lock when a process dies, however it dies.

A file beside the lock says which process it is; alone it says nothing, and a process's number alone
may be another's by now.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TypeVar

import msgspec

from hansa.clock import monotonic


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds a folder."""

    pid: int
    started: str
    born: str = ""  # empty where the system does not tell


T = TypeVar("T", bound=Holder)


def is_held(folder: Path) -> bool:
    """Tell whether a process holds a folder's lock at this moment."""
    import filelock  # slow to import

    if not (folder / "lock").exists():
        return False
    try:
        with filelock.FileLock(folder / "lock", timeout=0):
            return False
    except filelock.Timeout:
        return True


def noted(file: Path, kind: type[T]) -> T | None:
    """Return what a file beside a lock says of the process that holds it; None if it is not that.

    Args:
      file: that the process has written.
      kind: of its content.
    """
    try:
        found = msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.pid > 1 and found.born == born(found.pid) else None


def wait_until_free(folder: Path, *, seconds: float) -> bool:
    """Return whether a folder's lock is free within some time."""
    import filelock

    end = monotonic() + seconds
    while monotonic() < end:
        try:
            with filelock.FileLock(folder / "lock", timeout=min(1.0, seconds)):
                return True
        except filelock.Timeout:
            continue
    return False


def born(pid: int) -> str:
    """Return when a process began, as the system tells it; empty where it does not.

    Numbers of processes are given out again.  Whoever is about to end a process that was noted in a
    file compares this with what was noted.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path("/proc", str(pid), "stat").read_text(errors="replace")
        return f"{boot}:{stat.rpartition(')')[2].split()[19]}"
    return ""
