"""Rounds in which each client takes as many local steps as fit into one time for all.

The first round is a synchronous one, and clients say how long their steps took.  From then on the
slowest client makes `multiple` passes over its examples and the others work on for as long, so that
all finish together and none is idle.

Source: MetisFL; Stripelis, Thompson and Ambite 2022, arXiv 2102.02849.  See `hansa.workflows.pace`
for the formula.  The step counts are a function of what the last commit holds, so a round that is
repeated after a crash asks for the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hansa.algorithms import Algorithm, Capability
from hansa.errors import PlanError
from hansa.plan import Method, Plan
from hansa.ranges import not_negative, positive
from hansa.workflows.federation import Federation, Trained
from hansa.workflows.pace import budgets, kept, remembered, round_seconds, split_pace
from hansa.workflows.stopping import Progress
from hansa.workflows.synchronous import Extra, one_round
from hansa.workflows.workflow import Workflow


def semi_synchronous(
    multiple: float = 1.0,
    remeasure: bool = True,
    most_epochs: float = 20.0,
    spread: float = 0.5,
) -> Workflow:
    """Build semi-synchronous rounds: as many local steps for each client as fit into one time.

    Args:
      multiple: lambda of the paper; passes over its examples that the slowest client makes.
      remeasure: after each round; else the first time of each client holds for the whole run.
      most_epochs: passes that any client makes at most, so that a site that claims to be slow does
        not let the others work for ever.
      spread: of clients' speeds in a simulation, as standard deviation of their logarithm.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("semi_synchronous", multiple=multiple, most_epochs=most_epochs)
    not_negative("semi_synchronous", spread=spread)

    async def run(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
        commit = federation.resume()
        progress = Progress(**commit.progress)
        while progress.ended is None:
            pace = _Pace(progress.memory, multiple, remeasure, most_epochs)
            commit, problems = await one_round(federation, plan, algorithm, commit, extra=pace)
            progress = Progress(**commit.progress)
            await federation.commit(commit, problems)
        return progress

    tells = "This site says how long its local steps take, and the server how many it takes."
    return Workflow("semi_synchronous", run, _check, tells, timed=True, spread=spread)


def _check(plan: Plan, method: Method) -> None:
    """Refuse what has no local steps whose number could differ."""
    if Capability.GRADIENT in method.algorithm.needs:
        raise PlanError(
            "plan-impossible",
            f"{method.algorithm.name} asks each client for one gradient; a semi-synchronous round "
            "gives each its own number of local steps. Nothing was started.",
            'Use an algorithm that trains, such as fed_avg, or workflow = "synchronous".',
        )


class _Pace(Extra):
    """What a semi-synchronous round asks and learns."""

    def __init__(
        self, memory: dict[str, Any], multiple: float, remeasure: bool, most_epochs: float
    ) -> None:
        self._speeds = remembered(memory.get("speeds", {}))
        self._multiple, self._remeasure, self._most_epochs = multiple, remeasure, most_epochs
        self._steps: dict[str, int] = {}
        self._seconds: float | None = None

    def steps(self, cohort: Sequence[str]) -> dict[str, int]:
        known = {client: self._speeds[client] for client in cohort if client in self._speeds}
        self._seconds = round_seconds(known.values(), multiple=self._multiple)
        self._steps = budgets(known, multiple=self._multiple, most_epochs=self._most_epochs)
        return self._steps

    def learn(self, trained: Trained) -> tuple[Trained, dict[str, Any], dict[str, Any]]:
        plain, found = split_pace(trained.metrics)
        for client, speed in sorted(found.items()):
            if self._remeasure or client not in self._speeds:
                self._speeds.pop(client, None)  # the last one measured is the last one forgotten
                self._speeds[client] = speed
        row = {
            "pace": {
                "seconds": self._seconds,
                "steps": self._steps,
                "step_seconds": {client: s.step_seconds for client, s in sorted(found.items())},
            }
        }
        return trained._replace(metrics=plain), row, {"speeds": kept(self._speeds)}
