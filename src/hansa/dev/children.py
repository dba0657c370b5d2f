"""Processes of a rehearsal: started, killed, stopped, and gone when their parent is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hansa.clock import monotonic
from hansa.errors import ServerError

_END_S = 10.0  # that a process gets to end by itself
_TAIL_LINES = 8


class Child:
    """A process that can be started again and again, and its log.

    Args:
      name: of the server or of a site.
      words: of the command `hansa`.
      log: file that what it prints is appended to.
      environment: beside that of this process.
    """

    def __init__(
        self, name: str, words: Sequence[str], *, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name, self._words, self.log = name, list(words), log
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False

    def start(self, *, failpoint: str = "") -> None:
        """Start the process, unless it runs.

        Args:
          failpoint: arms one of `hansa.failpoints`, as `HANSA_FAILPOINT` does.
        """
        if self.alive:
            return
        environment = {**os.environ, **self._environment, "PYTHONUNBUFFERED": "1"}
        environment.pop("HANSA_FAILPOINT", None)
        if failpoint:
            environment["HANSA_FAILPOINT"] = failpoint
        self._close_pipe()
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hansa.dev.child", *self._words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self._wanted = True

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Number of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How it has ended: its exit status, minus a signal's number, or None while it runs."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """Kill -9 the process itself; what it has started must see to its own end."""
        self._wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close_pipe()

    def tell_to_stop(self) -> None:
        """Send SIGTERM and do not wait."""
        self._wanted = False
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, seconds: float = _END_S) -> int | None:
        """End it in an orderly way, or kill it if that takes too long; return its status."""
        self.tell_to_stop()
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._close_pipe()
        return self.status

    def wait(self, seconds: float) -> int:
        """Wait until it has ended by itself; return its status.

        Raises:
          ServerError: it still runs.
        """
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.trouble(f"still runs after {seconds:g} s") from None

    def check(self) -> None:
        """See that it runs if it should.

        Raises:
          ServerError: it has ended unexpectedly; with the last lines that it printed.
        """
        if self._wanted and not self.alive:
            raise self.trouble(f"ended with status {self.status}")

    def trouble(self, what: str) -> ServerError:
        """Return an error about this process, with its last words."""
        return ServerError(
            "dev-process",
            f"{self.name} {what}. Its last lines:\n{printed_last(self.log)}",
            f"All that it printed is in {self.log}",
        )

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def stop_all(children: Sequence[Child], seconds: float = _END_S) -> None:
    """End several at the same time."""
    for child in children:
        child.tell_to_stop()
    until = monotonic() + seconds
    for child in children:
        child.stop(max(0.1, until - monotonic()))


def printed_last(log: Path) -> str:
    """Return the last lines of what a process has printed."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
