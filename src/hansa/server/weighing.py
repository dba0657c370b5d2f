"""What the weights of a round's updates cannot exceed, by the sites' own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from hansa.algorithms import Algorithm
from hansa.plan import Plan
from hansa.plan.weights import weight_limit
from hansa.protocol.messages import Standing


def weight_room(
    plan: Plan,
    algorithm: Algorithm,
    number: int,
    *,
    clients: int,
    roster: Sequence[str],
    said: Mapping[str, Standing],
    steps: int,
) -> float:
    """Return what all weights of a round cannot exceed, by the examples that sites have said.

    Args:
      plan: says what an update weighs.
      algorithm: decides where the plan does not.
      number: of the round.
      clients: whose updates it takes at most.
      roster: of the round.
      said: the sites' words.
      steps: local steps that the workflow asks for in place of the plan's.
    """
    known = [said[s].examples for s in roster if s in said]
    examples = sum(known) if len(known) == len(roster) and all(known) else None
    return weight_limit(plan, algorithm, number, clients=clients, examples=examples, steps=steps)


def weight_each(
    plan: Plan,
    algorithm: Algorithm,
    number: int,
    *,
    said: Mapping[str, Standing],
    steps: Mapping[str, int],
) -> dict[str, float]:
    """Return what the weight of each site's update cannot exceed, by the site's own word."""
    cohort = msgspec.structs.replace(plan.cohort, late="refuse")
    plan = msgspec.structs.replace(plan, cohort=cohort)
    return {
        site: weight_limit(
            plan,
            algorithm,
            number,
            clients=1,
            examples=word.examples or None,
            steps=steps.get(site, 0),
        )
        for site, word in said.items()
    }
