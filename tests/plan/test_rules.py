"""Each value out of range is refused with its key, and each value at the edge is taken."""

from __future__ import annotations

import math

import pytest

from hansa.errors import PlanError
from hansa.plan import check_plan, read_plan

NUMBERS_BELOW_1 = [0, -1, -(2**40)]
NOT_POSITIVE = [0.0, -0.1, math.nan, math.inf]
NOT_A_SHARE = [1.0, -0.1, math.nan, math.inf]
BAD = {
    "name": ["", "a b", "../up", "-a", "x" * 65, "a\n"],
    "rounds": NUMBERS_BELOW_1,
    "weight_limit": [0.0, -1.0, math.nan, math.inf, 2.0**301, 2.0**-301],
    "bound": [0.0, -1.0, math.nan, math.inf, 1e308, 5e-324],
    "learner.epochs": NUMBERS_BELOW_1,
    "learner.steps": NUMBERS_BELOW_1,
    "learner.batch_size": NUMBERS_BELOW_1,
    "learner.hidden": [[0], [3, -1]],
    "learner.optimizer.lr": NOT_POSITIVE,
    "learner.optimizer.eps": NOT_POSITIVE,
    "learner.optimizer.momentum": NOT_A_SHARE,
    "learner.optimizer.beta1": NOT_A_SHARE,
    "learner.optimizer.beta2": NOT_A_SHARE,
    "learner.optimizer.weight_decay": [-0.1, math.nan, math.inf],
    "learner.schedule.every": NUMBERS_BELOW_1,
    "learner.schedule.gamma": [0.0, -0.5, 1.5, math.nan, math.inf],
    "data.test": NOT_A_SHARE,
    "data.validation": NOT_A_SHARE,
    "data.clients": [*NUMBERS_BELOW_1, [], ["a", "a"], ["Ward"], ["../a"], [""], ["a\n"]],
    "evaluate.roc_bins": [1, 0, -2, 501],
    "cohort.fraction": [0.0, -0.5, 1.1, math.nan],
    "cohort.count": NUMBERS_BELOW_1,
    "cohort.minimum": NUMBERS_BELOW_1,
    "cohort.deadline_s": NOT_POSITIVE,
    "cohort.over": [0.99, 10.5, math.nan, math.inf],
    "cohort.late_discount": [0.0, -0.5, 1.1, math.nan],
    "cohort.late_rounds": [0, 11],
    "evaluate.every": NUMBERS_BELOW_1,
    "evaluate.clients": [-1],
    "stop.target": [math.nan, math.inf, -math.inf],
    "stop.patience": NUMBERS_BELOW_1,
    "stop.minutes": NOT_POSITIVE,
    "keep.every": [-1],
}
EDGE = {
    "name": ["a", "A-1_b", "x" * 64, "ünïcode"],
    "rounds": [1, 2**62],
    "weight_limit": [2.0**300, 2.0**-300],
    "bound": [2.0**300, 2.0**-300],
    "learner.batch_size": [1, "all", 2**62],
    "data.clients": [1, ["site-1"], ["a.b_c", "0"]],
    "learner.hidden": [[], [1]],
    "learner.steps": [1],
    "learner.optimizer.momentum": [0.0, 0.999],
    "learner.optimizer.weight_decay": [0.0, 10.0],
    "learner.schedule.gamma": [1.0, 1e-9],
    "data.test": [0.0, 0.99],
    "cohort.fraction": [1.0, 1e-9],
    "cohort.count": [1],
    "cohort.deadline_s": [0.001, 1e9],
    "cohort.over": [1.0, 10.0],
    "cohort.late": ["refuse", "discount"],
    "cohort.late_discount": [1e-9, 1.0],
    "cohort.late_rounds": [1, 10],
    "evaluate.clients": [0],
    "stop.target": [0.0, -5.0],
    "keep.every": [0],
}


def table_of(dotted: str, value: object) -> dict:
    *path, last = dotted.split(".")
    table: dict = {last: value}
    for key in reversed(path):
        table = {key: table}
    return table


def pairs(values: dict[str, list]) -> list[tuple[str, object]]:
    return [(key, value) for key, many in values.items() for value in many]


@pytest.mark.parametrize(("key", "value"), pairs(BAD))
def test_a_value_out_of_range_is_refused_with_its_key(key: str, value: object) -> None:
    plan = read_plan(table_of(key, value)).plan
    with pytest.raises(PlanError) as caught:
        check_plan(plan)
    assert caught.value.code == "plan-bad-value"
    assert caught.value.happened.startswith(f"The plan's {key} is ")
    assert caught.value.happened.endswith(". Nothing was started.")
    assert caught.value.hint.startswith("It must be ")


@pytest.mark.parametrize(("key", "value"), pairs(EDGE))
def test_a_value_at_the_edge_is_taken(key: str, value: object) -> None:
    check_plan(read_plan(table_of(key, value)).plan)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("round", 0),
        ("epochs", 0),
        ("steps", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", math.nan),
    ],
)
def test_a_change_is_held_to_the_same_rules(key: str, value: float) -> None:
    changes = [{"round": 2}, {"round": 3, key: value}]
    with pytest.raises(PlanError, match=rf"learner\.change\[1\]\.{key} is {value}\."):
        check_plan(read_plan({"learner": {"change": changes}}).plan)


def test_a_minimum_that_no_cohort_can_meet_is_refused() -> None:
    with pytest.raises(PlanError, match=r"cohort\.minimum is 6\.") as caught:
        check_plan(read_plan({"cohort": {"count": 5, "minimum": 6}}).plan)
    assert caught.value.hint == "It must be at most cohort.count."
    check_plan(read_plan({"cohort": {"count": 5, "minimum": 5}}).plan)
    check_plan(read_plan({"cohort": {"minimum": 500}}).plan)


@pytest.mark.parametrize(
    "cohort",
    [
        {"minimum": 2, "where": {"name": ["north"]}},
        {"minimum": 2, "where": {"name": "north"}},
        {"mandatory": ["south"], "where": {"name": ["north", "west"]}},
        {"where": {"name": []}},
    ],
)
def test_a_choice_of_sites_by_name_that_no_round_can_be_made_of_is_refused(cohort: dict) -> None:
    """Such a run would wait for ever."""
    with pytest.raises(PlanError, match=r"cohort\.where is") as caught:
        check_plan(read_plan({"cohort": cohort}).plan)
    assert caught.value.hint.startswith("It must be cohort.minimum names at least")
    check_plan(read_plan({"cohort": {"minimum": 2, "where": {"region": "eu"}}}).plan)
    enough = {"minimum": 2, "mandatory": ["south"], "where": {"name": ["north", "south"]}}
    check_plan(read_plan({"cohort": enough}).plan)


def test_options_that_no_json_holds_are_refused_with_their_key() -> None:
    """NaN came back as null from a run's folder."""
    for table, key in (
        ({"workflow": {"name": math.nan}}, "workflow.name"),
        ({"transforms": ["cast", {"name": "clip", "norms": [1.0, -math.inf]}]}, "transforms.norms"),
    ):
        with pytest.raises(PlanError, match=f"{key} is .*a finite number"):
            check_plan(read_plan(table).plan)
