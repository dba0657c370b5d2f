"""`hansa.run` and its helpers from Python: values reach the plan as they are, mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from projects import make_project

import hansa
from hansa.data import Dataset, Dirichlet
from hansa.errors import DataError, PlanError
from hansa.plan import read_plan
from hansa.runs.folder import RunFolder


def plan_of(result: hansa.Result) -> dict[str, Any]:
    return RunFolder(result.folder.path).plan()


@pytest.fixture
def study(home: Path) -> Path:
    return make_project(home / "study", rounds=1)


# What reaches the plan

CLIP = {"name": "clip", "norm": 1.0}


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"transforms": [CLIP]}, "transforms", [CLIP]),
        ({"cohort": {"count": None}}, "cohort.count", None),
        ({"cohort": {"count": np.int64(2)}}, "cohort.count", 2),
        ({"rounds": np.int32(2)}, "rounds", 2),
        ({"lr": np.float32(0.25)}, "learner.optimizer.lr", 0.25),
        ({"learner": {"epochs": 2}}, "learner.epochs", 2),
        ({"learner": {"epochs": 2}, "steps": 3}, "learner.steps", 3),
        ({"data": {"validation": 0.25}}, "data.validation", 0.25),
        ({"algorithm": {"name": "fed_avg_m"}}, "algorithm", {"name": "fed_avg_m"}),
    ],
    ids=str,
)  # fmt: skip
def test_values_of_python_reach_a_projects_plan(study: Path, given, key: str, value) -> None:
    found: Any = plan_of(hansa.run(study, **given))
    for step in key.split("."):
        found = found[step]
    assert found == value


def test_what_a_call_changes_is_marked_and_the_rest_of_the_project_stays(study: Path) -> None:
    result = hansa.run(study, optimizer="adam", cohort={"count": 3}, sets=["cohort.count=4"])
    folder = RunFolder(result.folder.path)
    plan, sources = folder.plan(), folder.plan_sources()
    assert plan["learner"]["optimizer"]["name"] == "adam"
    assert plan["learner"]["optimizer"]["lr"] == 0.5  # the project's own
    assert sources["learner.optimizer.name"] == "hansa.run"
    assert sources["learner.optimizer.lr"] == "plan.toml"
    assert (plan["cohort"]["count"], sources["cohort.count"]) == (4, "--set")


def test_adam_needs_no_learning_rate(home: Path) -> None:
    data = hansa.split("digits", clients=2)
    learner = hansa.numpy_learner()
    result = hansa.run(learner=learner, data=data, rounds=1, optimizer="adam")
    assert plan_of(result)["learner"]["optimizer"] == {
        **plan_of(result)["learner"]["optimizer"], "name": "adam", "lr": 0.1,
    }  # fmt: skip


def test_a_table_with_a_name_or_scheme_replaces_and_another_changes_single_keys() -> None:
    table = {
        "algorithm": {"name": "fed_prox", "mu": 1.0},
        "data": {"set": "digits", "split": {"scheme": "iid", "clients": 3}},
    }
    split = {"scheme": "dirichlet", "alpha": 0.5, "clients": 4}
    changes = {"algorithm": {"name": "scaffold"}, "data": {"split": split}}
    replaced = read_plan(table, changes=changes)
    assert replaced.plan.algorithm == {"name": "scaffold"}
    assert replaced.plan.data.split == Dirichlet(alpha=0.5, clients=4)
    assert replaced.plan.data.set == "digits"
    changed = read_plan(table, changes={"algorithm": {"mu": 2}, "data": {"split": {"clients": 9}}})
    assert changed.plan.algorithm == {"name": "fed_prox", "mu": 2}
    assert changed.plan.data.split.clients == 9
    assert table["algorithm"] == {"name": "fed_prox", "mu": 1.0}  # the caller's own stays


def test_a_name_alone_set_as_optimizer_keeps_the_options() -> None:
    table = {"learner": {"optimizer": {"name": "sgd", "lr": 0.3}}}
    plan = read_plan(table, ["learner.optimizer=adam", "learner.schedule=cosine"]).plan
    assert (plan.learner.optimizer.name, plan.learner.optimizer.lr) == ("adam", 0.3)
    assert plan.learner.schedule.name == "cosine"


# What is refused


def test_objects_do_not_go_with_a_project(study: Path) -> None:
    with pytest.raises(PlanError, match="data together with a project") as error:
        hansa.run(study, data=hansa.split("digits", clients=2))
    assert error.value.code == "plan-impossible"
    with pytest.raises(PlanError, match="learner together with a project"):
        hansa.run(study, learner=hansa.numpy_learner())


def test_tables_do_not_go_without_a_project(home: Path) -> None:
    data = hansa.split("digits", clients=2)
    with pytest.raises(PlanError, match="no project folder and keys of a plan as learner") as error:
        hansa.run(learner={"epochs": 2}, data=data)
    assert error.value.code == "plan-impossible"
    with pytest.raises(PlanError, match="no project folder and no learner"):
        hansa.run(data=data)
    with pytest.raises(PlanError, match="no project folder and no data"):
        hansa.run(learner=hansa.numpy_learner())


@pytest.mark.parametrize(
    ("optimizer", "code"),
    [
        ({"chain": ["lbfgs"]}, "plan-unknown-name"),
        ({"name": "adam", "nesterov": True}, "plan-unknown-key"),
        ({"name": 3}, "plan-wrong-type"),
    ],
)
def test_an_optimizer_that_the_learner_lacks_is_refused_before_any_client_fails(
    home: Path, optimizer: Any, code: str
) -> None:
    with pytest.raises(PlanError) as error:
        hansa.run(
            learner=hansa.numpy_learner(), data=hansa.split("digits", clients=2),
            optimizer=optimizer,
        )  # fmt: skip
    assert error.value.code == code
    assert not (home / "runs").exists()


@pytest.mark.parametrize("test", [1, 1.0, -0.1, True, "0.2", float("nan"), np.ones(3)], ids=str)
def test_a_share_that_is_none_is_refused(test: Any) -> None:
    with pytest.raises(DataError, match=r"test=.* is not a share") as error:
        hansa.split("digits", test=test, clients=2)
    assert error.value.code == "data-option"
    with pytest.raises(DataError, match="validation="):
        hansa.split("digits", validation=test, clients=2)
    with pytest.raises(DataError, match="validation="):
        hansa.clients(lambda client: None, 2, validation=test)


def test_shares_of_numpy_none_and_data_of_ones_own_are_taken() -> None:
    assert hansa.split("digits", test=np.float32(0.25), clients=2).test.examples == 449
    assert hansa.split("digits", test=None, clients=2).test is None
    assert hansa.split("digits", test=0, clients=2).test is None
    own = Dataset.of(np.zeros((2, 64), np.float32), np.array([0, 9]))
    assert hansa.split("digits", test=own, clients=2).test is own


# Clients with data of their own


def rows(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = np.stack([labels == 0, labels == 1, labels == 2], axis=1).astype(np.float32)
    return x, labels


def test_clients_that_lack_the_top_classes_number_the_others_as_all_do(home: Path) -> None:
    own = {"client-0": [0, 1, 2, 2], "client-1": [0, 1, 1, 0], "client-2": [0, 0, 0, 0]}
    result = hansa.run(
        learner=hansa.numpy_learner(),
        data=hansa.clients(
            lambda client: rows(np.array(own[client])), 3, validation=0, test=rows(np.arange(3))
        ),
        rounds=20,
        lr=2.0,
    )
    assert result.metrics[-1]["test_accuracy"] == 1.0
    assert result.metrics[-1]["accepted"] == 3
    assert result.params["layer0.weight"].shape == (3, 3)


@pytest.mark.parametrize(
    "labels",
    [np.array(["cat", "dog"]), np.array(["cat", "dog"], object), np.array([-1, 1]),
     np.array([100_000, 7]), np.array([1j, 2])],
    ids=str,
)  # fmt: skip
def test_labels_that_each_client_would_number_apart_are_refused(labels: np.ndarray) -> None:
    population = hansa.clients(lambda client: (np.zeros((2, 3)), labels), 2)
    with pytest.raises(DataError, match=r"hansa\.Dataset\.of\(x, y, classes=\.\.\.\)") as error:
        population.data("client-1")
    assert error.value.code == "data-labels"


def test_targets_of_regression_flags_and_datasets_are_taken() -> None:
    x = np.zeros((2, 3))
    for y in (np.array([-1.5, 2.0]), np.array([True, False]), np.array([3, 0], np.uint8)):
        train, _ = hansa.clients(lambda client, y=y: (x, y), 2, validation=0).data("client-0")
        assert train.y.tolist() == y.tolist()
    named = Dataset.of(x, np.array([2, 0]), classes=("a", "b", "c"))
    assert hansa.clients(lambda client: named, 2, validation=0).data("client-1").train.classes


def test_validation_arrays_of_ones_own_become_a_dataset_as_training_arrays_do() -> None:
    part = rows(np.array([0, 1, 2]))
    data = hansa.clients(lambda client: {"train": part, "validation": part}, 2).data("client-0")
    assert data.validation.y.tolist() == [0, 1, 2]
