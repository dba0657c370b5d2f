"""Every client, or some, answers one named task; the server makes something of the answers.

    workflow = { name = "broadcast_and_process", task = "summary", settings = { bins = 10 } }

Each of the plan's rounds asks once, or as often as the process wants to; what comes of it is in
the row of the round under `report`, and committed with the model.  A project's own process needs a
workflow of the project: `broadcast_and_process("summary", process=my_function)`.

Source: NVFlare's BroadcastAndProcess.  Ours differs: answers are checked before they count, the
round is committed, and a process may ask again, as federated statistics must.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hansa.algorithms import Algorithm
from hansa.errors import PlanError, RunError
from hansa.limits import PROCESS_STEPS_MAX
from hansa.plan import Method, Plan
from hansa.rounds import Terms
from hansa.text import nearest
from hansa.workflows.answers import PROCESSES, check_report
from hansa.workflows.federation import Commit, Federation, GlobalState, Problem
from hansa.workflows.outcome import Outcome, Process, Turn
from hansa.workflows.stopping import Progress, advance
from hansa.workflows.synchronous import choose, reasons
from hansa.workflows.workflow import Workflow


def broadcast_and_process(
    task: str,
    settings: dict[str, Any] | None = None,
    process: Any = "collect",  # a name, or a `Process` of a workflow of the project
    clients: list[str] | None = None,
    send_model: bool = True,
) -> Workflow:
    """Build rounds of one named task.

    Args:
      task: that the project's code answers.
      settings: JSON for the clients.
      process: collect, mean, statistics, or a function of `hansa.workflows.outcome.Process`.
      clients: who is asked, by name; None: those whom the plan's cohort says.
      send_model: the global model goes to the clients with the question.
    """
    made: Process | None = process if callable(process) else PROCESSES.get(str(process))
    if made is None:
        raise PlanError(
            "plan-unknown-name",
            f"The plan's workflow.process is {process!r}, which does not exist.",
            nearest(str(process), PROCESSES),
        )

    async def run(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
        commit = federation.resume()
        progress = Progress(**commit.progress)
        while progress.ended is None:
            work = _Round(federation, plan, task, dict(settings or {}), made, commit)
            commit, problems = await work.perform(clients, send_model=send_model)
            progress = Progress(**commit.progress)
            await federation.commit(commit, problems)
        return progress

    def check(plan: Plan, method: Method) -> None:
        if plan.stop.target is not None or plan.stop.patience is not None:
            raise PlanError(
                "plan-impossible",
                "The plan stops by a metric, and broadcast_and_process measures none.",
                "Leave stop.target and stop.patience out.",
            )

    tells = f"What your site's code answers to the task {task!r} leaves, in every round."
    return Workflow("broadcast_and_process", run, check, tells)


class _Round:
    """One round: questions until the process has what it wants."""

    def __init__(
        self,
        federation: Federation,
        plan: Plan,
        task: str,
        settings: dict[str, Any],
        process: Process,
        commit: Commit,
    ) -> None:
        self._federation, self._plan, self._task = federation, plan, task
        self._settings, self._process, self._commit = settings, process, commit
        self._number = commit.round + 1

    async def perform(
        self, clients: Sequence[str] | None, *, send_model: bool
    ) -> tuple[Commit, list[Problem]]:
        """Return the commit that follows, which is not made yet, and who dropped out."""
        federation, number = self._federation, self._number
        began, before = federation.elapsed(), self._commit.state
        roster = await federation.roster(number)
        asked, terms = self._chosen(roster, clients)
        first = asked
        model = federation.layout.join(before.algorithm.x, before.buffers)
        problems: list[Problem] = []
        settings, down, up, accepted = self._settings, 0, 0, 0
        for step in range(PROCESS_STEPS_MAX):
            answered = await federation.ask(
                number,
                self._task,
                asked,
                message=model if send_model else None,
                settings=settings,
                terms=terms,
                step=step,
            )
            turn = Turn(number, step, settings, federation.layout, model)
            outcome = self._process(answered.answers, turn)
            problems += [*answered.problems, *_refused(number, outcome)]
            accepted = len(answered.answers) - len(outcome.refused)
            down, up = down + answered.bytes_down, up + answered.bytes_up
            self._check_enough(accepted, problems, clients or ())
            if outcome.ask is None:
                break
            settings = outcome.ask
            counted = answered.answers.keys() - outcome.refused.keys()
            asked = [name for name in asked if name in counted]
        else:
            raise RunError(
                "task-question",
                f"The workflow has asked for {self._task} {PROCESS_STEPS_MAX} times in round "
                f"{number}, and its process wants to ask again. The run has failed.",
                "Let the process report after fewer questions.",
            )
        row = self._row(first, accepted, problems) | {"bytes": {"down": down, "up": up}}
        row["report"] = check_report(outcome.report)
        row["seconds"] = federation.elapsed() - began
        return self._committed(outcome, row), problems

    def _chosen(
        self, roster: Sequence[str], clients: Sequence[str] | None
    ) -> tuple[Sequence[str], Terms]:
        if clients is None:
            return choose(self._plan, roster, self._number)
        there = set(roster)
        return [name for name in clients if name in there], Terms(self._plan.cohort.minimum)

    def _check_enough(self, accepted: int, problems: list[Problem], wanted: Sequence[str]) -> None:
        minimum = self._plan.cohort.minimum
        if accepted < max(minimum, 1):
            raise RunError(
                "run-too-few",
                f"{accepted} clients have answered {self._task} in round {self._number}, and the "
                f"plan's minimum is {minimum}: {reasons(problems, wanted)}. The run has failed.",
                "Correct the cause, or lower cohort.minimum, and run again.",
            )

    def _row(self, asked: Sequence[str], accepted: int, problems: list[Problem]) -> dict[str, Any]:
        kinds = [problem.kind for problem in problems]
        clients = {"asked": len(asked), "accepted": accepted}
        clients |= {kind: kinds.count(kind) for kind in ("failed", "refused")}
        return {"round": self._number, "clients": clients, "task": self._task}

    def _committed(self, outcome: Outcome, row: dict[str, Any]) -> Commit:
        state, plan = self._commit.state, self._plan
        if outcome.model is not None:
            x, buffers = self._federation.layout.split(outcome.model)
            vectors = type(state.algorithm)({**state.algorithm, "x": np.array(x)})
            state = GlobalState(vectors, np.array(buffers))
        minutes = self._federation.elapsed() / 60
        before = Progress(**self._commit.progress)
        progress = advance(before, row, plan.stop, rounds=plan.rounds, minutes=minutes)
        return Commit(self._number, state, row, progress._asdict())


def _refused(number: int, outcome: Outcome) -> list[Problem]:
    return [
        Problem(number, name, "refused", error.code, error.sentences)
        for name, error in sorted(outcome.refused.items())
    ]
