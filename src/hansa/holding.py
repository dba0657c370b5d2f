"""Who holds a folder: the system frees its lock when a process dies, however it dies.

A file beside the lock says which process it is; alone it says nothing, and a process's number alone
may be another's by now.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from hansa.clock import monotonic


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
