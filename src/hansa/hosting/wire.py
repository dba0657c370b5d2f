"""What passes between a process and one that runs foreign code for it.

Each message is a frame of `hansa.pipes`; where one has a size, that many bytes of tensors follow.
What is asked and answered is each adapter's own; that it has started or failed is said here.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import msgspec
import numpy as np

from hansa.errors import ParamsError
from hansa.limits import BLOB_BYTES_MAX
from hansa.params import Params, decode, encode
from hansa.pipes import Closed, exactly, receive, send

PLACE = "hansa-clients-"
"""Begins the name of the folder for temporary files of one process, which goes with it."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """The process has started."""


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """What a client raised."""

    code: str
    happened: str
    hint: str
    trace: str


def send_with(pipe: BinaryIO, frame: Any, arrays: dict[str, np.ndarray]) -> None:
    """Write a frame, whose `size` is set here, and the arrays after it."""
    header, body = encode(Params.of(arrays)) if arrays else (b"", memoryview(b""))
    send(pipe, msgspec.structs.replace(frame, size=len(header) + body.nbytes))
    try:
        pipe.write(header)
        pipe.write(body)
        pipe.flush()
    except OSError as error:
        raise Closed from error


def receive_with(
    pipe: BinaryIO, kind: Any, *, most: int = BLOB_BYTES_MAX
) -> tuple[Any, dict[str, np.ndarray]]:
    """Read a frame, and the arrays after it: writable, and in their order.

    Args:
      pipe: to read from.
      kind: of the frame.
      most: bytes that the arrays may have.

    Raises:
      Closed: the other process has ended, or sent something else, or more.
    """
    frame = receive(pipe, kind)
    size = getattr(frame, "size", 0)
    if not size:
        return frame, {}
    if not 0 < size <= most:
        raise Closed
    try:
        found = decode(bytearray(exactly(pipe, size)), source="the other process")
    except ParamsError as error:
        raise Closed from error
    return frame, found.to_dict()
