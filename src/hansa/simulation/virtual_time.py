"""Who comes when in a simulation: a client's speed is drawn, and its steps say how long it takes.

Time is relative to the end of the last round and stands in each commit, so that a run that is
resumed sees the same order of arrivals.  Nothing here depends on how fast this machine is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hansa.learners.batches import local_steps
from hansa.plan import hyper_at
from hansa.project import Project
from hansa.simulation.population import Population
from hansa.simulation.runner import examples_of
from hansa.workflows import AtWork
from hansa.workflows.pace import drawn_seconds, speed_key


def begun(
    project: Project,
    population: Population,
    number: int,
    *,
    cohort: Sequence[str],
    at_work: Mapping[str, AtWork],
) -> dict[str, AtWork]:
    """Return who is at work once a cohort has begun in a round, and until when."""
    fresh = {c: AtWork(number, _seconds(project, population, number, c)) for c in cohort}
    return {**at_work, **fresh}


def in_order(at_work: Mapping[str, AtWork]) -> list[str]:
    """Return clients in the order in which they come; of two at once the first by name."""
    return sorted(at_work, key=lambda client: (at_work[client].until, client))


def later(at_work: Mapping[str, AtWork], seconds: float) -> dict[str, AtWork]:
    """Return who is at work after so many seconds."""
    return {c: w._replace(until=max(0.0, w.until - seconds)) for c, w in at_work.items()}


def _seconds(project: Project, population: Population, number: int, client: str) -> float:
    """Return how long a client takes for its local steps in a round."""
    hyper = hyper_at(project.plan, number)
    examples = examples_of(project, population, client)
    steps = local_steps(examples, hyper) if examples else hyper.steps or hyper.epochs
    key = speed_key(project.plan.seed, client)
    return drawn_seconds(key, steps=steps, spread=project.workflow.spread)
