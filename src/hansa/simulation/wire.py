"""What a simulation and its worker processes say to each other: framed msgpack over pipes.

Models and partial sums travel as files beside them.  Nothing here names code.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import msgspec

from hansa.limits import WORKER_FRAME_BYTES_MAX


class _Frame(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower, array_like=False):
    """One message."""


class Setup(_Frame, frozen=True):
    """First message to a worker: what it will work on."""

    project: str  # folder of the code
    data_folder: str  # where relative paths of data begin
    plan: dict[str, Any]
    states: str  # folder of client states
    identity: str  # digest of plan and code; a worker with other code refuses
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]  # the model's names, dtypes, shapes
    buffers: tuple[str, ...]  # names of those that are not trained


class Open(_Frame, frozen=True):
    """An exchange begins."""

    number: int
    message: str  # file
    weight_limit: float


class Train(_Frame, frozen=True):
    """One client's turn to train."""

    client: str


class Evaluate(_Frame, frozen=True):
    """One client's turn to evaluate."""

    client: str


class Finish(_Frame, frozen=True):
    """Write the partial sum to this file."""

    partial: str


class Ready(_Frame, frozen=True):
    """Done; nothing to say."""


class Reported(_Frame, frozen=True):
    """A client's report, field by field."""

    report: tuple[Any, ...]


class Refused(_Frame, frozen=True):
    """The worker cannot go on."""

    error: str  # class name in hansa.errors
    code: str
    happened: str
    hint: str


Request = Setup | Open | Train | Evaluate | Finish
Reply = Ready | Reported | Refused


class Closed(Exception):  # noqa: N818 - not an error: the other side has ended
    """The pipe has ended."""


def send(pipe: BinaryIO, frame: Request | Reply) -> None:
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
