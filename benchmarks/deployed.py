"""A server with stand-in sites, and what its process takes of the machine."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hansa.dev import SERVER, Rehearsal
from hansa.identity import parse_invite
from hansa.params import Params, encode
from hansa.protocol.enrolment import enrol
from hansa.server.people import InviteRequest

TICK_S = 0.02


class Memory(NamedTuple):
    """Megabytes of one process."""

    anonymous: float  # what is its own and no file's: what it cannot give back
    resident: float  # with the pages of files that it has mapped; the system takes those at will


def memory_of(pid: int) -> Memory:
    """Return what a process has at this moment."""
    fields = _status(pid)
    return Memory(fields["RssAnon"], fields["VmRSS"])


def _status(pid: int) -> dict[str, float]:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {w[0][:-1]: int(w[1]) * 1024 / 1e6 for w in lines if w[-1] == "kB"}


class Watch:
    """Notes the most that a process has had, from `__enter__` on."""

    def __init__(self, pid: int) -> None:
        self._pid, self._done = pid, threading.Event()
        self.peak = self.before = memory_of(pid)
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        with contextlib.suppress(OSError, KeyError):  # the system's own mark misses nothing
            self.peak = self.peak._replace(resident=_status(self._pid)["VmHWM"])

    def _look(self) -> None:
        while not self._done.wait(TICK_S):
            with contextlib.suppress(OSError, KeyError):
                self.peak = Memory(*map(max, self.peak, memory_of(self._pid)))


@contextlib.contextmanager
def server(folder: Path, project: Path, *, sites: int) -> Iterator[Rehearsal]:
    """Give a running server whose runs want so many sites; none has joined yet."""
    sets = [f"cohort.minimum={sites}", "evaluate.clients=0", "keep.every=0"]
    with Rehearsal(folder, project, sites=[], sets=sets) as rehearsal:
        yield rehearsal


@contextlib.contextmanager
def stand_ins(
    rehearsal: Rehearsal, *, sites: int, size: int
) -> Iterator[list[subprocess.Popen[str]]]:
    """Give stand-in sites that are at work; each has an update of `size` float32 of its own."""
    update = np.full(size, 2.0**-10, np.float32)
    started: list[subprocess.Popen[str]] = []
    try:
        for n in range(sites):
            line = rehearsal.connection.call(
                "POST", "/v1/invites", InviteRequest(name=f"site-{n}"), kind=dict[str, str]
            )["invite"]
            home = rehearsal.site_folder(f"site-{n}")
            enrol(parse_invite(line), home)
            update[0] = n
            with (home / "update").open("wb") as file:
                file.writelines(encode(Params.of({"delta": update})))
            words = [sys.executable, "-m", "benchmarks.stand_in", str(home), str(home / "update")]
            started.append(
                subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def told(sites: list[subprocess.Popen[str]]) -> dict[int, list[list[float]]]:
    """End stand-ins and return their times by round."""
    by_round: dict[int, list[list[float]]] = {}
    for site in sites:
        out, _ = site.communicate()
        for line in out.splitlines():
            number, *times = json.loads(line)
            by_round.setdefault(number, []).append(times)
    return by_round


def pid_of(rehearsal: Rehearsal) -> int:
    """Return the server's process."""
    return rehearsal.children[SERVER].pid
