"""Frames over pipes between a process and the workers it has started: a length, then msgpack.

Nothing in a frame names code; models travel as files, or as plain bytes after a frame.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from hansa.limits import WORKER_FRAME_BYTES_MAX

_FAREWELL_S = 1.0


class Closed(Exception):  # noqa: N818 - not an error: the other side has ended
    """The pipe has ended."""


def send(pipe: BinaryIO, frame: msgspec.Struct) -> None:
    """Write one frame: four bytes of length, then msgpack."""
    body = msgspec.msgpack.encode(frame)
    try:
        pipe.write(len(body).to_bytes(4, "little") + body)
        pipe.flush()
    except (BrokenPipeError, OSError) as error:
        raise Closed from error


def receive(pipe: BinaryIO, kind: Any, *, most: int = WORKER_FRAME_BYTES_MAX) -> Any:
    """Read one frame of a kind, of at most so many bytes.

    Raises:
      Closed: the other process has ended, or sent something else.
    """
    length = int.from_bytes(exactly(pipe, 4), "little")
    if length > most:
        raise Closed
    try:
        return msgspec.msgpack.decode(exactly(pipe, length), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Closed from error


def exactly(pipe: BinaryIO, count: int) -> bytes:
    """Read so many bytes.

    Raises:
      Closed: the other process has ended.
    """
    data = pipe.read(count)
    if len(data) < count:
        raise Closed
    return data


def worker_streams(first: Callable[[], None] = lambda: None) -> tuple[BinaryIO, BinaryIO]:
    """Make this process a worker; return the pipes of requests and replies.

    Its standard streams are for frames, and what user code prints goes to standard error.  Ctrl-C
    is for who asks it to judge.  It ends as soon as that one does, even in the middle of a task.

    Args:
      first: called before it ends so, in another thread than the one that works.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # At the end only what user code has made is searched for garbage: its open files hang on that.
    gc.freeze()
    requests, replies = _take_streams()
    _end_with(requests, first)
    return requests, replies


def _take_streams() -> tuple[BinaryIO, BinaryIO]:
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    return requests, replies


def _end_with(requests: BinaryIO, first: Callable[[], None]) -> None:
    if not hasattr(select, "poll"):
        return
    poll = select.poll()
    poll.register(requests.fileno(), 0)  # tells of the other end's closing only

    def wait() -> None:
        poll.poll()
        first()
        threading.Event().wait(_FAREWELL_S)  # the main thread sees it too, unless it is at work
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
