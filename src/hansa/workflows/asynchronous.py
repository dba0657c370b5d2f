"""Rounds that wait for nobody in particular: an update is used as soon as it comes.

A round gives the newest model to those who have nothing to do, waits for `buffer` updates of
anybody, whenever they were asked, and commits what these make of the model.  Whoever is still at
work stays so through the commit, and its update counts in the round in which it comes.  So nobody
waits for the slowest; with a buffer of one, nobody waits at all.  In a buffer a client counts once:
what it would train on until the buffer is full is the model that it had.

The rules, by their names in the literature:

    fed_rec    the model is the weighted mean of the latest model of every client that has sent one
    fed_buff   the model moves by the mean of the buffer's updates, each times its discount
    fed_async  the model is mixed with the update's: x <- (1 - alpha) x + alpha x_k

Source: FedRec of MetisFL, whose first and whose replaced models are counted wrongly there;
FedBuff, Nguyen et al. 2022 (arXiv 2106.06639), Alg. 1; FedAsync, Xie, Koyejo and Gupta 2019 (arXiv
1903.03934), Alg. 1.  In FedBuff ours weighs updates as the plan says, and the paper alike:
`weighting = "uniform"` is the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from hansa.aggregators import Aggregate
from hansa.algorithms import Algorithm
from hansa.errors import PlanError, RunError
from hansa.limits import AT_WORK_MAX
from hansa.metrics import Mean, Metrics
from hansa.plan import Method, Plan
from hansa.ranges import not_negative, share
from hansa.seeds import Key
from hansa.workflows.arriving import FedAsync, FedBuff, FedRec, Rule
from hansa.workflows.cyclic import hands_on
from hansa.workflows.federation import Arrived, AtWork, Commit, Federation, Problem, Trained
from hansa.workflows.sampling import cohort_size, spare
from hansa.workflows.staleness import Staleness, discount
from hansa.workflows.stopping import Progress, advance
from hansa.workflows.synchronous import all_failed, evaluate_into, row_of
from hansa.workflows.workflow import Workflow

RuleName = Literal["fed_rec", "fed_buff", "fed_async"]

FED_BUFF_K = 10
"""Updates of a commit in the experiments of FedBuff's paper."""


def asynchronous(
    rule: RuleName = "fed_rec",
    buffer: int | None = None,
    staleness: Staleness = "constant",
    a: float = 0.5,
    b: float = 4.0,
    mixing: float = 0.6,
    spread: float = 0.5,
) -> Workflow:
    """Build asynchronous rounds: an update is used as soon as it comes.

    Args:
      rule: what a commit makes of the updates that have come.
      buffer: K, updates that make a commit; by default 10 for fed_buff and 1 for the others.
      staleness: how an update is discounted that was made from an older model; not with fed_rec.
      a: of the polynomial (s + 1)^-a, and of the hinge.
      b: staleness up to which the hinge discounts nothing.
      mixing: alpha of fed_async, before the discount.
      spread: of clients' speeds in a simulation, as standard deviation of their logarithm.

    Raises:
      PlanError: a setting is out of range, or is none of this rule's.
    """
    factor = discount(staleness, a=a, b=b)
    share("asynchronous", mixing=mixing)
    not_negative("asynchronous", spread=spread)
    count = buffer if buffer is not None else FED_BUFF_K if rule == "fed_buff" else 1
    if count < 1 or count > AT_WORK_MAX:
        raise _bad("buffer", count, f"from 1 to {AT_WORK_MAX}")
    if rule == "fed_async" and count != 1:
        raise _bad("buffer", count, '1 with rule = "fed_async"; "fed_buff" has a buffer')
    if rule == "fed_rec" and staleness != "constant":
        why = 'left out with rule = "fed_rec", in which a client\'s latest model counts in full'
        raise _bad("staleness", staleness, why)

    async def run(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
        commit = federation.resume()
        progress = Progress(**commit.progress)
        made: Rule
        if rule == "fed_rec":
            made = FedRec(federation, progress.memory.get("latest", {}))
        elif rule == "fed_buff":
            made = FedBuff(algorithm, factor)
        else:
            made = FedAsync(federation, factor, mixing)
        while progress.ended is None:
            commit, problems = await _round(federation, plan, made, commit, count=count)
            progress = Progress(**commit.progress)
            await federation.commit(commit, problems)
        return progress

    def check(plan: Plan, method: Method) -> None:
        _check(plan, method, rule)

    tells = "This site trains without waiting for others, as often as it can."
    return Workflow("asynchronous", run, check, tells, spread=spread, raced=True)


def _bad(key: str, value: object, wanted: str) -> PlanError:
    return PlanError(
        "plan-bad-value",
        f"The workflow was given asynchronous.{key} = {value!r}. Nothing was started.",
        f"It must be {wanted}.",
    )


def _check(plan: Plan, method: Method, rule: RuleName) -> None:
    """Refuse what has no meaning where updates come one by one."""
    algorithm, aggregator, cohort = method.algorithm, method.aggregator, plan.cohort
    if algorithm.needs_mean or algorithm.sends != ("delta",):
        raise _impossible(
            f"{algorithm.name} keeps at each client what belongs to one round",
            "Use an algorithm without client state such as fed_avg.",
        )
    if rule != "fed_buff" and not hands_on(algorithm):
        raise _impossible(
            f"{rule} makes the model itself, and {algorithm.name} would step at the server",
            'Use algorithm = "fed_avg" or fed_prox, or rule = "fed_buff".',
        )
    if aggregator.name != "mean":
        raise _impossible(
            f"{aggregator.name} is a rule over the updates of one round", 'Use aggregator = "mean".'
        )
    if cohort.over > 1 or cohort.late == "discount":
        key = f"over is {cohort.over:g}" if cohort.over > 1 else 'late is "discount"'
        raise _impossible(
            f"the plan's cohort.{key}, and here nobody is late",
            'Leave it out; see staleness of rule = "fed_buff".',
        )
    beside = {
        "server_functions": plan.server_functions.file,
        "keep.clients": plan.keep.clients,
        "cohort.mandatory": ", ".join(cohort.mandatory),
    }
    for key, value in beside.items():
        if value:
            raise _impossible(
                f"{key} is {value!r}, and belongs to rounds that close", f"Leave {key} out."
            )
    if rule == "fed_async" and plan.weighting not in (None, "uniform"):
        raise _impossible(
            f"fed_async weighs an update by its staleness alone, and weighting is {plan.weighting}",
            'Leave weighting out, or use rule = "fed_rec" or "fed_buff".',
        )


def _impossible(why: str, hint: str) -> PlanError:
    return PlanError(
        "plan-impossible",
        f"The asynchronous workflow uses each update as it comes; {why}. Nothing was started.",
        hint,
    )


async def _round(
    federation: Federation, plan: Plan, rule: Rule, commit: Commit, *, count: int
) -> tuple[Commit, list[Problem]]:
    """Return the commit that follows another, which is not made yet, and who dropped out.

    Raises:
      RunError: nobody is at work, for all have failed.
    """
    number, progress = commit.round + 1, Progress(**commit.progress)
    began = federation.elapsed()
    at_work = {c: AtWork(*fact) for c, fact in progress.memory.get("at_work", {}).items()}
    roster = await federation.roster(number)
    size = cohort_size(len(roster), fraction=plan.cohort.fraction, count=plan.cohort.count)
    _check_size(size)
    key = Key.root(plan.seed).child("cohort", number)
    there = set(roster) if len(roster) <= AT_WORK_MAX else roster
    # Who is away keeps its task, for it may come back with it, and takes no place meanwhile.
    free = max(0, size - sum(client in there for client in at_work))
    cohort = spare(roster, list(at_work), free, key=key) if free else []
    asked = len(at_work) + len(cohort)
    arrived = await federation.arrivals(
        number, commit.state, cohort, at_work=at_work, count=min(count, asked)
    )
    _require_any(arrived, number)
    state = commit.state
    if arrived.updates:
        state = federation.stored(rule.step(number, state, arrived.updates, clients=len(roster)))
    row = _row(number, cohort, arrived)
    problems = list(arrived.problems)
    if number % plan.evaluate.every == 0 or number >= plan.rounds:
        asked_to = roster
        if number < plan.rounds:  # nobody is kept from its work for that
            idle = max(0, len(roster) - sum(client in there for client in arrived.at_work))
            size = min(plan.evaluate.clients, idle)
            asked_to = spare(roster, list(arrived.at_work), size, key=key.child("evaluate"))
        latest = _measured(progress)
        problems += await evaluate_into(
            federation, plan, row, state=state, roster=asked_to, latest=latest
        )
        progress = _remembering(progress, latest, plan.evaluate.clients)
    row["seconds"] = federation.elapsed() - began
    minutes = federation.elapsed() / 60
    progress = advance(progress, row, plan.stop, rounds=plan.rounds, minutes=minutes)
    over = progress.ended is not None
    left = {} if over else arrived.at_work
    at_work_now = {c: list(left[c]) for c in sorted(left)}
    memory = {**progress.memory, "at_work": at_work_now, **rule.memory()}
    progress = progress._replace(memory=memory)
    holds = frozenset[tuple[str, int]]() if over else rule.holds()
    return Commit(number, state, row, progress._asdict(), at_work=left, holds=holds), problems


def _row(number: int, cohort: list[str], arrived: Arrived) -> dict[str, Any]:
    counted = Aggregate({}, 0.0, len(arrived.updates))
    down, up = arrived.bytes_down, arrived.bytes_up
    row = row_of(number, cohort, Trained(counted, arrived.metrics, arrived.problems, down, up))
    staleness = {update.client: number - update.asked for update in arrived.updates}
    return row | {"staleness": staleness, "at_work": len(arrived.at_work)}


def _measured(progress: Progress) -> dict[str, Metrics]:
    """Return what clients measured last; JSON knows no NaN."""
    kept: dict[str, dict[str, list[float | None]]] = progress.memory.get("measured", {})
    return {
        client: {
            name: Mean(*(math.nan if value is None else value for value in pair))
            for name, pair in metrics.items()
        }
        for client, metrics in kept.items()
    }


def _remembering(progress: Progress, latest: Mapping[str, Metrics], clients: int) -> Progress:
    """Keep what clients measured last, of as many as the plan has evaluate at a time."""
    newest = list(latest)[max(0, len(latest) - clients) :]
    kept = {
        client: {
            name: [value if math.isfinite(value) else None for value in (mean.total, mean.weight)]
            for name, mean in latest[client].items()
        }
        for client in newest
    }
    return progress._replace(memory={**progress.memory, "measured": kept})


def _require_any(arrived: Arrived, number: int) -> None:
    """End a run in which all that were at work have failed; who is silent may come back.

    Raises:
      RunError: run-all-failed.
    """
    silent = any(problem.code == "client-silent" for problem in arrived.problems)
    if not arrived.updates and not arrived.at_work and not silent:
        raise all_failed(arrived.problems, number)


def _check_size(size: int) -> None:
    if size > AT_WORK_MAX:
        raise RunError(
            "plan-impossible",
            f"{size} clients would be at work at once; in an asynchronous run it are "
            f"{AT_WORK_MAX} at most.",
            f"Set cohort.count to {AT_WORK_MAX} or fewer, and run again.",
        )
