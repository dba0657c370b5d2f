"""What a project's process and the one that runs a declearn model ask and answer."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Kind = Literal["seed", "train", "evaluate", "predict"]

Named = str | dict[str, Any]
"""A module of an optimizer: its name, or a table with the name and options."""


class Setup(msgspec.Struct, tag="setup", frozen=True):
    """Whose model it is, and how it is trained."""

    folder: str  # of the project
    digest: bytes  # of its code
    file: str  # with the model, below the folder
    name: str  # of the model in it
    shape: list[int]  # of one example
    classes: int  # 0 where targets are numbers
    regularizers: list[Named]
    chain: list[Named]
    shuffle: bool
    drop_remainder: bool
    most_steps: int | None
    evaluation_batch: int


class Task(msgspec.Struct, tag="task", frozen=True):
    """What is to be done; the model's arrays and the rows, x and y, follow."""

    kind: Kind
    key: bytes
    size: int
    round: int = 1
    epochs: int = 1
    steps: int | None = None  # instead of epochs
    batch_size: int | None = None
    lr: float = 1.0


class Answer(msgspec.Struct, tag="answer", frozen=True):
    """What was done; arrays follow."""

    size: int
    steps: int = 0
    loss: float = 0.0
