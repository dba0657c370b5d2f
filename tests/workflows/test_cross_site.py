"""Every model at every client, against models and data whose metrics follow by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timekeeper import Timekeeper

from hansa.algorithms import fed_avg
from hansa.errors import PlanError
from hansa.plan import build_method, read_plan
from hansa.project import build_project
from hansa.runs import RunFolder
from hansa.runs.record import run_record
from hansa.runs.result import Result
from hansa.simulation import Simulation, continue_run, open_run
from hansa.testing.case import STEPS, VALIDATION, Case
from hansa.web.report import render_report
from hansa.workflows import build_workflow, drive


def no_code(name: str) -> Any:
    raise AssertionError(name)


def simulated(folder: Path, case: Case) -> RunFolder:
    run, population = open_run(case.project, Simulation(folder), case.population)
    continue_run(run, case.project, population, simulation=Simulation(folder))
    return run


def cross_site(**options: Any) -> Case:
    plan = {"workflow": {"name": "cross_site_evaluation", **options}, "algorithm": "fed_avg"}
    stop = {"metric": "first", "lower_is_better": True}  # so that round 1 is the best
    return Case(plan=plan | {"cohort": {}, "rounds": 2, "stop": stop})


def test_every_model_is_measured_at_every_client(tmp_path: Path) -> None:
    """Goal: the whole matrix.  Method: client k makes w/2 + s_k r of w, and measures w[0] + s_k[0].

    A client's own model is what it makes of the last global one in a round of its own.
    """
    case = cross_site(own_models=True)
    run = simulated(tmp_path, case)
    found = run_record(run)["cross_site"]
    assert found["models"] == ["global, last", "global, best", *sorted(STEPS)]
    assert found["clients"] == sorted(VALIDATION)  # client-3 has nothing to evaluate on
    last = dict(run.load(run.commits()[-1])[0].items())["w"]
    best = dict(run.load(run.commits()[1])[0].items())["w"]
    firsts = [float(last[0]), float(best[0])]
    for number, client in enumerate(sorted(STEPS), start=5):
        firsts.append(float(last[0]) / 2 + STEPS[client][0] * number)
    expected = [[first + STEPS[c][0] for c in sorted(VALIDATION)] for first in firsts]
    assert np.allclose(found["metrics"]["first"], expected, rtol=1e-6)
    ended = "all 2 rounds are done; 7 models were evaluated at 5 clients"
    assert run.log.last("ended")["reason"] == ended


def test_the_global_model_is_what_the_training_made(tmp_path: Path) -> None:
    plain = Case(plan={"algorithm": "fed_avg", "cohort": {}, "rounds": 2})
    trained = simulated(tmp_path / "plain", plain)
    crossed = simulated(tmp_path / "crossed", cross_site(own_models=True))
    assert crossed.commits()[-1]["model"] == trained.commits()[-1]["model"]
    assert [row["round"] for row in run_record(crossed)["rounds"]] == [1, 2]


def test_clients_own_models_stay_where_they_are_by_default(tmp_path: Path) -> None:
    case = cross_site()
    found = run_record(simulated(tmp_path, case))["cross_site"]
    assert found["models"] == ["global, last", "global, best"]
    assert {number for _, number in case.asked} == {1, 2}  # nobody trains once more


def test_a_client_that_does_not_give_its_model_is_told_and_the_others_are_evaluated(
    tmp_path: Path,
) -> None:
    case = cross_site(own_models=True)
    case.faults["client-1", 6] = "raise"
    record = run_record(simulated(tmp_path, case))
    found = record["cross_site"]
    assert found["metrics"]["first"][3] == [None] * 4
    assert all(None not in row for i, row in enumerate(found["metrics"]["first"]) if i != 3)
    assert [(p["round"], p["client"], p["kind"]) for p in record["problems"]] == [
        (6, "client-1", "failed")
    ]


def test_the_matrix_is_on_the_page_and_in_the_result(tmp_path: Path) -> None:
    run = simulated(tmp_path, cross_site(own_models=True))
    table = Result(run).cross_site
    assert [row["model"] for row in table][:3] == ["global, last", "global, best", "client-0"]
    assert table.columns() == ["model", *sorted(VALIDATION)]
    page = render_report(run_record(run))
    assert "Whose model works on whose data?" in page
    plain = Case(plan={"algorithm": "fed_avg"})
    assert "Whose model" not in render_report(run_record(simulated(tmp_path / "plain", plain)))
    assert Result(simulated(tmp_path / "more", Case())).cross_site == []


def test_who_is_away_is_left_out_and_told() -> None:
    names = ["a", "b", "c"]
    federation = Timekeeper(dict.fromkeys(names, 1.0), dict.fromkeys(names, 1))
    federation.away = {("b", 2), ("c", 5)}
    workflow = {"name": "cross_site_evaluation", "own_models": True}
    plan = read_plan({"rounds": 1, "workflow": workflow, "stop": {"metric": "first"}}).plan
    made = build_workflow(plan, build_method(plan, no_code), no_code)
    drive(made.run(federation, plan, fed_avg()))
    rows = [c.row["cross_site"] for c in federation.commits[1:]]
    assert [row["model"] for row in rows] == ["global, last", *names]
    values = [row["metrics"].get("first", {}) for row in rows]
    assert values[0] == {"a": 1.0, "c": 1.0}
    assert values[1:3] == [dict.fromkeys(names, 2.0)] * 2
    assert values[3] == {}  # its own model is not there, so nobody can measure it
    assert federation.cohorts[1:] == [["a"], ["b"]]
    assert federation.commits[-1].row["clients"]["failed"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"evaluate": {"clients": 0}},
        {"aggregator": "median", "workflow": {"own_models": True}},
        {"cohort": {"late": "discount"}, "workflow": {"own_models": True}},
        {"algorithm": "fed_avg", "aggregator": {"name": "krum", "byzantine": 1},
         "workflow": {"own_models": True}},
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_at_plan_time(change: dict[str, Any]) -> None:
    options = change.pop("workflow", {})
    plan = read_plan({"workflow": {"name": "cross_site_evaluation", **options}, **change}).plan
    with pytest.raises(PlanError, match="Nothing was started") as refused:
        build_workflow(plan, build_method(plan, no_code), no_code)
    assert refused.value.code == "plan-impossible"


def test_metrics_by_name_are_shown_and_not_the_sums_they_are_made_of(tmp_path: Path) -> None:
    plan = {
        "workflow": "cross_site_evaluation",
        "rounds": 1,
        "data": {"set": "digits", "split": {"scheme": "iid", "clients": 3}},
        "evaluate": {"metrics": ["f1", "roc_auc"]},
    }
    project = build_project(read_plan(plan).plan)
    run, population = open_run(project, Simulation(tmp_path))
    continue_run(run, project, population, simulation=Simulation(tmp_path))
    metrics = run_record(run)["cross_site"]["metrics"]
    assert {"f1", "roc_auc"} <= metrics.keys()
    assert not [name for name in metrics if "/" in name]
    assert all(0 < value < 1 for value in metrics["f1"][0])
