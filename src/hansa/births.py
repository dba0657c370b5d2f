"""When a process began: its number alone may be another's by now."""

from __future__ import annotations

import contextlib
from pathlib import Path


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
