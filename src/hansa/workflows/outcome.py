"""What a server is handed of the answers to a named task, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hansa.errors import HansaError
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.rounds.questions import Answer


class Turn(NamedTuple):
    """Where a process is: which question of which round was answered."""

    round: int
    step: int  # of the round's questions, from 0
    settings: Mapping[str, Any]  # that were asked with
    layout: ModelLayout
    model: Params  # the global one


class Outcome(NamedTuple):
    """What a process makes of answers."""

    report: dict[str, Any]  # JSON, kept in the row of the round
    model: Params | None = None  # the new global model; None leaves it as it is
    ask: dict[str, Any] | None = None  # settings to ask all once more with, in the next step
    refused: Mapping[str, HansaError] = {}


Process = Callable[[Mapping[str, Answer], Turn], Outcome]
"""From answers by client to what is made of them; a pure function, for a crash repeats it."""
