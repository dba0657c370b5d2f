"""What the exchanges of one run ask of whom, and what their sums must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hansa.algorithms import Vectors
from hansa.plan import Method, Plan
from hansa.protocol.messages import Phase, Standing
from hansa.rounds import BUFFERS, aggregation_spec
from hansa.rounds.round import Terms
from hansa.server.journal import Event
from hansa.server.sums import Ask
from hansa.server.weighing import weight_each, weight_room
from hansa.spans import Spans
from hansa.workflows import GlobalState


class Asks:
    """Makes what is asked from the event that opens an exchange, which is all there is of it.

    Args:
      run: its name.
      plan: of the run.
      method: algorithm, aggregator and transforms.
      deadline_s: how long an exchange waits.
      spans: where the times of a round are noted.
    """

    def __init__(
        self, run: str, plan: Plan, method: Method, *, deadline_s: float, spans: Spans
    ) -> None:
        self._run, self._plan, self._method = run, plan, method
        self._deadline_s, self._spans = deadline_s, spans
        self.update_bytes = 0  # the most that one update of the last training takes

    def message(self, state: GlobalState) -> Vectors:
        """Return what a cohort gets, from which it begins."""
        message = Vectors(self._method.algorithm.broadcast(state.algorithm))
        if len(state.buffers):
            message[BUFFERS] = state.buffers
        return message

    def room(
        self,
        number: int,
        cohort: Sequence[str],
        terms: Terms,
        *,
        roster: Sequence[str],
        said: Mapping[str, Standing],
        steps: Mapping[str, int],
    ) -> float:
        """Return what the weights of a round can sum up to."""
        return weight_room(
            self._plan,
            self._method.algorithm,
            number,
            # Who is mandatory is waited for, however many others have answered.
            clients=len(cohort) if terms.mandatory else terms.goal or len(cohort),
            roster=roster,
            said=said,
            steps=sum(steps.values()),
        )

    def plain(self, number: int, phase: Phase, cohort: Sequence[str], terms: Terms) -> Ask:
        """Return an exchange whose answers are not summed."""
        ask = Ask(self._run, number, phase, tuple(cohort), terms, self._deadline_s)
        return ask._replace(grace_s=self._plan.cohort.grace_s)

    def of(
        self, opened: Event, message: Vectors, *, terms: Terms, said: Mapping[str, Standing]
    ) -> Ask:
        """Return what the event that opened an exchange says, with the plan's method."""
        number, phase, steps = opened["round"], opened["phase"], opened.get("steps", {})
        ask = self.plain(number, phase, opened["cohort"], terms)
        ask = ask._replace(
            aggregator=self._method.aggregator,
            transform=self._method.transform,
            steps=steps,
            settings=opened.get("settings", {}),
            spans=self._spans,
        )
        if phase != "train":
            return ask
        spec = aggregation_spec(
            self._method.algorithm,
            message,
            weight_limit=opened["weight_limit"],
            bound=self._plan.bound,
        )
        self.update_bytes = sum(v.size * np.dtype(v.dtype).itemsize for v in spec.vectors.values())
        most = weight_each(self._plan, self._method.algorithm, number, said=said, steps=steps)
        return ask._replace(spec=spec, most=most)
