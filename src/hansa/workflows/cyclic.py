"""The model goes from client to client, and each trains on what the one before has made.

A round is one client's turn: an exchange with a cohort of one, and a commit, so that a crash loses
one turn at most.  A cycle is one turn of each client that the plan's cohort draws for it.  Who
cannot take its turn is passed over; a cycle that can no longer have the plan's minimum of turns
ends the run.

Source: cyclical weight transfer, Chang et al. 2018; NVFlare's cyclic controller.  Ours differs:
turns, not cycles, are what is committed, counted as rounds, and evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from hansa.algorithms import Algorithm, Vectors
from hansa.errors import PlanError, RunError
from hansa.limits import CYCLE_CLIENTS_MAX
from hansa.plan import Method, Plan
from hansa.rounds import Terms
from hansa.seeds import Key
from hansa.workflows.federation import Commit, Federation, Problem, Trained
from hansa.workflows.sampling import cohort_size, sample
from hansa.workflows.stopping import Progress, advance
from hansa.workflows.synchronous import evaluate_into, reasons, row_of, step
from hansa.workflows.workflow import Workflow

Order = Literal["fixed", "random"]


class Cycle(NamedTuple):
    """Where a cycle is; kept in each commit."""

    number: int = 0  # counted from 1
    size: int = 0  # turns of the whole cycle
    left: tuple[str, ...] = ()  # whose turns are to come, in order
    done: int = 0  # turns whose result became the next one's model


def cyclic(order: Order = "fixed", cycles: int | None = None) -> Workflow:
    """Build the cyclic workflow: the model goes from client to client, one a round.

    Args:
      order: "fixed" is by name; "random" is drawn anew for each cycle, from the plan's seed.
      cycles: the run ends after so many, if its rounds have not ended it before.

    Raises:
      PlanError: a setting is out of range.
    """
    if cycles is not None and cycles < 1:
        raise PlanError(
            "plan-bad-value",
            f"The workflow was given cyclic.cycles = {cycles}. Nothing was started.",
            "It must be at least 1.",
        )

    async def run(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
        commit = federation.resume()
        progress = Progress(**commit.progress)
        while progress.ended is None:
            commit, problems = await _turn(
                federation, plan, algorithm, commit, order=order, cycles=cycles
            )
            progress = _ended_by(Progress(**commit.progress), cycles)
            commit = commit._replace(progress=progress._asdict())
            await federation.commit(commit, problems)
        return progress

    tells = "What your data make of the model goes to the next site as it is, without others'."
    return Workflow("cyclic", run, _check, tells)


def _check(plan: Plan, method: Method) -> None:
    """Refuse what would not hand one client's model on to the next."""
    algorithm, aggregator, cohort = method.algorithm, method.aggregator, plan.cohort
    if not hands_on(algorithm):
        raise _impossible(
            f"{algorithm.name} makes its server's model of more than one client's result",
            'Use algorithm = "fed_avg", which takes it as it is, or fed_prox.',
        )
    if aggregator.name != "mean":
        raise _impossible(
            f"{aggregator.name} is a rule over several updates, and a turn brings one",
            'Use aggregator = "mean".',
        )
    if cohort.over > 1 or cohort.late == "discount":
        key = f"over is {cohort.over:g}" if cohort.over > 1 else 'late is "discount"'
        raise _impossible(
            f"the plan's cohort.{key}, and a turn waits for one client", "Leave it out."
        )
    if cohort.count is not None and cohort.count > CYCLE_CLIENTS_MAX:
        raise _impossible(
            f"the plan's cohort.count is {cohort.count}, and a cycle has {CYCLE_CLIENTS_MAX} turns "
            "at most",
            "Lower it.",
        )


def _impossible(why: str, hint: str) -> PlanError:
    return PlanError(
        "plan-impossible",
        "The cyclic workflow gives each client what the one before has made; "
        f"{why}. Nothing was started.",
        hint,
    )


def hands_on(algorithm: Algorithm) -> bool:
    """Try whether the server's half makes x + delta of one update, and keeps nothing else."""
    x, delta = np.array([1.0, -2.5, 0.75]), np.array([0.5, 3.0, -8.25])
    state = algorithm.init(x.copy())
    if state.keys() != {"x"} or algorithm.sends != ("delta",):
        return False
    after = algorithm.server(state, Vectors(delta=delta.copy()), 0.25)
    return after.keys() == {"x"} and bool(np.array_equal(after.x, x + delta))


async def _turn(
    federation: Federation,
    plan: Plan,
    algorithm: Algorithm,
    commit: Commit,
    *,
    order: Order,
    cycles: int | None,
) -> tuple[Commit, list[Problem]]:
    """Return the next commit, which is not made yet, and who could not take its turn."""
    number, progress = commit.round + 1, Progress(**commit.progress)
    began = federation.elapsed()
    roster = await federation.roster(number)
    cycle = _cycle(progress.memory.get("cycle"), plan, roster, order=order)
    client, cycle, problems = _next(cycle, roster, number)
    # Whom the cycle can do without is passed over when lost; else its return is waited for.
    needed = cycle.done + len(cycle.left) < plan.cohort.minimum
    terms = Terms(minimum=1 if needed else 0)
    trained = await _trained(federation, commit, client, terms=terms)
    problems += trained.problems
    state = commit.state
    if trained.aggregate is not None:
        state = step(algorithm, state, trained, clients=len(roster))
        cycle = cycle._replace(done=cycle.done + 1)
    _require_minimum(plan, cycle, number, problems)
    row = row_of(number, [] if client is None else [client], trained)
    row["turn"] = {"cycle": cycle.number, "client": client, "left": len(cycle.left)}
    last = number >= plan.rounds or (cycle.number == cycles and not cycle.left)
    if number % plan.evaluate.every == 0 or last:
        problems += await evaluate_into(federation, plan, row, state=state, roster=roster)
    row["seconds"] = federation.elapsed() - began
    minutes = federation.elapsed() / 60
    progress = advance(progress, row, plan.stop, rounds=plan.rounds, minutes=minutes)
    kept = {**cycle._asdict(), "left": list(cycle.left)}
    progress = progress._replace(memory={**progress.memory, "cycle": kept})
    return Commit(number, state, row, progress._asdict()), problems


async def _trained(
    federation: Federation, commit: Commit, client: str | None, *, terms: Terms
) -> Trained:
    if client is None:  # whoever was left of the cycle has gone
        return Trained(None, {}, [], bytes_down=0, bytes_up=0, asked=0)
    return await federation.train(commit.round + 1, commit.state, [client], terms=terms)


def _cycle(
    kept: dict[str, Any] | None, plan: Plan, roster: Sequence[str], *, order: Order
) -> Cycle:
    """Return the cycle that goes on, or the next one."""
    cycle = Cycle() if kept is None else Cycle(**{**kept, "left": tuple(kept["left"])})
    if cycle.left:
        return cycle
    number = cycle.number + 1
    key = Key.root(plan.seed).child("cycle", number)
    size = cohort_size(len(roster), fraction=plan.cohort.fraction, count=plan.cohort.count)
    if size > CYCLE_CLIENTS_MAX:
        raise RunError(
            "plan-impossible",
            f"A cycle would have {size} turns; it has {CYCLE_CLIENTS_MAX} at most.",
            f"Set cohort.count to {CYCLE_CLIENTS_MAX} or fewer, and run again.",
        )
    left = sorted(sample(roster, size, key.child("cohort")))
    if order == "random":
        turns = key.child("order").generator().permutation(len(left)).tolist()
        left = [left[i] for i in turns]
    return Cycle(number, len(left), tuple(left))


def _next(
    cycle: Cycle, roster: Sequence[str], number: int
) -> tuple[str | None, Cycle, list[Problem]]:
    """Return whose turn it is, None if all that were left are away, and who was passed over."""
    there = set(roster) if len(roster) <= CYCLE_CLIENTS_MAX else roster
    left = list(cycle.left)
    problems: list[Problem] = []
    while left:
        client = left.pop(0)
        if client in there:
            return client, cycle._replace(left=tuple(left)), problems
        why = "it was not there when its turn came, and was passed over"
        problems.append(Problem(number, client, "failed", "client-silent", why))
    return None, cycle._replace(left=()), problems


def _require_minimum(plan: Plan, cycle: Cycle, number: int, problems: Sequence[Problem]) -> None:
    """End a run whose cycle can no longer have the plan's minimum of turns.

    Raises:
      RunError: run-too-few.
    """
    if cycle.done + len(cycle.left) >= plan.cohort.minimum:
        return
    raise RunError(
        "run-too-few",
        f"Cycle {cycle.number} of {cycle.size} turns cannot have {plan.cohort.minimum} that count: "
        f"{reasons(problems)}. The run has failed; the model of round {number - 1} is kept.",
        "Correct the cause, or lower cohort.minimum, and run again.",
    )


def _ended_by(progress: Progress, cycles: int | None) -> Progress:
    cycle = progress.memory["cycle"]
    if progress.ended is not None or cycles is None or cycle["left"] or cycle["number"] < cycles:
        return progress
    told = "the one cycle is done" if cycles == 1 else f"all {cycles} cycles are done"
    return progress._replace(ended=told)
