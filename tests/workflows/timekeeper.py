"""A federation whose clients have speeds that a test sets, and that notes what it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hansa.aggregators import Aggregate
from hansa.algorithms import Vectors
from hansa.metrics import Mean
from hansa.rounds import Terms
from hansa.workflows import Commit, Evaluated, GlobalState, Problem, Progress, Trained
from hansa.workflows.pace import with_pace


class Timekeeper:
    """Clients train in no time and say what a test has them say.

    Args:
      seconds: of a step, by client; may be changed between rounds.
      epochs: steps of a pass, by client.
    """

    def __init__(self, seconds: Mapping[str, float], epochs: Mapping[str, int]) -> None:
        self.seconds, self.epochs = dict(seconds), dict(epochs)
        self.steps: list[dict[str, int]] = []  # that were asked, by round
        self.commits: list[Commit] = []
        self.away: set[tuple[str, int]] = set()  # client and round
        self.failing: set[tuple[str, int]] = set()
        self.cohorts: list[list[str]] = []

    def resume(self) -> Commit:
        if self.commits:
            return self.commits[-1]
        state = GlobalState(Vectors(x=np.zeros(2, np.float32)), np.empty(0))
        return Commit(0, state, {}, Progress()._asdict())

    def recall(self, round_number: int) -> GlobalState:
        return next(c.state for c in self.commits if c.round == round_number)

    def elapsed(self) -> float:
        return 1.0

    async def roster(self, round_number: int) -> Sequence[str]:
        return [c for c in sorted(self.seconds) if (c, round_number) not in self.away]

    async def train(
        self,
        round_number: int,
        state: GlobalState,
        cohort: Sequence[str],
        *,
        terms: Terms,
        steps: Mapping[str, int] | None = None,
    ) -> Trained:
        self.steps.append(dict(steps or {}))
        self.cohorts.append(list(cohort))
        done = [c for c in cohort if (c, round_number) not in self.failing]
        lost = [
            Problem(round_number, c, "failed", "client-failed", f"{c} fails")
            for c in cohort
            if c not in done
        ]
        metrics = {}
        for client in done:
            taken = (steps or {}).get(client, self.epochs[client])
            told = {"seconds": self.seconds[client] * taken, "steps": taken}
            metrics[client] = with_pace({"loss": Mean(1.0, 1.0)}, epoch_steps=self.epochs[client],
                                        **told)  # fmt: skip
        mean = {"delta": np.ones(2, np.float32)}
        aggregate = Aggregate(mean, float(len(done)), len(done)) if done else None
        return Trained(aggregate, metrics, lost, 1, 2)

    async def evaluate(
        self, round_number: int, state: GlobalState, clients: Sequence[str]
    ) -> Evaluated:
        return Evaluated(
            {c: {"first": Mean(float(state.algorithm.x[0]), 1.0)} for c in clients}, []
        )

    async def test(self, round_number: int, state: GlobalState) -> dict[str, Any]:
        return {}

    async def commit(self, commit: Commit, problems: Sequence[Problem]) -> None:
        self.commits.append(commit)
