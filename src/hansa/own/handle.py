"""The handle of a workflow in a process of its own: every call goes over the pipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hansa.aggregators.aggregator import Vector
from hansa.metrics import Metrics
from hansa.own.wants import Arriving, Questions, Training
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.rounds import Terms
from hansa.workflows import (
    ANYBODY,
    NO_SETTINGS,
    Answered,
    Arrived,
    AtWork,
    Commit,
    Evaluated,
    GlobalState,
    Problem,
    Trained,
)

Want = Callable[[str, Any], Any]
"""Asks the other side for something, by the name of the method and its arguments."""


class RemoteFederation:
    """A federation that is reached through whoever keeps the pipe; see `Federation`.

    Args:
      layout: of the run's model.
      want: asks the other side.
    """

    def __init__(self, layout: ModelLayout, want: Want) -> None:
        self.layout, self._want = layout, want

    def resume(self) -> Commit:
        """Return the last commit."""
        found: Commit = self._want("resume", ())
        return found

    def elapsed(self) -> float:
        """Return seconds of work so far."""
        return float(self._want("elapsed", ()))

    async def roster(self, round_number: int) -> Sequence[str]:
        """Wait until enough clients can be asked, and return them."""
        found: list[str] = self._want("roster", (round_number,))
        return found

    def recall(self, round_number: int) -> GlobalState:
        """Return the model of a round that was kept."""
        found: GlobalState = self._want("recall", (round_number,))
        return found

    async def train(
        self,
        round_number: int,
        state: GlobalState,
        cohort: Sequence[str],
        *,
        terms: Terms,
        steps: Mapping[str, int] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Trained:
        """Have a cohort train, and return what that comes to."""
        training = Training(
            round_number,
            state,
            list(cohort),
            terms,
            None if steps is None else dict(steps),
            None if settings is None else dict(settings),
        )
        found: Trained = self._want("train", training)
        return found

    async def arrivals(
        self,
        round_number: int,
        state: GlobalState,
        cohort: Sequence[str],
        *,
        at_work: Mapping[str, AtWork],
        count: int,
    ) -> Arrived:
        """Have a cohort begin, and wait for the next updates."""
        arriving = Arriving(round_number, state, list(cohort), dict(at_work), count)
        found: Arrived = self._want("arrivals", arriving)
        return found

    def hold(self, client: str, number: int, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors for as long as commits name them."""
        self._want("hold", (client, number, dict(vectors)))

    def held(self, client: str, number: int) -> Mapping[str, Vector]:
        """Return what was held."""
        found: Mapping[str, Vector] = self._want("held", (client, number))
        return found

    def stored(self, state: GlobalState) -> GlobalState:
        """Return a state as it is once it has been committed and read back."""
        found: GlobalState = self._want("stored", (state,))
        return found

    async def evaluate(
        self, round_number: int, state: GlobalState, clients: Sequence[str]
    ) -> Evaluated:
        """Have clients evaluate the state's model."""
        found: Evaluated = self._want("evaluate", (round_number, state, list(clients)))
        return found

    async def ask(
        self,
        round_number: int,
        task: str,
        clients: Sequence[str],
        *,
        message: Mapping[str, Params] | Params | None = None,
        settings: Mapping[str, Any] = NO_SETTINGS,
        terms: Terms = ANYBODY,
        step: int = 0,
    ) -> Answered:
        """Have clients answer a named task."""
        alike = message if isinstance(message, Params) else None
        each = dict(message) if message is not None and not isinstance(message, Params) else None
        found: Answered = self._want(
            "ask",
            Questions(
                round_number,
                task,
                list(clients),
                alike,
                each,
                dict(settings),
                terms,
                step,
            ),
        )
        return found

    async def test(self, round_number: int, state: GlobalState) -> Metrics:
        """Evaluate on what the server holds of the data."""
        found: Metrics = self._want("test", (round_number, state))
        return found

    async def commit(self, commit: Commit, problems: Sequence[Problem]) -> None:
        """Make a round durable."""
        self._want("commit", (commit, list(problems)))
