"""Semi-synchronous rounds against clients whose speed a test sets."""

from __future__ import annotations

from typing import Any

import pytest
from timekeeper import Timekeeper

from hansa.algorithms import fed_avg
from hansa.errors import PlanError
from hansa.plan import build_method, read_plan
from hansa.workflows import build_workflow, drive

SECONDS = {"north": 0.5, "south": 0.125, "west": 0.25}
EPOCHS = {"north": 10, "south": 8, "west": 2}


def plan_of(rounds: int = 4, **more: Any) -> Any:
    options = more.pop("workflow", {})
    table = {"rounds": rounds, "workflow": {"name": "semi_synchronous", **options}, **more}
    return read_plan(table).plan


def no_code(name: str) -> Any:
    raise AssertionError(name)


def run(federation: Any, plan: Any) -> Any:
    workflow = build_workflow(plan, build_method(plan, no_code), no_code)
    return drive(workflow.run(federation, plan, fed_avg()))


def go_on(federation: Timekeeper) -> None:
    """Let a run that has ended be one that was interrupted after its last round."""
    commit = federation.commits.pop()
    federation.commits.append(commit._replace(progress={**commit.progress, "ended": None}))


def test_the_first_round_is_the_plans_and_the_next_ones_end_together() -> None:
    federation = Timekeeper(SECONDS, EPOCHS)
    assert run(federation, plan_of(3, workflow={"multiple": 2.0})).ended == "all 3 rounds are done"
    together = {"north": 20, "south": 80, "west": 40}
    assert federation.steps == [{}, together, together]
    rows = [commit.row["pace"] for commit in federation.commits]
    assert [row["seconds"] for row in rows] == [None, 10.0, 10.0]
    assert [row["steps"] for row in rows] == federation.steps
    assert rows[0]["step_seconds"] == SECONDS
    assert set(federation.commits[0].row["train"]) == {"loss"}


def test_step_counts_follow_the_last_measurement_and_not_the_first() -> None:
    """MetisFL 4: a re-measurement read the first task ever, so it never adapted."""
    federation = Timekeeper(SECONDS, EPOCHS)
    run(federation, plan_of(2))
    federation.seconds["north"], federation.seconds["west"] = 0.0625, 1.0
    go_on(federation)
    run(federation, plan_of(4))
    # Round 3 still goes by the second round's times; the fourth by its own: 0.625, 1 and 2 s.
    assert federation.steps[2] == {"north": 10, "south": 40, "west": 20}
    assert federation.steps[3] == {"north": 32, "south": 16, "west": 2}


def test_measured_once_means_that_the_first_times_hold() -> None:
    federation = Timekeeper(SECONDS, EPOCHS)
    run(federation, plan_of(2, workflow={"remeasure": False}))
    federation.seconds["west"] = 50.0
    go_on(federation)
    run(federation, plan_of(4, workflow={"remeasure": False}))
    assert federation.steps[1] == federation.steps[2] == federation.steps[3]


def test_budgets_are_those_of_the_round_that_they_are_made_for() -> None:
    """MetisFL 4: they were updated after dispatch; here round r goes by what round r - 1 told."""
    federation = Timekeeper(SECONDS, EPOCHS)
    run(federation, plan_of(1))
    assert federation.steps == [{}]
    assert federation.commits[0].progress["memory"]["speeds"]["south"] == [0.125, 8.0]


def test_a_client_that_was_never_measured_takes_the_plans_steps() -> None:
    federation = Timekeeper(SECONDS, EPOCHS)
    federation.away = {("west", 1)}
    run(federation, plan_of(3))
    assert federation.steps == [
        {},
        {"north": 10, "south": 40},
        {"north": 10, "south": 40, "west": 20},
    ]


def test_the_slowest_is_the_slowest_of_those_who_are_asked() -> None:
    federation = Timekeeper(SECONDS, EPOCHS)
    federation.away = {("north", 2)}
    run(federation, plan_of(3))
    assert federation.steps[1] == {"south": 8, "west": 4}  # one pass of south takes a second
    assert federation.steps[2]["north"] == 10


def test_nobody_makes_more_passes_than_the_plan_allows() -> None:
    federation = Timekeeper({**SECONDS, "liar": 1e9}, {**EPOCHS, "liar": 10**6})
    run(federation, plan_of(2, workflow={"most_epochs": 3.0}))
    assert {n: federation.steps[1][n] for n in EPOCHS} == {"north": 30, "south": 24, "west": 6}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"workflow": {"multiple": 0.0}}, "plan-bad-value"),
        ({"workflow": {"multiple": float("inf")}}, "plan-bad-value"),
        ({"workflow": {"most_epochs": -1.0}}, "plan-bad-value"),
        ({"workflow": {"spread": -0.1}}, "plan-bad-value"),
        ({"workflow": {"lambda": 2.0}}, "plan-unknown-key"),
        ({"workflow": {"remeasure": "never"}}, "plan-wrong-type"),
        ({"algorithm": "fed_sgd"}, "plan-impossible"),
    ],
)
def test_what_cannot_work_is_refused_at_plan_time(change: dict[str, Any], code: str) -> None:
    plan = plan_of(**change)
    with pytest.raises(PlanError) as refused:
        build_workflow(plan, build_method(plan, no_code), no_code)
    assert refused.value.code == code
