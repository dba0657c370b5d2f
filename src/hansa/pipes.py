"""Frames over pipes between a process and the workers it has started: a length, then msgpack.

Nothing in a frame names code; models travel as files, or as plain bytes after a frame.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import msgspec

from hansa.limits import WORKER_FRAME_BYTES_MAX


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


def receive(pipe: BinaryIO, kind: Any) -> Any:
    """Read one frame of a kind.

    Raises:
      Closed: the other process has ended, or sent something else.
    """
    length = int.from_bytes(_exactly(pipe, 4), "little")
    if length > WORKER_FRAME_BYTES_MAX:
        raise Closed
    try:
        return msgspec.msgpack.decode(_exactly(pipe, length), type=kind)
    except msgspec.MsgspecError as error:
        raise Closed from error


def _exactly(pipe: BinaryIO, count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise Closed
    return data
