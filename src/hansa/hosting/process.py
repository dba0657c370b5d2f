"""A process that runs foreign code, seen from outside: the pipes to it, its time, and its end.

Whatever runs in there may lie, hang, flood or die; `asked` always comes back.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from hansa.clock import monotonic
from hansa.limits import FAILURE_CHARS_MAX, WORKER_LOG_BYTES_MAX, WORKER_PROCESSES_MAX
from hansa.pipes import Closed

_FAREWELL_S = 2.0  # what a process gets to end by itself
_LOOK_S = 0.25  # between two looks at the process while it works
_LAST_WORDS_S = 0.5  # for what a process that has ended has left in its pipe
_PIPE_BYTES = 2**20

A = TypeVar("A")


class Lost(Exception):  # noqa: N818 - a fact about the process, told on as a result
    """The process has ended, or had to be ended; args are a code and a sentence."""


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


class HostedProcess(ABC, Generic[A]):
    """A process that runs foreign code, and what is known of it.

    Start it from a thread that lives as long as it shall: systems that end a process together with
    its parent take the thread for the parent.

    Args:
      command: to run.
      environment: all of it.
      folder: to run it in; None in a sandbox, which has its own.
      log: gets what it prints.
      counted: whether to count its processes, where the system does not.
      over: what passing a limit is called, a code and whose limit it is.
      wanted: whether somebody still waits for what it does; asked now and then while it works.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path | None,
        log: Log,
        counted: bool,
        over: tuple[str, str] = ("site-limit", "this site's limit"),
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._over, self._wanted = over, wanted
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
        # Room for one: who says more than it is asked waits at its pipe.
        self._answers: queue.Queue[A | Lost | None] = queue.Queue(1)
        self._tail: deque[bytes] = deque(maxlen=64)
        self._counted = counted and sys.platform == "linux"
        self._cancelled = self._gone = self._late = False
        self._lock = threading.Lock()
        assert self._process.stdout is not None and self._process.stderr is not None
        _widen(self._process.stdout)
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(
            target=_drain, args=(self._process.stderr, log, self._tail), daemon=True
        ).start()

    def asked(self, say: Callable[[BinaryIO], None], *, seconds: float) -> A:
        """Say something to the process and return what it answers; it is gone after `Lost`.

        Args:
          say: writes the question.
          seconds: that asking and answering may take.

        Raises:
          Lost: it died, took too long, was cancelled, or said something that makes no sense.
        """
        pipe = _Timed(self._process.stdin, seconds, self._end_late)
        try:
            if not self._answers.empty():
                raise self._unasked()
            say(pipe)  # type: ignore[arg-type]  # of a pipe it uses `write` and `flush` alone
            pipe.written()  # from here on the time is watched by waiting
            return self._wait(seconds)
        except Closed:
            raise self._too_late(seconds) if self._late else self._ended() from None
        except Lost:
            self.kill()
            raise
        finally:
            pipe.written()

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
        # What it has started in groups of their own, the last of which nobody may know of yet.
        for pid, _, session in _processes():
            if session == self.pid:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
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

    def _wait(self, seconds: float) -> A:
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            answer = self._next(min(left, _LOOK_S))
            if answer is None:
                if self._process.poll() is None:
                    self._check_processes()
                    if not self._wanted():
                        self._cancelled = True
                        raise self._ended()
                    continue
                # Its last words may still be in the pipe, which a child of it may hold open.
                answer = self._next(_LAST_WORDS_S) or self._ended()
            if isinstance(answer, Lost):
                raise answer
            return answer
        raise self._too_late(seconds)

    def _end_late(self) -> None:
        self._late = True
        self.kill()

    def _unasked(self) -> Lost:
        if self._answers.get_nowait() is None:
            return self._ended()
        return Lost("client-lost", "The process answered without being asked.")

    def _too_late(self, seconds: float) -> Lost:
        code, whose = self._over
        return Lost(code, f"It took more than {seconds:g} s, {whose} for a task.")

    def _next(self, seconds: float) -> A | Lost | None:
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
            code, whose = self._over
            raise Lost(code, f"It started more than {WORKER_PROCESSES_MAX} processes, {whose}.")

    @abstractmethod
    def receive(self, pipe: BinaryIO) -> A:
        """Return the next answer, with all that belongs to it.

        Raises:
          Closed: the process has ended, or sends what it must not.
        """

    def _read(self) -> None:
        """Receive answers; runs in a thread of its own, as a pipe may fall silent at any byte."""
        pipe: Any = self._process.stdout
        try:
            while True:
                self._put(self.receive(pipe))
        except Closed:
            self._put(None)
        except OSError as error:
            what = f"What the code sent could not be written: {error.strerror}."
            self._put(Lost("system", what))
        with contextlib.suppress(OSError):
            pipe.close()

    def _put(self, answer: A | Lost | None) -> None:
        while not self._gone:
            with contextlib.suppress(queue.Full):
                return self._answers.put(answer, timeout=_LOOK_S)


class _Timed:
    """A pipe to a process that may not read, and then holds up whoever writes too much.

    What the pipe has room for is written at once; for more, a thread of its own watches the time.
    """

    def __init__(self, pipe: Any, seconds: float, late: Callable[[], None]) -> None:
        self._pipe, self._seconds, self._late = pipe, seconds, late
        self._timer: threading.Timer | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Write all of it."""
        if self._timer is None and not _has_room(self._pipe, len(data)):
            self._timer = threading.Timer(self._seconds, self._late)
            self._timer.daemon = True
            self._timer.start()
        count: int = self._pipe.write(data)
        self._pipe.flush()
        return count

    def flush(self) -> None:
        """Do nothing: `write` flushes."""

    def written(self) -> None:
        """Watch the time no longer."""
        if self._timer is not None:
            self._timer.cancel()


def _has_room(pipe: Any, size: int) -> bool:
    """Tell whether so many bytes can be written to a pipe without waiting, as far as is known."""
    if not hasattr(select, "poll") or size > select.PIPE_BUF:
        return False
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLOUT)
    return any(event & select.POLLOUT for _, event in poll.poll(0))


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
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _processes() -> Iterator[tuple[int, int, int]]:
    """Give the id, the parent and the session of every process, where the system tells them."""
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = Path("/proc", name, "stat").read_text(errors="replace")
                _, parent, _, session = stat.rpartition(")")[2].split()[:4]
                yield int(name), int(parent), int(session)


def _descendants(pid: int) -> int:
    """Return how many processes a process has started, and they in turn."""
    children: dict[int, list[int]] = {}
    for child, parent, _ in _processes():
        children.setdefault(parent, []).append(child)
    found, todo = 0, [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += len(below)
        todo += below
    return found
