"""What happens between MetisFL's controller, learners and driver and must not happen here.

The programs themselves are in tests/compat; see docs/explain/defects.md for the list.
"""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import numpy as np
import pytest
from league import D, League

from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, mean
from hansa.aggregators.latest import Latest
from hansa.compat.metisfl import (
    ControllerConfig,
    DriverSession,
    Learner,
    ModelStoreConfig,
    ServerParams,
    TerminationSignals,
    iid_partition,
    present,
)
from hansa.compat.metisfl.plan_text import Wanted, plan_text
from hansa.compat.metisfl.present import Settings, functions
from hansa.errors import LearnerError
from hansa.learners.function import TrainContext
from hansa.plan import read_plan
from hansa.seeds import Key

SPEC = AggregationSpec({"x": VectorSpec(3, "float32", 64.0)}, 1024.0)


def folded(*updates: tuple[str, Any, float]) -> np.ndarray:
    acc = mean.zero(SPEC)
    for client, x, weight in updates:
        acc = mean.add(acc, Contribution(client, {"x": np.float32(x)}, weight))
    return mean.finish(acc).vectors["x"]


class Silent(Learner):
    """Says nothing of its data; keeps what it is asked with."""

    def __init__(self, metrics: Any = None) -> None:
        self.metrics = metrics or {}
        self.config: dict[str, Any] = {}

    def get_weights(self) -> list[Any]:
        return [np.float32([1.0, -2.0])]

    def set_weights(self, parameters: list[Any]) -> None: ...

    def train(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        self.config = config
        return parameters, self.metrics

    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> dict[str, Any]:
        return {}


def trained(
    monkeypatch: pytest.MonkeyPatch, learner: Learner, **settings: Any
) -> tuple[list[np.ndarray], TrainContext]:
    monkeypatch.setattr(present._Here, "learner", learner)
    said = Settings(**{"scaling": "NumTrainingExamples", **settings})
    data, _, train, _ = functions(msgspec.json.encode(said).decode())
    ctx = TrainContext("a", 1, 1, None, 32, 0.1, {}, Key.root(0).generator())
    arrays, _ = train({"0": np.float32([1.0, -2.0])}, data("a")["train"], ctx)
    return arrays, ctx


def test_the_first_update_of_a_fold_is_read_to_its_first_byte() -> None:
    """1: a buffer was emptied before it was read; byte 0 of every tensor became 0."""
    first = np.frombuffer(bytes([0x5B, 0x91, 0x2E, 0xC0] * 3), np.float32)
    assert first[0].tobytes()[0] == 0x5B
    assert folded(("a", first, 7.0)).tobytes() == first.tobytes()


def test_the_first_model_is_not_scaled_by_its_weight() -> None:
    """3: the first community model of a rolling rule was p * m."""
    assert folded(("a", [1.5, -4.0, 0.25], 0.3)).tolist() == [1.5, -4.0, 0.25]


def rolled(*commits: tuple[str, Any, float]) -> list[np.ndarray]:
    """Return the model after each commit of a learner, by FedRec's rolling sum."""
    kept, models = dict[tuple[str, int], Any](), []
    latest = Latest(lambda client, number: kept[client, number])
    for number, (client, value, weight) in enumerate(commits):
        kept[client, number] = {"x": np.asarray(value, np.float32)}
        latest.replace(Contribution(client, kept[client, number], weight), number)
        models.append(latest.mean().vectors["x"])
    return models


def test_a_rolling_sum_folds_the_learner_that_has_committed() -> None:
    """2: of all learners the first was folded, again and again; a, b, a, b, b stayed at 1.0."""
    commits = [(name, [{"a": 1.0, "b": 3.0}[name]], 50.0) for name in "ababb"]
    assert [model.tolist() for model in rolled(*commits)] == [[1.0], [2.0], [2.0], [2.0], [2.0]]


def test_what_is_replaced_is_subtracted_with_the_weight_of_its_time() -> None:
    """2: an old model was taken out with the weight of today, and the sum drifted for ever."""
    commits = [("a", [0.1, -7.0], w) for w in (3.0, 0.7, 19.0)] + [("b", [2.5, 0.3], 1.0)]
    commits += [("a", [-0.4, 1.1], float(w)) for w in range(1, 200)] + [("a", [1.5, -4.0], 3.0)]
    assert np.array_equal(rolled(*commits)[-1], rolled(commits[3], commits[-1])[-1])
    assert np.allclose(rolled(*commits)[-1], [(3 * 1.5 + 2.5) / 4, (3 * -4.0 + 0.3) / 4])


def test_a_rolling_sum_reads_its_first_model_to_the_first_byte_and_unscaled() -> None:
    """1 and 3: byte 0 became 0; and the first community model was p * m."""
    first = np.frombuffer(bytes([0x5B, 0x91, 0x2E, 0xC0] * 3), np.float32)
    assert rolled(("a", first, 0.3))[0].tobytes() == first.tobytes()


def test_a_learner_that_commits_again_is_in_the_sum_once() -> None:
    """5: blocks that were never cleared counted learners twice."""
    models = rolled(("a", [4.0], 1.0), ("b", [8.0], 1.0), ("a", [4.0], 1.0), ("a", [4.0], 1.0))
    assert [model.tolist() for model in models[1:]] == [[6.0]] * 3


def test_blocks_of_a_stride_count_no_learner_twice(league: League) -> None:
    """5: FedStride never cleared its block; here there is none, and the mean is one fold."""
    config = ControllerConfig(aggregation_rule="FedStride", stride_length=1)
    wanted = Wanted(config, ModelStoreConfig(), TerminationSignals(1), 3)
    assert read_plan(tomllib.loads(plan_text(wanted))).plan.aggregator == "mean"
    run = league.begin()
    for name in D:
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"
    weights = [e["client"] for e in league.server.events(run, "result") if e["phase"] == "train"]
    assert sorted(weights) == sorted(D)


def test_sessions_share_no_state() -> None:
    """8: class-level state that was changed was everybody's."""
    where, signals = ServerParams("localhost", 1), TerminationSignals(1)
    one = DriverSession(where, [where], signals)
    one.train_params["epochs"] = 9
    one.learners.append(where)
    other = DriverSession(where, [where], signals)
    assert other.train_params == {} and len(other.learners) == 1


def test_the_configuration_reaches_the_learner_in_snake_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """9: parameters arrived as batchSize, and nothing could set them."""
    learner = Silent({"num_training_examples": 4})
    trained(monkeypatch, learner, params={"batch_size": 16, "epochs": 2})
    assert learner.config == {"batch_size": 16, "epochs": 2}


def test_a_learner_that_does_not_say_its_examples_is_refused_and_not_weighed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """8, 9: the tutorial's train says no number of examples; every learner weighed 1."""
    with pytest.raises(LearnerError, match="num_training_examples"):
        trained(monkeypatch, Silent())
    learner = Silent()
    learner.x_train = np.zeros((30, 2))  # type: ignore[attr-defined]
    assert trained(monkeypatch, learner)[1].weight == 30.0


def test_arrays_come_back_in_the_dtype_that_they_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.6: every tensor became float64, names and dtypes were lost."""
    arrays, _ = trained(monkeypatch, Silent({"num_training_examples": 4}))
    assert arrays[0].dtype == np.float32


def test_a_partition_is_shuffled_by_its_seed() -> None:
    """9: iid_partition cut the set as it lay, and its seed did nothing."""
    y = np.repeat([0, 1, 2], 100)
    parts = [iid_partition(y, y, 3, seed=seed)[1] for seed in (1, 2)]
    assert all(len(set(part)) == 3 for part in parts[0])
    assert not np.array_equal(parts[0][0], parts[1][0])


def test_a_participation_ratio_is_read() -> None:
    """1.2: it was accepted and never looked at."""
    config = ControllerConfig(participation_ratio=0.5)
    wanted = Wanted(config, ModelStoreConfig(), TerminationSignals(1), 4)
    cohort = read_plan(tomllib.loads(plan_text(wanted))).plan.cohort
    assert (cohort.fraction, cohort.minimum) == (0.5, 1)
