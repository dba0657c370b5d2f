"""The classic rounds: choose a cohort, train, aggregate, step, evaluate, commit.

McMahan et al. 2017, Alg. 1, for any algorithm of `hansa.algorithms`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from hansa.algorithms import Algorithm, Vectors
from hansa.errors import PlanError, RunError
from hansa.metrics import Metrics, confusions, summarise_all
from hansa.params.dtypes import quietly
from hansa.plan.measured import asked_of
from hansa.plan.schema import Plan
from hansa.rounds import BUFFERS, Terms, largest_parameter
from hansa.seeds import Key
from hansa.text import few
from hansa.workflows.federation import Commit, Federation, GlobalState, Problem, Trained
from hansa.workflows.reports import reported
from hansa.workflows.sampling import cohort_size, sample, spare
from hansa.workflows.stopping import Progress, advance


class Extra:
    """What a workflow may add to a synchronous round; this one adds nothing."""

    def choose(self, plan: Plan, roster: Sequence[str], number: int) -> tuple[list[str], Terms]:
        """Return whom a round asks, and when it ends."""
        return choose(plan, roster, number)

    def steps(self, cohort: Sequence[str]) -> dict[str, int]:
        """Return local steps of those of the cohort that take others than the plan says."""
        return {}

    def settings(self, cohort: Sequence[str]) -> dict[str, Any]:
        """Return what the whole cohort is told besides the model, as plain JSON data."""
        return {}

    def learn(self, trained: Trained) -> tuple[Trained, dict[str, Any], dict[str, Any]]:
        """Return what came of the training, and what to add to the row and to the memory."""
        return trained, {}, {}

    def keep(self, state: GlobalState) -> GlobalState:
        """Return what is kept of the stepped state until the next round."""
        return state


_NOTHING = Extra()


async def synchronous(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
    """Run rounds until the plan says stop; continue from the last commit.

    Raises:
      RunError: every client of a round failed, or fewer answered than the plan's minimum.
    """
    commit = federation.resume()
    while Progress(**commit.progress).ended is None:
        commit, problems = await one_round(federation, plan, algorithm, commit)
        await federation.commit(commit, problems)
    return Progress(**commit.progress)


async def one_round(
    federation: Federation,
    plan: Plan,
    algorithm: Algorithm,
    commit: Commit,
    *,
    extra: Extra = _NOTHING,
) -> tuple[Commit, list[Problem]]:
    """Return the commit that follows another, which is not made yet, and who dropped out.

    Raises:
      RunError: every client of the round failed, or fewer answered than the plan's minimum.
    """
    number, progress = commit.round + 1, Progress(**commit.progress)
    began = federation.elapsed()
    roster = await federation.roster(number)
    cohort, terms = extra.choose(plan, roster, number)
    asked: dict[str, Any] = {}
    if steps := extra.steps(cohort):
        asked["steps"] = steps
    if settings := extra.settings(cohort):
        asked["settings"] = settings
    work = federation.train(number, commit.state, cohort, terms=terms, **asked)
    trained, more, memory = extra.learn(_enough(await work, plan, number))
    state = extra.keep(step(algorithm, commit.state, trained, clients=len(roster)))
    row = row_of(number, cohort, trained) | more
    problems = list(trained.problems)
    del trained  # its aggregate is as large as the model
    if number % plan.evaluate.every == 0 or number >= plan.rounds:
        problems += await evaluate_into(federation, plan, row, state=state, roster=roster)
    row["seconds"] = federation.elapsed() - began
    minutes = federation.elapsed() / 60
    progress = advance(progress, row, plan.stop, rounds=plan.rounds, minutes=minutes)
    progress = progress._replace(memory={**progress.memory, **memory})
    return Commit(number, state, row, progress._asdict()), problems


def choose(plan: Plan, roster: Sequence[str], number: int) -> tuple[list[str], Terms]:
    """Return whom a round asks, and when it ends; a function of seed, round and roster."""
    key = Key.root(plan.seed).child("cohort", number)
    size = cohort_size(len(roster), fraction=plan.cohort.fraction, count=plan.cohort.count)
    mandatory = _mandatory(plan, roster)
    minimum = plan.cohort.minimum
    # Of fewer than the minimum no round can come, however large the share is.
    size = max(size, len(mandatory), min(minimum, len(roster)))
    if mandatory:
        others = [client for client in roster if client not in mandatory]
        chosen = {*mandatory, *sample(others, size - len(mandatory), key)}
        cohort = [client for client in roster if client in chosen]
    else:
        cohort = sample(roster, size, key)
    # 1.1 * 10 is a little more than 11, and means 11.
    more = min(len(roster), math.ceil(round(plan.cohort.over * size, 6))) - size
    if more <= 0:
        return cohort, Terms(minimum, mandatory=mandatory)
    return [*cohort, *spare(roster, cohort, more, key=key)], Terms(minimum, size, mandatory)


def _mandatory(plan: Plan, roster: Sequence[str]) -> tuple[str, ...]:
    """Return the clients that each round asks and needs.

    Raises:
      PlanError: the plan names one that is none of the run's.
    """
    for client in plan.cohort.mandatory:
        if client not in roster:
            raise PlanError(
                "plan-impossible",
                f"The plan's cohort.mandatory names {client!r}, and there is no such client.",
                f"Those of this run are {', '.join(roster[:5])}{' ...' if roster[5:] else ''}.",
            )
    return plan.cohort.mandatory


def step(
    algorithm: Algorithm, state: GlobalState, trained: Trained, *, clients: int
) -> GlobalState:
    """Return the server's state after an aggregate, in a federation of so many clients.

    Raises:
      RunError: the server's step made the model diverge.
    """
    assert trained.aggregate is not None  # `_enough` has seen to it
    mean = Vectors(trained.aggregate.vectors)
    buffers = mean.pop(BUFFERS, state.buffers)
    share = trained.aggregate.clients / clients
    before = state.algorithm
    # NumPy scalars widen float32; what is read back after an interruption must be what was there.
    with quietly():  # a model that is not finite is refused below
        stepped = Vectors(
            (name, np.asarray(v, before[name].dtype) if name in before else v)
            for name, v in algorithm.server(before, mean, share).items()
        )
    largest_parameter(stepped.x)
    return GlobalState(stepped, buffers)


def _enough(trained: Trained, plan: Plan, number: int) -> Trained:
    accepted = 0 if trained.aggregate is None else trained.aggregate.clients
    missing = [client for client in plan.cohort.mandatory if client not in trained.metrics]
    if accepted and accepted >= plan.cohort.minimum and not missing:
        return trained
    if accepted == 0:
        raise all_failed(trained.problems, number)
    if missing:
        raise RunError(
            "run-too-few",
            f"Round {number} has no update of {', '.join(missing)}, which the plan's "
            f"cohort.mandatory names: {reasons(trained.problems)}. {_kept(number)}",
            "Correct the cause, or leave them out of cohort.mandatory, and run again.",
        )
    raise RunError(
        "run-too-few",
        f"Round {number} has {accepted} updates and the plan's minimum is {plan.cohort.minimum}: "
        f"{reasons(trained.problems)}. {_kept(number)}",
        "Correct the cause, or lower cohort.minimum, and run again.",
    )


def all_failed(problems: Sequence[Problem], number: int) -> RunError:
    """Return the error of a round in which nothing counts."""
    return RunError(
        "run-all-failed",
        f"Round {number} closed with no update that counts. Who was asked, and why not: "
        f"{reasons(problems)}. {_kept(number)}",
        "Correct the cause and run again.",
    )


def _kept(number: int) -> str:
    return f"The run has failed; the model of round {number - 1} is kept."


def reasons(problems: Sequence[Problem], wanted: Sequence[str] = ()) -> str:
    """Say in one line which clients dropped out and why; like reasons are told once.

    Whoever was merely not waited for any longer comes last: that the others failed is the cause.

    Args:
      problems: of the clients that were asked.
      wanted: clients that the plan names, where it does.
    """
    alike: dict[str, list[Problem]] = {}
    for problem in sorted(problems, key=lambda p: p.code == "client-silent"):
        # Sentences that differ only in numbers and names are one reason.
        gist = re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "#", problem.message)
        alike.setdefault(gist, []).append(problem)
    told = []
    for group in list(alike.values())[:3]:
        names = few([problem.client for problem in group], 3)
        file = f" ({group[0].file})" if group[0].file else ""
        told.append(f"{names}: {group[0].message.removesuffix('.')}{file}")
    absent = f"of {', '.join(wanted[:3])} none is there" if wanted else "no client took part"
    return "; ".join(told) or absent


def _require_watched(plan: Plan, row: dict[str, Any]) -> None:
    """Refuse to wait for a metric that nobody measures."""
    stop = plan.stop
    measured = sorted({*row.get("test", {}), *row.get("validation", {})})
    if (stop.target is None and stop.patience is None) or stop.metric in measured or not measured:
        return
    raise PlanError(
        "plan-bad-value",
        f"The plan stops by {stop.metric!r}, which nobody measures. The run has ended.",
        f"Set stop.metric to one of: {', '.join(measured)}.",
    )


def row_of(number: int, cohort: Sequence[str], trained: Trained) -> dict[str, Any]:
    """Return what a round's row says of its training."""
    kinds = [problem.kind for problem in trained.problems]
    return {
        "round": number,
        "clients": {
            "asked": len(cohort) if trained.asked is None else trained.asked,
            "accepted": 0 if trained.aggregate is None else trained.aggregate.clients,
            "failed": kinds.count("failed"),
            "refused": kinds.count("refused"),
        },
        "bytes": {"down": trained.bytes_down, "up": trained.bytes_up},
        "train": summarise_all(trained.metrics),
    }


async def evaluate_into(
    federation: Federation,
    plan: Plan,
    row: dict[str, Any],
    *,
    state: GlobalState,
    roster: Sequence[str],
    latest: dict[str, Metrics] | None = None,
) -> list[Problem]:
    """Add this round's evaluations to the row; return the clients that could not evaluate.

    Args:
      federation: whose clients evaluate.
      plan: says how many, and what they measure.
      row: of the round.
      state: whose model they evaluate.
      roster: of whom they are drawn.
      latest: what clients measured last, which counts where one does not evaluate now; brought up
        to date.
    """
    number = row["round"]
    key = Key.root(plan.seed).child("evaluate", number)
    size = min(plan.evaluate.clients, len(roster))
    asked_now = sample(roster, size, key)
    if plan.evaluate.reports:
        evaluated, row["reports"] = await reported(federation, number, state, asked_now)
    else:
        evaluated = await federation.evaluate(number, state, asked_now)
    test: Metrics = await federation.test(number, state)
    asked = asked_of(plan)
    measured = evaluated.metrics
    if latest is not None:
        for client in sorted(measured):
            latest.pop(client, None)  # the last one measured is the last one forgotten
            latest[client] = measured[client]
        measured = latest
    for part, reports in (("validation", measured), ("test", {"server": test})):
        if not any(reports.values()):
            continue
        row[part] = summarise_all(reports, asked)
        if (matrix := confusions(reports, asked)) is not None:
            row.setdefault("confusion", {})[part] = matrix
    _require_watched(plan, row)
    return list(evaluated.problems)
