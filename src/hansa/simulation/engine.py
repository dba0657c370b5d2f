"""What an engine is: it runs an exchange's clients somewhere and hands back one partial sum.

`inline` runs them in this process, `processes` in warm worker processes.  Both fold where the
clients run, so that memory does not grow with their number, and by law L3 both give the same
bytes for the same updates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from hansa.algorithms import Vectors
from hansa.rounds.questions import Asking
from hansa.simulation.runner import Report, Runner

OnReport = Callable[[Report], None]
"""Called as each client ends, in any order."""


class Exchange(NamedTuple):
    """What is to be done: one message, for many clients."""

    number: int
    message: Vectors
    weight_limit: float
    steps: Mapping[str, int] = {}  # local steps, where not the plan's


class Engine(Protocol):
    """Runs clients."""

    name: str

    def train(self, exchange: Exchange, clients: Sequence[str], on_report: OnReport) -> Any:
        """Have the clients train; return the accumulator of all their updates."""

    def evaluate(self, exchange: Exchange, clients: Sequence[str], on_report: OnReport) -> None:
        """Have the clients evaluate the message's model."""

    def ask(self, asking: Asking, on_report: OnReport) -> None:
        """Have clients answer a named task; what they answer is in their reports."""

    def close(self) -> None:
        """Stop what was started."""


class Inline:
    """Runs clients one after the other in this process."""

    name = "inline"

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def train(self, exchange: Exchange, clients: Sequence[str], on_report: OnReport) -> Any:
        self._runner.open(*exchange)
        for client in clients:
            on_report(self._runner.train(client))
        return self._runner.partial

    def evaluate(self, exchange: Exchange, clients: Sequence[str], on_report: OnReport) -> None:
        self._runner.open(*exchange)
        for client in clients:
            on_report(self._runner.evaluate(client))

    def ask(self, asking: Asking, on_report: OnReport) -> None:
        for client, question in asking.questions.items():
            on_report(self._runner.ask(client, asking, question))

    def close(self) -> None:
        pass
