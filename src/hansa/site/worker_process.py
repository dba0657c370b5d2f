"""One worker process seen from the site: the pipes to it, its time, and its end.

Whatever runs in there may lie, hang, flood or die; `ask` always comes back.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from blake3 import blake3

from hansa.clock import monotonic
from hansa.limits import (
    FAILURE_CHARS_MAX,
    WORKER_LOG_BYTES_MAX,
    WORKER_PROCESSES_MAX,
)
from hansa.pipes import Closed, receive, send
from hansa.site.worker_messages import Done, Failed, Ready, Reply, Request, Setup

_FAREWELL_S = 2.0  # what a worker gets to end by itself
_LOOK_S = 0.25  # between two looks at the process while it works
_LAST_WORDS_S = 0.5  # for what a process that has ended has left in its pipe
_PIECE_BYTES = 2**20


class Lost(Exception):  # noqa: N818 - a fact about the process, told on as a result
    """The process has ended, or had to be ended; args are a code and a sentence."""


class Answer(NamedTuple):
    """A reply, and the digest of the update that came with it."""

    reply: Ready | Done | Failed
    digest: str = ""


class Files(NamedTuple):
    """Where the bytes after a reply go, and how many there may be of each."""

    update: Path
    state: Path
    limit: int  # bytes

    @classmethod
    def beside(cls, update: Path, limit: int) -> Files:
        """Return files for a result; the update has its name when it is whole.

        Args:
          update: the result's file.
          limit: bytes that it, and a state, may have.
        """
        return cls(
            update.with_name(f"{update.name}.part"), update.with_name(f"{update.name}.state"), limit
        )

    def remove(self) -> None:
        """Remove what has been written."""
        for path in (self.update, self.state):
            path.unlink(missing_ok=True)


class Log:
    """What workers print, in a file that begins anew when it is long; one older one is kept."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()

    def write(self, data: bytes) -> None:
        """Append; what cannot be written is dropped."""
        with self._lock, contextlib.suppress(OSError):
            with open(self._path, "ab") as file:
                file.write(data)
                full = file.tell() > WORKER_LOG_BYTES_MAX
            if full:
                os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))


class Worker(Protocol):
    """What runs one run's code, as the site sees it: a process of its own, unless it says so."""

    def ask(self, request: Request, *, seconds: float, files: Files | None = None) -> Answer:
        """Return the answer to a request, or raise `Lost`; as `WorkerProcess.ask`."""

    def cancel(self) -> None:
        """End what is under way because nobody wants its result; from any thread."""

    def kill(self) -> None:
        """End it."""

    def close(self) -> None:
        """Let it end."""

    @property
    def alive(self) -> bool:
        """Return whether it can be asked."""

    def last_words(self) -> str:
        """Return the end of what it has printed."""


class WorkerProcess:
    """A process and what is known of it.

    Start it from a thread that lives as long as it shall: systems that end a process together with
    its parent take the thread for the parent.

    Args:
      command: to run.
      environment: all of it.
      folder: to run it in; None in a sandbox, which has its own.
      log: gets what it prints.
      counted: whether to count its processes, where the system does not.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path | None,
        log: Log,
        counted: bool,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._answers: queue.SimpleQueue[Answer | Lost | None] = queue.SimpleQueue()
        self._files: Files | None = None
        self._tail: deque[bytes] = deque(maxlen=64)
        self._counted = counted and sys.platform == "linux"
        self._cancelled = self._gone = False
        self._lock = threading.Lock()
        assert self._process.stdout is not None and self._process.stderr is not None
        _widen(self._process.stdout)
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(
            target=_drain, args=(self._process.stderr, log, self._tail), daemon=True
        ).start()

    def ask(self, request: Request, *, seconds: float, files: Files | None = None) -> Answer:
        """Send a request and return the answer; the process is gone after `Lost`.

        Args:
          request: what to do; `Setup` first.
          seconds: that it may take.
          files: where an update goes.

        Raises:
          Lost: it died, took too long, was cancelled, or said something that makes no sense.
        """
        self._files = files
        expected = (Ready, Failed) if isinstance(request, Setup) else (Done, Failed)
        try:
            if not self._answers.empty():
                raise Lost("client-lost", "The worker process answered without being asked.")
            send(self._process.stdin, request)  # type: ignore[arg-type]
            answer = self._wait(seconds)
            if not isinstance(answer.reply, expected):
                raise Lost("client-lost", "The worker process answered something else.")
            return answer
        except Closed:
            raise self._ended() from None
        except Lost:
            self.kill()
            raise

    def cancel(self) -> None:
        """End the process because nobody wants its result any more; from any thread."""
        self._cancelled = True
        self.kill()

    def kill(self) -> None:
        """End the process and all that it has started."""
        with self._lock:
            if self._gone:
                return  # its id may be another's by now
            self._gone = True
        with contextlib.suppress(OSError):
            if os.name == "nt":
                self._process.kill()
            else:
                os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_FAREWELL_S)

    def close(self) -> None:
        """Let the process end by itself, or end it."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_FAREWELL_S)
        self.kill()

    @property
    def alive(self) -> bool:
        """Return whether it can be asked."""
        return not self._gone and self._process.poll() is None

    def last_words(self) -> str:
        """Return the end of what it has printed."""
        text = b"".join(self._tail).decode("utf-8", "backslashreplace")
        return text[-FAILURE_CHARS_MAX:]

    def _wait(self, seconds: float) -> Answer:
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            answer = self._next(min(left, _LOOK_S))
            if answer is None:
                if self._process.poll() is None:
                    self._check_processes()
                    continue
                # Its last words may still be in the pipe, which a child of it may hold open.
                answer = self._next(_LAST_WORDS_S) or self._ended()
            if isinstance(answer, Lost):
                raise answer
            return answer
        raise Lost("site-limit", f"It took more than {seconds:g} s, this site's limit for a task.")

    def _next(self, seconds: float) -> Answer | Lost | None:
        try:
            return self._answers.get(timeout=seconds) or self._ended()
        except queue.Empty:
            return None

    def _ended(self) -> Lost:
        """Return what to say of a process that does not answer any more."""
        if self._cancelled:
            return Lost("site-cancelled", "The task was cancelled before it was done.")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_LAST_WORDS_S)
        status = self._process.poll()
        self.kill()
        if status is None:
            return Lost(
                "client-lost", "The worker process closed its pipe, or sent what is no answer."
            )
        signal_number = -status if status < 0 else status - 128 if status > 128 else 0
        how = f"signal {signal_number}" if signal_number else f"status {status}"
        return Lost(
            "client-lost",
            f"The process that ran the code ended with {how} (a crash, out of memory, or an exit "
            "by the code itself).",
        )

    def _check_processes(self) -> None:
        """Count where the system does not: the limit of processes does not hold for root.

        Raises:
          Lost: there are too many.
        """
        if self._counted and _descendants(self.pid) > WORKER_PROCESSES_MAX:
            raise Lost(
                "site-limit",
                f"It started more than {WORKER_PROCESSES_MAX} processes, this site's limit.",
            )

    def _read(self) -> None:
        """Receive answers; runs in a thread of its own, as a pipe may fall silent at any byte."""
        pipe: Any = self._process.stdout
        try:
            while True:
                reply = receive(pipe, Reply)
                digest = ""
                if isinstance(reply, Done) and (reply.update or reply.state):
                    digest = _save(pipe, reply, self._files)
                self._answers.put(Answer(reply, digest))
        except Closed:
            self._answers.put(None)
        except OSError as error:
            what = f"What the code sent could not be written: {error.strerror}."
            self._answers.put(Lost("system", what))
        with contextlib.suppress(OSError):
            pipe.close()


def _save(pipe: BinaryIO, done: Done, files: Files | None) -> str:
    """Write the bytes after a reply to files; return the digest of the update.

    Raises:
      Closed: the process has ended, or sends more than it may.
    """
    if files is None or not (0 < done.update <= files.limit and 0 <= done.state <= files.limit):
        raise Closed
    digest = _copy(pipe, files.update, done.update)
    if done.state:
        _copy(pipe, files.state, done.state)
    return digest


def _copy(pipe: BinaryIO, path: Path, size: int) -> str:
    hasher = blake3()
    piece = memoryview(bytearray(min(size, _PIECE_BYTES)))
    with open(path, "wb") as file:
        while size:
            count = pipe.readinto(piece[: min(size, len(piece))])  # type: ignore[attr-defined]
            if not count:
                raise Closed
            hasher.update(piece[:count])
            file.write(piece[:count])
            size -= count
    return f"blake3:{hasher.hexdigest()}"


def _drain(pipe: BinaryIO, log: Log, tail: deque[bytes]) -> None:
    """Take what a process prints, however much it is."""
    with contextlib.suppress(OSError, ValueError):
        while data := os.read(pipe.fileno(), 2**16):
            tail.append(data[-1024:])
            log.write(data)
        pipe.close()


def _widen(pipe: Any) -> None:
    """Let a pipe hold more, so that fewer turns are needed for an update."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIECE_BYTES)


def _descendants(pid: int) -> int:
    """Return how many processes a process has started, and they in turn."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = Path("/proc", name, "stat").read_text(errors="replace")
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    found, todo = 0, [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += len(below)
        todo += below
    return found
