"""What a simulation and its worker processes say to each other: framed msgpack over pipes.

Models and partial sums travel as files beside them.  Nothing here names code.
"""

from __future__ import annotations

from typing import Any

import msgspec


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
    buffers: tuple[str, ...]  # names of those that are averaged and not trained
    constants: tuple[str, ...]  # of those that never change
    fixed: str = ""  # file of these, if there are any
    folder: str = ""  # of the run
    key: str = ""  # of the models that it keeps in Redis


class Open(_Frame, frozen=True):
    """An exchange begins."""

    number: int
    message: str  # file
    weight_limit: float
    settings: dict[str, Any] = {}  # what all clients are told besides


class Train(_Frame, frozen=True):
    """One client's turn to train."""

    client: str
    steps: int | None = None  # local steps, where not the plan's


class Evaluate(_Frame, frozen=True):
    """One client's turn to evaluate."""

    client: str


class Ask(_Frame, frozen=True):
    """One client's turn to answer a named task."""

    client: str
    number: int
    task: str
    step: int
    question: str  # file
    answer: str  # file to be written


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


Request = Setup | Open | Train | Evaluate | Ask | Finish
Reply = Ready | Reported | Refused
