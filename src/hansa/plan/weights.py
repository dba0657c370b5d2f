"""How much the weights of a round can come to, known before any client answers."""

from __future__ import annotations

from hansa.algorithms import Algorithm
from hansa.learners.batches import local_steps
from hansa.limits import USER_WEIGHT_LIMIT, WEIGHT_LIMIT
from hansa.plan.build import hyper_at, weighting_of
from hansa.plan.schema import Plan


def weight_limit(
    plan: Plan,
    algorithm: Algorithm,
    number: int,
    *,
    clients: int,
    examples: int | None,
    steps: int = 0,
) -> float:
    """Return what the weights of a round cannot exceed, as near as it is known.

    Args:
      plan: says what an update weighs.
      algorithm: decides where the plan does not.
      number: of the round.
      clients: whose updates it takes at most: its goal, or else its whole cohort.
      examples: of all clients of the federation together; None when only the clients know.
      steps: local steps that the workflow asks of some of them, in place of the plan's.
    """
    if plan.weight_limit is not None:
        return plan.weight_limit
    weighting, late = weighting_of(plan, algorithm), _late_share(plan)
    if weighting == "uniform":
        return clients * late
    if weighting == "user":
        return USER_WEIGHT_LIMIT
    if examples is None:
        return WEIGHT_LIMIT
    if weighting == "examples":
        return examples * late
    # Local steps: with batches of one example there are the most.
    hyper = hyper_at(plan, number)._replace(batch_size=1)
    return (max(local_steps(examples, hyper), (hyper.steps or 0) * clients) + steps) * late


def _late_share(plan: Plan) -> float:
    """Return what the rounds that late updates may come from weigh together; this round's is 1."""
    if plan.cohort.late == "refuse":
        return 1.0
    return sum(plan.cohort.late_discount**rounds for rounds in range(plan.cohort.late_rounds + 1))
