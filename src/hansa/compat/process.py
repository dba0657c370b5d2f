"""The process that runs a project's foreign client code, seen from the project.

It is the only one in which the other system's modules are Hansa's stand-in.  It starts when a
client is first needed, serves one client after the other, and ends with the project or with its
parent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

import hansa.errors
from hansa.errors import HansaError, LearnerError
from hansa.hosting.wire import PLACE, Failed, Ready, receive_with
from hansa.hosting.wire import send_with as send_task
from hansa.pipes import Closed, send

_FAREWELL_S = 2.0  # what the process gets to end by itself

A = TypeVar("A", bound=msgspec.Struct)


class ClientFailed(Exception):  # noqa: N818 - the cause of an error, for its traceback alone
    """The traceback of the other process."""

    def __init__(self, trace: str) -> None:
        super().__init__(trace)
        self._trace = trace

    def __str__(self) -> str:
        return f"\n{self._trace}"


class ClientProcess(Generic[A]):
    """Starts the process when it is asked for something, and again after it has died.

    Args:
      worker: module that is run in it.
      setup: whose code it runs.
      answer: kind of what it answers.
      whose: the other system's name, for messages.
    """

    def __init__(self, worker: str, setup: msgspec.Struct, answer: type[A], whose: str) -> None:
        self._worker, self._setup, self._whose = worker, setup, whose
        self._reply: Any = answer | Ready | Failed
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[Any, Any] | None = None

    def ask(self, task: msgspec.Struct, arrays: dict[str, np.ndarray]) -> tuple[A, dict[str, Any]]:
        """Have a client do something; return its answer and arrays.

        Raises:
          LearnerError: the client's code raised, or its process died.
        """
        process = self._running()
        try:
            send_task(process.stdin, task, arrays)  # type: ignore[arg-type]
            answer, returned = receive_with(process.stdout, self._reply)  # type: ignore[arg-type]
        except Closed:
            raise self._lost() from None
        except BaseException:  # Ctrl-C: what it is doing will not be asked for again
            self.close()
            raise
        if isinstance(answer, Failed):
            raise _error(answer) from ClientFailed(answer.trace)
        return answer, returned

    def close(self) -> None:
        """End the process, if it runs."""
        if self._end is not None:
            self._end()
        self._process = self._end = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        options = ["-s"] if sys.flags.no_user_site else []
        # Whatever the clients' code leaves in temporary files goes when the process does.
        place = tempfile.mkdtemp(prefix=PLACE)
        try:
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", *options, "-m", self._worker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "TMPDIR": place},
            )
        except OSError:
            os.rmdir(place)
            raise
        self._end = weakref.finalize(self, _end, process, place)
        try:
            send(process.stdin, self._setup)  # type: ignore[arg-type]
            ready, _ = receive_with(process.stdout, self._reply)  # type: ignore[arg-type]
        except Closed:
            raise self._lost() from None
        except BaseException:  # Ctrl-C: its answer would be taken for that to the next question
            process.kill()
            self.close()
            raise
        if not isinstance(ready, Ready):
            self.close()
            raise _error(ready) from ClientFailed(ready.trace)
        return process

    def _lost(self) -> LearnerError:
        assert self._process is not None
        try:
            status = self._process.wait(timeout=_FAREWELL_S)
            how = f"ended with status {status}"
        except subprocess.TimeoutExpired:  # or the status would be our own kill's
            how = "closed its pipe, or sent more than an answer may hold, and was ended"
            self._process.kill()
        self.close()
        return LearnerError(
            "client-lost",
            f"The process that runs the {self._whose} clients {how}.",
            "What it printed stands above, or in workers.log; -9 may mean too little memory.",
        )


def _end(process: subprocess.Popen[bytes], place: str) -> None:
    with contextlib.suppress(OSError):
        process.stdin.close()  # type: ignore[union-attr]
    try:
        process.wait(timeout=_FAREWELL_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    shutil.rmtree(place, ignore_errors=True)


def _error(failed: Failed) -> HansaError:
    code = failed.code if failed.code in hansa.errors.CODES else "client-failed"
    return LearnerError(code, failed.happened, failed.hint)
