"""One worker process seen from the site: the pipes to it, its time, and its end.

Whatever runs in there may lie, hang, flood or die; `ask` always comes back.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from blake3 import blake3

from hansa.hosting.process import HostedProcess, Lost
from hansa.limits import WORKER_REPLY_BYTES_MAX
from hansa.pipes import Closed, receive, send
from hansa.site.worker_messages import Done, Failed, Ready, Reply, Request, Setup
from hansa.store.files import write_all
from hansa.store.spares import NO_SPARES, Spares

_PIECE_BYTES = 2**20


class Answer(NamedTuple):
    """A reply, and the digest of the update that came with it."""

    reply: Ready | Done | Failed
    digest: str = ""


class Files(NamedTuple):
    """Where the bytes after a reply go, and how many there may be of each."""

    update: Path
    state: Path
    limit: int  # bytes
    spares: Spares  # that an update is written over

    @classmethod
    def beside(cls, update: Path, limit: int, spares: Spares) -> Files:
        """Return files for a result; the update has its name when it is whole.

        Args:
          update: the result's file.
          limit: bytes that it, and a state, may have.
          spares: files that may be written over.
        """
        part, state = (update.with_name(f"{update.name}.{end}") for end in ("part", "state"))
        return cls(part, state, limit, spares)

    def remove(self) -> None:
        """Remove what has been written."""
        self.spares.give(self.update)
        self.state.unlink(missing_ok=True)


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


class WorkerProcess(HostedProcess[Answer]):
    """The process of one run's code; see `HostedProcess` for the arguments."""

    _files: Files | None = None

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
            answer = self.asked(lambda pipe: send(pipe, request), seconds=seconds)
        finally:
            self._files = None
        if not isinstance(answer.reply, expected):
            self.kill()
            raise Lost("client-lost", "The worker process answered something else.")
        return answer

    def receive(self, pipe: BinaryIO) -> Answer:
        """Return the next reply; an update that follows it goes to its file.

        There is one file a question, and it is written once: whoever answers twice would else
        change bytes whose digest has been told already.
        """
        reply = receive(pipe, Reply, most=WORKER_REPLY_BYTES_MAX)
        files, self._files = self._files, None
        digest = ""
        if isinstance(reply, Done) and (reply.update or reply.state):
            digest = _save(pipe, reply, files)
        return Answer(reply, digest)


def _save(pipe: BinaryIO, done: Done, files: Files | None) -> str:
    """Write the bytes after a reply to files; return the digest of the update.

    Raises:
      Closed: the process has ended, or sends more than it may.
    """
    if files is None or not (0 < done.update <= files.limit and 0 <= done.state <= files.limit):
        raise Closed
    files.remove()  # of a try that was cut off
    try:
        return _written(pipe, done, files)
    except OSError:
        files.spares.clear()  # there may be room without them at the next try
        raise


def _written(pipe: BinaryIO, done: Done, files: Files) -> str:
    digest = _copy(pipe, files.spares.open(files.update, done.update), done.update)
    if done.state:  # after a loss of power nobody could tell it from what it was written over
        _copy(pipe, NO_SPARES.open(files.state, done.state), done.state)
    return digest


def _copy(pipe: BinaryIO, file: io.FileIO, size: int) -> str:
    hasher = blake3()
    piece = memoryview(bytearray(min(size, _PIECE_BYTES)))
    with file:
        while size:
            count = pipe.readinto(piece[: min(size, len(piece))])  # type: ignore[attr-defined]
            if not count:
                raise Closed
            hasher.update(piece[:count])
            write_all(file, piece[:count])
            size -= count
    return f"blake3:{hasher.hexdigest()}"
