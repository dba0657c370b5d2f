"""One command as a process: started without a shell, watched, and ended with all that it started.

Whatever it prints is read as it comes and only the end is kept, so that nothing it does can fill
this process's memory or make it wait for more than the time limit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from hansa.clock import monotonic
from hansa.errors import LearnerError
from hansa.limits import FAILURE_CHARS_MAX

_PIECE_BYTES = 2**16
_PIECES = 2 * FAILURE_CHARS_MAX // _PIECE_BYTES  # enough for the end that is kept
_LAST_WORDS_S = 1.0  # for what is still in the pipe of a command that has ended
_FAREWELL_S = 10.0  # for the guard to remove what may be many files
_GUARD = Path(__file__).with_name("command_guard.py")


class Ended(NamedTuple):
    """How a command has ended."""

    status: int | None  # negative: the signal that killed it; None: it took too long
    output: str  # the end of what it printed, to either stream
    printed: int  # bytes in all
    seconds: float


class Place:
    """A temporary folder for commands, and the guard that ends them if this process is killed.

    Both are there from the first use on, and go with `close`, or with this object, or when this
    process ends in whatever way.
    """

    def __init__(self) -> None:
        self._made: tuple[Path, subprocess.Popen[bytes]] | None = None
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        """Return the folder; it is made with its guard at the first call."""
        with self._lock:
            if self._made is None:
                folder = Path(tempfile.mkdtemp(prefix="hansa-command-")).resolve()
                # Unbuffered: a word to the guard must not wait in a process that may be killed.
                guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_GUARD), str(folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    bufsize=0,
                    start_new_session=True,
                )
                self._made = folder, guard
                self._end = weakref.finalize(self, _dismiss, guard)
            return self._made[0]

    def close(self) -> None:
        """End every command, and remove the folder."""
        with self._lock:
            if self._made is not None:
                self._end()
                self._made = None

    def run(
        self, words: Sequence[str], *, folder: Path, environment: Mapping[str, str], seconds: float
    ) -> Ended:
        """Run a command to its end, and end what it has left running.

        Args:
          words: the program and its arguments; no shell reads them.
          folder: to run it in.
          environment: all of it; its PATH says where a program without a folder is.
          seconds: that it may take.

        Raises:
          LearnerError: command-missing, there is no such program, or it cannot be started.
        """
        began = monotonic()
        tail: deque[bytes] = deque(maxlen=_PIECES)
        held = _Interruption()
        try:
            process = _started(words, folder, environment)
        except BaseException:
            held.release()
            raise
        try:
            held.release()
            self._tell("+", process.pid)
            reader = _Reader(process, tail)
            over = threading.Event()
            threading.Thread(target=reader.read, daemon=True).start()
            threading.Thread(target=_wait, args=(process, over), daemon=True).start()
            in_time = over.wait(seconds)
            took = monotonic() - began
        finally:
            _kill(process)  # also what it has left behind
            process.wait()
            self._tell("-", process.pid)
        reader.done.wait(_LAST_WORDS_S)
        output = b"".join(tuple(tail)).decode("utf-8", "backslashreplace")[-FAILURE_CHARS_MAX:]
        return Ended(process.returncode if in_time else None, output, reader.printed, took)

    def _tell(self, sign: str, group: int) -> None:
        assert self._made is not None  # `folder` has been asked for
        with self._lock, contextlib.suppress(OSError):  # a guard that was killed guards no more
            self._made[1].stdin.write(f"{sign}{group}\n".encode())  # type: ignore[union-attr]


class _Interruption:
    """Holds Ctrl-C back while a process is started: it would be left behind without an owner."""

    def __init__(self) -> None:
        self._came: list[Any] = []
        self._before = signal.getsignal(signal.SIGINT)
        # Only the main thread is interrupted; and what is ignored or ends us at once stays so.
        main = threading.current_thread() is threading.main_thread()
        self._holds = main and callable(self._before)
        if self._holds:
            signal.signal(signal.SIGINT, lambda *came: self._came.append(came))

    def release(self) -> None:
        """Let it through, also the one that has come meanwhile."""
        if self._holds and callable(self._before):
            signal.signal(signal.SIGINT, self._before)
            if self._came:
                self._before(*self._came[0])


class _Reader:
    """Takes what a command prints, however much it is."""

    def __init__(self, process: subprocess.Popen[bytes], tail: deque[bytes]) -> None:
        assert process.stdout is not None
        self._pipe: IO[bytes] = process.stdout
        self._tail, self.printed = tail, 0
        self.done = threading.Event()

    def read(self) -> None:
        """Read to the end; a process that has left the group may hold the pipe for long."""
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(self._pipe.fileno(), _PIECE_BYTES):
                self.printed += len(data)
                if self._tail and len(self._tail[-1]) + len(data) <= _PIECE_BYTES:
                    self._tail[-1] += data
                else:
                    self._tail.append(data)
        self._pipe.close()
        self.done.set()


def _started(
    words: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a process group, by which it can be ended whole."""
    try:
        return subprocess.Popen(
            words,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=None if os.name == "nt" else 0,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise LearnerError(
            "command-missing",
            f"The program {words[0]!r} cannot be started: {why}.",
            "Name a program that is installed where the clients are, or a file of the package "
            "such as ./train.sh that begins with #!.",
        ) from None


def _wait(process: subprocess.Popen[bytes], over: threading.Event) -> None:
    process.wait()
    over.set()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    """Let the guard end what is left; wait, so that the folder is gone when this returns."""
    with contextlib.suppress(OSError):
        guard.stdin.close()  # type: ignore[union-attr]
    with contextlib.suppress(subprocess.TimeoutExpired):  # its pipe may be held elsewhere
        guard.wait(_FAREWELL_S)
