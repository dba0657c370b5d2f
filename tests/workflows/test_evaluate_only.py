"""Every client evaluates the seed model, and nothing else happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hansa
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


def test_a_client_whose_rows_leave_every_metric_undefined_has_evaluated_too(tmp_path: Path) -> None:
    """Rows of one class have no area under a curve; there is nothing else that is asked for."""
    learner = hansa.function_learner(
        lambda rng, sample: {"w": np.array([2.0])},
        lambda params, data, ctx: params,
        predict=lambda params, data: (1 / (1 + np.exp(-data[0] * params["w"])), data[1]),
    )
    rows = {"client-0": [0, 1, 1], "client-1": [1, 1, 1], "client-2": [0, 0, 0]}

    def own(name: str) -> dict[str, Any]:
        part = np.array([-0.5, -1.5, 3.0]), np.array(rows[name])
        return {"train": part, "validation": part}

    made = hansa.run(
        learner=learner,
        data=hansa.clients(own, 3),
        workflow="evaluate_only",
        evaluate={"metrics": ["roc_auc"]},
        cohort={"minimum": 3},
        runs=tmp_path,
    )
    (row,) = made.folder.rows()
    assert row["clients"]["accepted"] == 3
    assert row["validation"]["roc_auc"]["by_client"] == {"client-0": 0.5}
    # Of all rows together: every pair of one row of each class.
    own_scores, others = [-1.5, 3.0, -0.5, -1.5, 3.0], [-0.5, -0.5, -1.5, 3.0]
    pairs = [(a > b) + 0.5 * (a == b) for a in own_scores for b in others]
    assert row["validation"]["roc_auc"]["mean"] == pytest.approx(np.mean(pairs))
