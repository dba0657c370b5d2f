"""What a site and the process that runs a run's code say to each other.

Frames of msgpack over the standard streams.  The round's message is a file that the worker reads;
what it sends back, an update and a client's state, follow the frame `Done` as plain bytes, so a
worker needs no folder that it may write to.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hansa.hosting.confined import Limits


class _Frame(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """One frame."""


class Declared(msgspec.Struct, frozen=True):
    """Data of the site, where the worker sees it."""

    path: str
    target: str | None = None  # column of a CSV file
    group: str | None = None  # column of a CSV file
    classes: tuple[str, ...] = ()  # of a CSV file whose target is text


class Setup(_Frame, frozen=True):
    """First frame: what the worker will work on."""

    limits: Limits
    package: str  # folder of the run's code
    plan: dict[str, Any]
    identity: str  # of plan and code; a worker with other code refuses
    name: str  # of the site
    data: dict[str, Declared]
    states: str  # folder of the site's client states of this run, which it only reads
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]  # the model's names, dtypes, shapes
    buffers: tuple[str, ...]  # names of those that are averaged and not trained
    constants: tuple[str, ...] = ()  # of those that never change: they come with each message


class Train(_Frame, frozen=True):
    """Train in a round."""

    number: int
    message: str  # file
    steps: int | None = None  # local steps; None: the plan's
    settings: dict[str, Any] = {}


class Evaluate(_Frame, frozen=True):
    """Evaluate the round's model on the validation part."""

    number: int
    message: str  # file


class Ask(_Frame, frozen=True):
    """Answer a named task."""

    number: int
    message: str  # file with the question
    task: str
    step: int


class Ready(_Frame, frozen=True):
    """Setup is done and the data loaded."""

    examples: int  # of training and validation; 0: not counted


class Done(_Frame, frozen=True):
    """A task is done; `update` bytes of the update and `state` bytes of the state follow."""

    metrics: dict[str, tuple[float, float]]  # totals and weights
    weight: float = 0.0
    examples: int = 0
    update: int = 0
    state: int = 0
    steps: int = 0  # local steps that were taken
    epoch_steps: int = 0  # of one pass over the examples


class Failed(_Frame, frozen=True):
    """What the code raised."""

    code: str
    message: str
    trace: str


Request = Setup | Train | Evaluate | Ask
Reply = Ready | Done | Failed
