"""What a project's process and the one that runs its Flower clients ask and answer."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Kind = Literal["seed", "train", "evaluate"]


class Setup(msgspec.Struct, tag="setup", frozen=True):
    """Whose code is to be run."""

    folder: str  # of the project
    digest: bytes  # of its code
    client: str  # module:object, or a script
    arguments: str  # of the script, with {partition} and {partitions}
    model: str | None  # module:object that makes the seed model
    weighted_by: str  # name of the metric that is a client's weight
    arrays_in: str = "arrays"  # names of the records of a message
    config_in: str = "config"


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


class Answer(msgspec.Struct, tag="answer", frozen=True):
    """What a client has done; its arrays follow."""

    size: int
    metrics: dict[str, tuple[float, float]] = {}  # totals and weights
    weight: float = 0.0
    keeps: bool = False  # whether the client keeps something between messages
