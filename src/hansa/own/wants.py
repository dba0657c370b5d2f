"""What a workflow in its process may want of its federation, and of what kinds that is.

The handle itself is `hansa.workflows.Federation`; both sides of the pipe go by this table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hansa.metrics import Metrics
from hansa.params import Params
from hansa.rounds import Terms
from hansa.workflows import (
    Answered,
    Arrived,
    AtWork,
    Commit,
    Evaluated,
    GlobalState,
    Problem,
    Trained,
)


class Training(NamedTuple):
    """Arguments of `train`."""

    number: int
    state: GlobalState
    cohort: list[str]
    terms: Terms
    steps: dict[str, int] | None
    settings: dict[str, Any] | None


class Arriving(NamedTuple):
    """Arguments of `arrivals`."""

    number: int
    state: GlobalState
    cohort: list[str]
    at_work: dict[str, AtWork]
    updates: int


class Questions(NamedTuple):
    """Arguments of `ask`; the message is for all, or the messages are by client."""

    number: int
    task: str
    clients: list[str]
    message: Params | None
    messages: dict[str, Params] | None
    settings: dict[str, Any]
    terms: Terms
    step: int


class Kinds(NamedTuple):
    """What a call takes and gives."""

    takes: Any
    gives: Any


WANTS: dict[str, Kinds] = {
    "resume": Kinds(tuple[()], Commit),
    "elapsed": Kinds(tuple[()], float),
    "roster": Kinds(tuple[int], list[str]),
    "recall": Kinds(tuple[int], GlobalState),
    "train": Kinds(Training, Trained),
    "arrivals": Kinds(Arriving, Arrived),
    "hold": Kinds(tuple[str, int, dict[str, np.ndarray]], None),
    "held": Kinds(tuple[str, int], dict[str, np.ndarray]),
    "stored": Kinds(tuple[GlobalState], GlobalState),
    "evaluate": Kinds(tuple[int, GlobalState, list[str]], Evaluated),
    "ask": Kinds(Questions, Answered),
    "test": Kinds(tuple[int, GlobalState], Metrics),
    "commit": Kinds(tuple[Commit, list[Problem]], None),
}
