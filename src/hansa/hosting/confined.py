"""What a process that runs foreign code restricts itself to, before it touches the code."""

from __future__ import annotations

import sys

import msgspec

from hansa.limits import WORKER_FILES_MAX


class Limits(msgspec.Struct, frozen=True):
    """What the worker restricts itself to before it touches anybody's code."""

    memory_mb: int | None = None  # MiB of private memory of a process
    cpu_s: int | None = None  # seconds of processor time of a process
    processes: int | None = None  # of the user; counted only where the user has its own namespace


def limit(limits: Limits) -> None:
    """Restrict this process and those that it starts, where the system can."""
    if sys.platform == "win32":
        return
    import resource

    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: WORKER_FILES_MAX,
        resource.RLIMIT_DATA: limits.memory_mb and limits.memory_mb * 2**20,
        resource.RLIMIT_CPU: limits.cpu_s,
        resource.RLIMIT_NPROC: limits.processes,
    }
    for kind, value in wanted.items():
        if value is not None:
            _, hard = resource.getrlimit(kind)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
