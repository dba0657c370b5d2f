"""Running a command several times and saying what it cost."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

BIN = Path(sys.executable).parent
HANSA = str(BIN / "hansa")
PYTHON = sys.executable


class Cost(NamedTuple):
    """Medians over several runs."""

    wall_s: float
    cpu_s: float
    peak_mb: float  # of the largest single process


class Row(NamedTuple):
    """One line of the table."""

    what: str
    budget: str
    measured: str
    holds: bool


def cost(command: Sequence[str], *, runs: int = 5, cwd: Path | None = None) -> Cost:
    """Run a command once to warm up and `runs` times to measure."""
    once(command, cwd)
    costs = [once(command, cwd) for _ in range(runs)]
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def pairs(
    a: Sequence[str], b: Sequence[str], *, runs: int = 9, cwd: Path | None = None
) -> list[tuple[Cost, Cost]]:
    """Run two commands in turn, so that a noisy machine disturbs both alike."""
    once(a, cwd)
    once(b, cwd)
    return [(once(a, cwd), once(b, cwd)) for _ in range(runs)]


def once(command: Sequence[str], cwd: Path | None = None) -> Cost:
    """Run a command and return what the operating system accounts to it."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {errors.decode()[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def best_of(action: Callable[[], object], runs: int = 7) -> float:
    """Return the shortest of several timings in seconds; the machine only ever adds time."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)
