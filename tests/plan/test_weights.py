"""The weights of a round never add up to more than was declared, and not to much less."""

from __future__ import annotations

import pytest

from hansa.limits import USER_WEIGHT_LIMIT, WEIGHT_LIMIT
from hansa.plan import build_method, read_plan, weight_limit


def limit(examples: int | None = 1000, clients: int = 8, **table: object) -> float:
    plan = read_plan(table).plan
    algorithm = build_method(plan, lambda name: None).algorithm
    return weight_limit(plan, algorithm, 1, clients=clients, examples=examples)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, 1000.0),
        ({"weighting": "uniform"}, 8.0),
        ({"algorithm": "scaffold"}, 8.0),
        ({"weighting": "user"}, USER_WEIGHT_LIMIT),
        ({"weight_limit": 77.0, "weighting": "user"}, 77.0),
        ({"weighting": "steps", "learner": {"epochs": 3}}, 3000.0),
        ({"weighting": "steps", "learner": {"steps": 500}}, 4000.0),
    ],
)
def test_it_follows_the_weighting(table: dict, expected: float) -> None:
    assert limit(**table) == expected


def test_steps_that_a_workflow_asks_for_have_room_beside_the_plans() -> None:
    plan = read_plan({"weighting": "steps"}).plan
    algorithm = build_method(plan, lambda name: None).algorithm
    assert weight_limit(plan, algorithm, 1, clients=8, examples=1000, steps=4321) == 5321.0


def test_examples_that_only_clients_know_of_have_a_limit_of_their_own() -> None:
    assert limit(examples=None) == WEIGHT_LIMIT
    assert limit(examples=None, weighting="uniform") == 8.0


@pytest.mark.parametrize("weighting", ["uniform", "examples"])
def test_late_updates_take_part_of_the_weights_of_other_rounds(weighting: str) -> None:
    """Three rounds late at most, at 0.9 each: 1 + 0.9 + 0.81 + 0.729."""
    late = {"late": "discount", "late_discount": 0.9, "late_rounds": 3}
    plain = limit(weighting=weighting)
    assert limit(weighting=weighting, cohort=late) == pytest.approx(3.439 * plain)
    assert limit(weighting=weighting, cohort={**late, "late": "refuse"}) == plain
    assert limit(weight_limit=50.0, cohort=late) == 50.0
