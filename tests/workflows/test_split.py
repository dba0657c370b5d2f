"""Goal: split learning is the joint model trained in one place, and says who makes it impossible.

Method: NumPy on all columns together, with the same start and the same batches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from projects import run_interrupted
from split_projects import MODEL, PLAN, jointly, written

from hansa.errors import HansaError, PlanError, RunError
from hansa.learners.batches import aligned_rows
from hansa.project import open_project
from hansa.runs import RunFolder
from hansa.simulation import Simulation, continue_run, open_run
from hansa.workflows.reports import _metrics

STARTS: dict[Path, dict[str, np.ndarray]] = {}
"""The seed model of each run, which is not kept for good."""


def run(folder: Path, runs: Path, *sets: str, engine: str = "inline") -> RunFolder:
    opened = open_project(folder, sets)
    simulation = Simulation(runs, engine=engine, workers=2, new=True)  # type: ignore[arg-type]
    made, population = open_run(opened, simulation)
    STARTS[made.path] = made.load(made.commits()[-1])[0].copy().to_dict()
    continue_run(made, opened, population, simulation=simulation)
    made.reload()
    return made


def models(made: RunFolder) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    end = made.load(made.commits()[-1])[0].to_dict()
    return STARTS[made.path], end


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_it_is_the_joint_model_trained_in_one_place(tmp_path: Path, engine: str) -> None:
    made = run(written(tmp_path / "p"), tmp_path / "runs", engine=engine)
    start, end = models(made)
    expected, loss = jointly(start)
    assert end.keys() == expected.keys()
    for name, array in expected.items():
        assert not np.allclose(start[name], array, atol=1e-3)
        np.testing.assert_allclose(end[name], array, rtol=1e-9, atol=1e-12)
    last = made.rows()[-1]
    assert last["validation"]["loss"]["mean"] == pytest.approx(loss, rel=1e-9)
    assert last["clients"]["accepted"] == 3 and last["bytes"]["up"] > 0


def test_float32_is_the_same_to_float32s_tolerance(tmp_path: Path) -> None:
    narrow = MODEL.replace(
        "return made", "return {n: np.asarray(a, 'f4') for n, a in made.items()}"
    )
    start, end = models(run(written(tmp_path / "p", narrow), tmp_path / "runs"))
    expected, _ = jointly(start)
    for name, array in expected.items():
        assert end[name].dtype == np.float32
        np.testing.assert_allclose(end[name], array, rtol=2e-5, atol=2e-6)


def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    folder = written(tmp_path / "p")
    whole = run(folder, tmp_path / "whole").commits()[-1]["model"]
    made = run_interrupted(folder, tmp_path / "runs", "ask", call=17)  # between forward and head
    assert made.commits()[-1]["model"] == whole


def test_batches_are_aligned_and_each_epoch_sees_each_row_once() -> None:
    told = {"part": "train", "batch_size": 10, "seed": 5}
    seen = np.concatenate([aligned_rows(told | {"batch": i}, 24) for i in range(12)])
    for epoch in range(5):
        assert sorted(seen[24 * epoch : 24 * (epoch + 1)]) == list(range(24))
    assert aligned_rows(told | {"batch": 0, "part": "validation"}, 8).tolist() == list(range(8))
    assert aligned_rows(told | {"batch": 3, "batch_size": None}, 8).tolist() == list(range(8))


BROKEN = {
    "raises": ("z = np.tanh(x @ params", "z = 1 / 0 or (x @ params", "did not answer backward"),
    "no embedding": ('"embedding": np.tanh', '"z": np.tanh', "answered forward with z"),
    "NaN": ("loss = float(-np", "g = np.nan; p = p * np.nan; loss = float(-np", "not finite"),
    "shape of a gradient": ("back[name.replace", "dz = dz[:3]; back[name.replace", "as [3, 2]"),
    "no gradient": ('{"w": x.T @', '{"u": x.T @', "gradient of client-0/"),
    "other rows": (
        'part["x"]))',
        'part["x"]) - (ctx.client == "client-2"))[: 9 + (ctx.client == HOLDER)]',
        "different numbers of rows",
    ),
    "no owner": ('made["head/b"]', 'made["b"]', "belongs to no client"),
    "a stranger": ('made["head/v"]', 'made["client-7/w"] = made["head/v"]', "client-7"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_trained_ends_the_run_and_says_whose_fault_it_is(
    tmp_path: Path, name: str
) -> None:
    old, new, told = BROKEN[name]
    assert old in MODEL
    folder = written(tmp_path / "p", MODEL.replace(old, new))
    with pytest.raises(RunError) as caught:
        run(folder, tmp_path / "runs", "rounds=1")
    assert told in caught.value.happened


def test_a_gradient_that_the_model_s_type_does_not_hold_is_no_step(tmp_path: Path) -> None:
    """A finite float64 that is infinite as float32 would end in the committed model."""
    code = MODEL.replace("return made", "return {n: np.asarray(a, 'f4') for n, a in made.items()}")
    code = code.replace('{"w": x.T @', '{"w": 1e300 * x.T @')
    with pytest.raises(RunError, match=r"client-0 gave a gradient .* that no float32 holds"):
        run(written(tmp_path / "p", code), tmp_path / "runs", "rounds=1")


def test_a_fact_that_is_no_number_of_ours_ends_no_run(tmp_path: Path) -> None:
    code = MODEL.replace('{"loss": loss,', '{"loss": loss, "large": 10**400,')
    made = run(written(tmp_path / "p", code), tmp_path / "runs", "rounds=1")
    assert made.rows()[0]["train"].keys() == {"loss", "accuracy"}
    told = {"loss": [1.5, 2], "large": [10**400, 1], "x" * 10**5: [1, 1], "odd": [1]}
    found = _metrics(told)
    assert found.keys() == {"loss", "large"} and np.isnan(found["large"].total)


IMPOSSIBLE = [
    'algorithm="scaffold"',
    'aggregator="median"',
    "cohort.fraction=0.5",
    "workflow=split",
]


@pytest.mark.parametrize("change", IMPOSSIBLE)
def test_what_is_no_gradient_of_the_joint_model_is_refused(tmp_path: Path, change: str) -> None:
    plan = PLAN if change != "workflow=split" else PLAN.replace(', labels = "client-1"', "")
    sets = [] if change == "workflow=split" else [change, "cohort.minimum=1"]
    with pytest.raises(PlanError):
        open_project(written(tmp_path / "p", plan=plan), sets)


def test_a_project_of_named_tasks_alone_does_not_train_in_rounds(tmp_path: Path) -> None:
    folder = written(tmp_path / "p")
    with pytest.raises(HansaError, match="named tasks and no train"):
        run(folder, tmp_path / "runs", 'workflow="synchronous"', "rounds=1")
