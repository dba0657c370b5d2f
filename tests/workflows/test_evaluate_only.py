"""Every client evaluates the seed model, and nothing else happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.errors import PlanError, RunError
from hansa.plan import read_plan
from hansa.runs.record import run_record
from hansa.simulation import Simulation, continue_run, open_run
from hansa.testing.case import STEPS, VALIDATION, Case


def test_the_seed_model_is_measured_and_stays_as_it_is(tmp_path: Path) -> None:
    case = Case(plan={"workflow": "evaluate_only"})
    run, population = open_run(case.project, Simulation(tmp_path), case.population)
    continue_run(run, case.project, population, simulation=Simulation(tmp_path))
    assert case.asked == []
    first, last = run.commits()
    assert first["model"] == last["model"]
    (row,) = run_record(run)["rounds"]
    expected = {client: 0.5 + STEPS[client][0] for client in sorted(VALIDATION)}
    assert row["validation"]["first"]["by_client"] == pytest.approx(expected)
    assert row["clients"]["accepted"] == 4
    ended = run.log.last("ended")
    assert ended is not None and ended["reason"] == "the seed model was evaluated at 4 clients"


def test_too_few_that_can_evaluate_fail_the_run(tmp_path: Path) -> None:
    case = Case(plan={"workflow": "evaluate_only", "cohort": {"minimum": 5}})
    run, population = open_run(case.project, Simulation(tmp_path), case.population)
    with pytest.raises(RunError) as failed:
        continue_run(run, case.project, population, simulation=Simulation(tmp_path))
    assert failed.value.code == "run-too-few"


def test_one_round_is_announced_whatever_the_plan_says() -> None:
    assert read_plan({"workflow": "evaluate_only", "rounds": 30}).plan.rounds == 1
    assert read_plan({"workflow": {"name": "evaluate_only"}}).plan.rounds == 1
    assert read_plan({"rounds": 30}).plan.rounds == 30


def test_an_evaluation_by_nobody_is_refused() -> None:
    with pytest.raises(PlanError):
        Case(plan={"workflow": "evaluate_only", "evaluate": {"clients": 0}})
