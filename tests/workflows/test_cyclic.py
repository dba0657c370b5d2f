"""The model goes from client to client; every final model by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from timekeeper import Timekeeper

from hansa.algorithms import Algorithm, Vectors, fed_avg
from hansa.errors import PlanError, RunError
from hansa.limits import CYCLE_CLIENTS_MAX
from hansa.plan import build_method, read_plan
from hansa.simulation import Simulation, continue_run, open_run
from hansa.testing.case import STEPS, Case
from hansa.workflows import build_workflow, drive
from hansa.workflows.cyclic import hands_on

NAMES = ["a", "b", "c"]


def plan_of(**table: Any) -> Any:
    options = table.pop("workflow", {})
    return read_plan({"seed": 3, "workflow": {"name": "cyclic", **options}, **table}).plan


def no_code(name: str) -> Any:
    raise AssertionError(name)


def run(federation: Any, plan: Any) -> Any:
    workflow = build_workflow(plan, build_method(plan, no_code), no_code)
    return drive(workflow.run(federation, plan, fed_avg()))


def clients() -> Timekeeper:
    return Timekeeper(dict.fromkeys(NAMES, 1.0), dict.fromkeys(NAMES, 1))


def turns(federation: Timekeeper) -> list[str | None]:
    return [commit.row["turn"]["client"] for commit in federation.commits]


def test_each_clients_result_is_the_next_ones_model(tmp_path: Any) -> None:
    """Goal: the order and the chain.  Method: x <- x / 2 + s_k * round, which does not commute."""
    case = Case(plan={"workflow": "cyclic", "algorithm": "fed_avg", "rounds": 4, "cohort": {}})
    folder, population = open_run(case.project, Simulation(tmp_path), case.population)
    continue_run(folder, case.project, population, simulation=Simulation(tmp_path))
    x = np.array([0.5, -1.25, 2.0])
    for number, client in enumerate(sorted(STEPS)[:4], start=1):
        x = x / 2 + np.array(STEPS[client]) * number
    model, _ = folder.load(folder.commits()[-1])
    found = dict(model.items())
    assert np.allclose(found["w"], x, rtol=1e-6)
    assert found["n"] == 4 + 3 + 1 + 7 + 2  # each adds its examples to the counter
    assert [name for name, _ in case.asked] == sorted(STEPS)[:4]


def test_a_cycle_is_a_turn_of_each_and_then_the_next_cycle_begins() -> None:
    federation = clients()
    assert run(federation, plan_of(rounds=7)).ended == "all 7 rounds are done"
    assert turns(federation) == ["a", "b", "c", "a", "b", "c", "a"]
    assert [c.row["turn"]["cycle"] for c in federation.commits] == [1, 1, 1, 2, 2, 2, 3]
    assert federation.cohorts == [[name] for name in turns(federation)]


def test_a_random_order_is_another_in_each_cycle_and_the_same_for_a_seed() -> None:
    orders = []
    for _ in range(2):
        federation = clients()
        run(federation, plan_of(rounds=30, workflow={"order": "random"}))
        orders.append(turns(federation))
    assert orders[0] == orders[1]
    cycles = [tuple(orders[0][i : i + 3]) for i in range(0, 30, 3)]
    assert all(sorted(cycle) == NAMES for cycle in cycles) and len(set(cycles)) > 2


def test_the_last_turn_of_the_last_cycle_is_evaluated(tmp_path: Any) -> None:
    """Three turns of thirty rounds, evaluated every tenth: the third is the last."""
    plan = {"rounds": 30, "workflow": {"name": "cyclic", "cycles": 1}, "algorithm": "fed_avg",
            "cohort": {"count": 3}, "evaluate": {"every": 10}}  # fmt: skip
    case = Case(plan=plan)
    folder, population = open_run(case.project, Simulation(tmp_path), case.population)
    continue_run(folder, case.project, population, simulation=Simulation(tmp_path))
    assert ["validation" in row for row in folder.rows()] == [False, False, True]


def test_a_run_ends_with_its_cycles() -> None:
    federation = clients()
    assert run(federation, plan_of(rounds=99, workflow={"cycles": 2})).ended == (
        "all 2 cycles are done"
    )
    assert len(federation.commits) == 6


def test_a_client_that_fails_is_passed_over_and_the_model_stays() -> None:
    federation = clients()
    federation.failing = {("b", 2)}
    run(federation, plan_of(rounds=3))
    xs = [commit.state.algorithm.x[0] for commit in federation.commits]
    assert xs == [1.0, 1.0, 2.0]
    assert federation.commits[1].row["clients"] == {
        "asked": 1,
        "accepted": 0,
        "failed": 1,
        "refused": 0,
    }


def test_a_silent_client_does_not_abort_a_cycle_that_can_do_without_it() -> None:
    """NVFlare's client-controlled cyclic: any silent client aborts by design."""
    federation = clients()
    federation.away = {("b", 2)}
    run(federation, plan_of(rounds=3))
    assert turns(federation) == ["a", "c", "a"]


def test_a_cycle_whose_last_clients_have_gone_commits_an_empty_turn() -> None:
    federation = clients()
    federation.away = {("b", 2), ("c", 2)}
    run(federation, plan_of(rounds=3))
    assert turns(federation) == ["a", None, "a"]


def test_a_cycle_that_cannot_have_its_minimum_ends_the_run() -> None:
    federation = clients()
    federation.failing = {("b", 2)}
    with pytest.raises(RunError, match="b: b fails") as failed:
        run(federation, plan_of(rounds=9, cohort={"minimum": 3}))
    assert failed.value.code == "run-too-few"
    assert [commit.round for commit in federation.commits] == [1]
    federation = clients()
    federation.failing = {(name, n) for name in NAMES for n in range(9)}
    with pytest.raises(RunError):
        run(federation, plan_of(rounds=9))


def test_a_cohort_of_two_makes_cycles_of_two() -> None:
    federation = clients()
    run(federation, plan_of(rounds=6, cohort={"count": 2}))
    found = turns(federation)
    assert all(found[i] != found[i + 1] for i in (0, 2, 4))
    assert [c.row["turn"]["left"] for c in federation.commits] == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "scaffold"},
        {"algorithm": "fed_adam"},
        {"algorithm": "fed_avg_m"},
        {"algorithm": {"name": "fed_avg", "lr": 0.5}},
        {"aggregator": "median"},
        {"aggregator": {"name": "norm_bounded_mean", "norm_limit": 1.0}},
        {"cohort": {"late": "discount"}},
        {"cohort": {"count": 2, "over": 2.0}},
        {"cohort": {"count": CYCLE_CLIENTS_MAX + 1}},
    ],
)
def test_what_would_not_hand_the_model_on_is_refused_at_plan_time(change: dict[str, Any]) -> None:
    plan = plan_of(**change)
    with pytest.raises(PlanError, match="Nothing was started") as refused:
        build_workflow(plan, build_method(plan, no_code), no_code)
    assert refused.value.code == "plan-impossible"


def test_bad_options_are_refused() -> None:
    for options in ({"order": "reverse"}, {"cycles": 0}):
        plan = plan_of(workflow=options)
        with pytest.raises(PlanError):
            build_workflow(plan, build_method(plan, no_code), no_code)


def test_a_users_algorithm_is_tried_and_not_asked_for_its_name() -> None:
    def adding(state: Vectors, mean: Vectors, share: float) -> Vectors:
        return Vectors(x=state.x + mean.delta)

    def sharing(state: Vectors, mean: Vectors, share: float) -> Vectors:
        return Vectors(x=state.x + share * mean.delta)

    client = fed_avg().client
    assert hands_on(Algorithm("mine", client=client, server=adding))
    assert not hands_on(Algorithm("mine", client=client, server=sharing))


def test_what_each_client_measured_last_counts_through_all_turns() -> None:
    """One of three evaluates a round, so that their mean is of values of different rounds."""
    federation = clients()
    stop = {"metric": "first", "over": "clients", "target": 1e9}
    progress = run(federation, plan_of(rounds=9, evaluate={"clients": 1}, stop=stop))
    latest, means = dict[str, float](), list[float]()
    for number, commit in enumerate(federation.commits, start=1):
        [client] = commit.row["validation"]["first"]["by_client"]
        latest[client] = float(number)  # each turn adds one
        means.append(np.mean(list(latest.values())))
    assert len(latest) == 3 and means[-1] < 9
    assert progress.best == pytest.approx(max(means))
    assert turns(federation) == NAMES * 3
