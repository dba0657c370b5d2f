"""MetisFL's three programs as processes over TLS, to the model; the oracle is FedAvg in NumPy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metisfl_programs import SIZES, Programs, expected, rows

from hansa.dev.loopback import free_port
from hansa.runs import find_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    made = Programs(tmp_path, free_port())
    yield made
    made.close()


def model(programs: Programs) -> np.ndarray:
    place = programs.home / "metisfl" / f"localhost-{programs.port}"
    run = find_run(place / "runs", None)
    params, _ = run.load(run.commits()[-1])
    return next(iter(params.to_dict().values()))


def test_the_three_programs_train_and_end_together(programs: Programs) -> None:
    programs.write()
    programs.start_all()  # learners first: they wait
    programs.start("driver")
    assert programs.wait("driver") == 0, programs.said("driver")
    assert np.allclose(model(programs), expected(3), atol=1e-5)
    assert model(programs).dtype == np.float32
    keys = ["controller", *(f"learner -l {number}" for number in (1, 2, 3))]
    for key in keys:
        assert programs.wait(key) == 0, programs.said(key)
    results = programs.results
    assert results["global_iteration"] == 3
    assert len(results["tasks"]) == 2 * 3 * 3
    assert len(results["train_results"]) == len(results["evaluation_results"]) == 9
    weights = {
        task["learner_id"]: results["train_results"][task["id"]]["metadata"]["weight"]
        for task in results["tasks"]
        if task["id"] in results["train_results"]
    }
    assert weights == {f"learner-{50002 + i}": size for i, size in enumerate(SIZES)}
    assert set(results["model_metadata"]) == {"1", "2", "3"}
    assert results["ended"]["state"] == "finished" and results["problems"] == []
    check_metadata(results)


def check_metadata(results: dict[str, Any]) -> None:
    """Every field that MetisFL names is there, in its order of time."""
    learners = [f"learner-{50002 + i}" for i in range(3)]
    runtime = results["federated_task_runtime_metadata"]
    assert [entry["global_iteration"] for entry in runtime] == [1, 2, 3]
    for entry in runtime:
        assert sorted(entry["assigned_to_learner_id"]) == learners
        assert sorted(entry["completed_by_learner_id"]) == learners
        for kind in ("train_task", "eval_task"):
            names = ("submitted_at", "started_at", "completed_at", "received_at")
            moments = [entry[f"{kind}_{name}"] for name in names]
            assert all(sorted(by) == learners for by in moments)
            for learner in learners:
                order = [by[learner] for by in moments]
                assert order == sorted(order)
                assert entry["started_at"] <= order[0] and order[-1] <= entry["completed_at"]
        for name in ("model_insertion_duration_ms", "model_selection_duration_ms"):
            assert sorted(entry[name]) == learners and min(entry[name].values()) >= 0
        assert entry["model_aggregation_block_size"] == [1, 1, 1]
        assert len(entry["model_aggregation_block_duration_ms"]) == 3
        assert entry["started_at"] <= entry["model_aggregation_started_at"]
        assert entry["model_aggregation_started_at"] <= entry["model_aggregation_completed_at"]
        (tensor,) = entry["model_tensor_quantifiers"]
        assert (tensor["tensor_zeros"], tensor["tensor_non_zeros"]) == (0, 3)
        assert tensor["tensor_size_bytes"] == 12 < entry["model_size_bytes"]
    for learner in learners:
        local = results["learner_local_tasks"][learner]
        assert [task["global_iteration"] for task in local] == [1, 2, 3]
        assert all(task["processing_ms_per_batch"] > 0 for task in local)
        assert all("loss" in task["training"] and "mse" in task["validation"] for task in local)
    last = results["community_model_evaluations"][-1]["evaluations"]
    assert sorted(last) == learners and float(last[learners[0]]["validation"]["mse"]) >= 0
    assert results["model_metadata"]["1"]["model_tensor_quantifiers"]


def test_it_runs_again_with_participants_alike_and_its_own_epochs(programs: Programs) -> None:
    programs.write()
    programs.start_all()
    programs.start("driver")
    assert programs.wait("driver") == 0, programs.said("driver")
    programs.wait("controller")
    for number in (1, 2, 3):
        programs.wait(f"learner -l {number}")
    programs.write(
        config='scaling_factor="NumParticipants"',
        signals="federation_rounds=2",
        more='train_params={"epochs": 1},',
    )
    programs.start_all()
    programs.start("driver")
    assert programs.wait("driver") == 0, programs.said("driver")
    assert np.allclose(model(programs), expected(2, weights=(1, 1, 1), epochs=1), atol=1e-5)


def test_a_learner_killed_in_the_midst_does_not_stall_the_others(programs: Programs) -> None:
    programs.write(
        signals="federation_rounds=100000, execution_cutoff_time_mins=0.15",
        config="participation_ratio=0.67",  # of one client that is lost, a round would wait
    )
    programs.start_all()
    programs.start("driver")
    programs.until_said("driver", "round 2/")
    programs.kill("learner -l 2")
    assert programs.wait("driver") == 0, programs.said("driver")
    assert programs.results["ended"]["state"] == "finished"
    assert programs.results["global_iteration"] > 2


def test_a_killed_controller_goes_on_at_its_next_start(programs: Programs) -> None:
    programs.write(signals="federation_rounds=40")
    programs.start_all()
    programs.start("driver")
    programs.until_said("driver", "round 2/40")
    programs.kill("controller")
    programs.start("controller")
    assert programs.wait("driver") == 0, programs.said("driver")
    assert np.allclose(model(programs), expected(40), atol=1e-4)
    assert programs.results["global_iteration"] == 40


ASYNCHRONOUS = 'scheduler="Asynchronous", aggregation_rule="{rule}", stride_length=2'


def latest(programs: Programs, weights: Sequence[float]) -> np.ndarray:
    """Return the model by the definition of FedRec, from what the run says who came when."""
    models, now = [np.array([0.5, -1.25, 3.0])], dict[str, np.ndarray]()
    weight = {f"learner-{50002 + i}": w for i, w in enumerate(weights)}
    data = {f"learner-{50002 + i}": part for i, part in enumerate(rows())}
    for number, row in enumerate(programs.results["rounds"], start=1):
        for name, stale in row["staleness"].items():
            own, (x, y) = models[number - stale - 1].copy(), data[name]
            for _ in range(3):
                own = own - 0.1 * x.T @ (x @ own - y) / len(y)
            now[name] = own
        chosen = [weight[name] for name in now]
        models.append(np.average(list(now.values()), axis=0, weights=chosen))
    return models[-1]


@pytest.mark.parametrize(
    ("rule", "scaling", "weights"),
    [("FedRec", "NumTrainingExamples", SIZES), ("FedStride", "NumParticipants", (1, 1, 1))],
)
def test_an_asynchronous_controller_uses_every_update_as_it_comes(
    programs: Programs, rule: str, scaling: str, weights: Sequence[float]
) -> None:
    """The three programs, to the weighted mean of the latest models; no learner counts twice."""
    config = ASYNCHRONOUS.format(rule=rule) + f', scaling_factor="{scaling}"'
    programs.write(config=config, signals="federation_rounds=12")
    programs.start_all()
    programs.start("driver")
    assert programs.wait("driver") == 0, programs.said("driver")
    results = programs.results
    assert results["ended"]["state"] == "finished" and results["problems"] == []
    assert results["global_iteration"] == 12
    came = [name for row in results["rounds"] for name in row["staleness"]]
    assert len(came) == 12 and len(set(came)) == 3
    assert np.allclose(model(programs), latest(programs, weights), atol=1e-5)


def test_an_asynchronous_controller_that_is_killed_goes_on_and_counts_all_once(
    programs: Programs,
) -> None:
    programs.write(config=ASYNCHRONOUS.format(rule="FedRec"), signals="federation_rounds=60")
    programs.start_all()
    programs.start("driver")
    for seen in ("round 5/60", "round 30/60"):
        programs.until_said("driver", seen)
        programs.kill("controller")
        programs.start("controller")
    assert programs.wait("driver") == 0, programs.said("driver")
    assert programs.results["global_iteration"] == 60
    assert np.allclose(model(programs), latest(programs, SIZES), atol=1e-4)
    tasks = [task["id"] for task in programs.results["tasks"]]
    assert len(tasks) == len(set(tasks))


def test_asynchronous_learners_do_not_wait_for_one_that_is_killed(programs: Programs) -> None:
    programs.write(config=ASYNCHRONOUS.format(rule="FedAvg"), signals="federation_rounds=40")
    programs.start_all()
    programs.start("driver")
    programs.until_said("driver", "round 3/40")
    programs.kill("learner -l 2")
    assert programs.wait("driver") == 0, programs.said("driver")
    assert programs.results["global_iteration"] == 40


def test_a_learner_of_another_machine_comes_with_an_invitation(programs: Programs) -> None:
    programs.write()
    programs.start("controller")
    programs.until_said("controller", "Controller at")
    here = f"metisfl/localhost-{programs.port}"
    words = ["server", "invite", "learner-50002", "--folder", str(programs.home / here / "server")]
    printed = subprocess.check_output([sys.executable, "-P", "-m", "hansa", *words], text=True)
    elsewhere = programs.folder / "elsewhere"
    programs.start("learner", "-l", "1", home=elsewhere)
    programs.until_said("learner -l 1", "put an invitation into")
    (elsewhere / here / "learner-50002.invite").write_text(printed, encoding="utf-8")
    programs.until_said("learner -l 1", "takes part")
    assert not (elsewhere / "federations").exists()  # it is no admin there


def test_a_wrong_word_is_a_sentence_and_no_traceback(programs: Programs) -> None:
    programs.write(config='aggregation_rule="SecAgg"')
    programs.start("controller")
    assert programs.wait("controller") == 1
    said = programs.said("controller")
    assert "Traceback" not in said and "plan-impossible" in said
    assert not (programs.home / "metisfl").exists()


def test_a_learner_may_import_a_module_of_its_own_while_it_trains(programs: Programs) -> None:
    """A project's module is imported in the same process and must not stand in for the user's."""
    programs.write(signals="federation_rounds=2")
    (programs.folder / "model.py").write_text("LR = 0.1\n", encoding="utf-8")
    text = (programs.folder / "learner.py").read_text(encoding="utf-8")
    text = text.replace("w - 0.1 *", 'w - __import__("model").LR *')
    assert "LR" in text
    (programs.folder / "learner.py").write_text(text, encoding="utf-8")
    programs.start_all()
    programs.start("driver")
    assert programs.wait("driver") == 0, programs.said("driver")
    assert np.allclose(model(programs), expected(2), atol=1e-5)
