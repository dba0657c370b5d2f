"""What passes between a project's process and the one that runs its Flower clients.

Each message is a frame of `hansa.pipes`; where one has a size, that many bytes of tensors follow.
"""

from __future__ import annotations

from typing import Any, BinaryIO, Literal

import msgspec
import numpy as np

from hansa.params import Params, decode, encode
from hansa.pipes import Closed, exactly, receive, send

Kind = Literal["seed", "train", "evaluate"]


class Setup(msgspec.Struct, tag="setup", frozen=True):
    """Whose code is to be run."""

    folder: str  # of the project
    digest: bytes  # of its code
    client: str  # module:object, or a script
    arguments: str  # of the script, with {partition} and {partitions}
    model: str | None  # module:object that makes the seed model
    weighted_by: str  # name of the metric that is a client's weight


class Task(msgspec.Struct, tag="task", frozen=True):
    """What one client is to do; the model follows."""

    kind: Kind
    client: str
    node_id: int
    node_config: dict[str, Any]
    run_config: dict[str, Any]
    config: dict[str, Any]  # of this message
    round: int
    key: bytes
    size: int


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """The process has started."""


class Answer(msgspec.Struct, tag="answer", frozen=True):
    """What a client has done; its arrays follow."""

    size: int
    metrics: dict[str, tuple[float, float]] = {}  # totals and weights
    weight: float = 0.0
    keeps: bool = False  # whether the client keeps something between messages


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """What a client raised."""

    code: str
    happened: str
    hint: str
    trace: str


Request = Setup | Task
Reply = Ready | Answer | Failed


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


def receive_with(pipe: BinaryIO, kind: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Read a frame, and the arrays after it: writable, and in their order."""
    frame = receive(pipe, kind)
    size = getattr(frame, "size", 0)
    if not size:
        return frame, {}
    return frame, decode(bytearray(exactly(pipe, size)), source="the other process").to_dict()
