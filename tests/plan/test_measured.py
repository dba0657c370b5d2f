"""Metrics that a plan asks for: which there are, and from which learners they can be had."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hansa.errors import PlanError
from hansa.metrics import MEASURES, Asked
from hansa.plan import read_plan
from hansa.plan.measured import asked_of, check_measured

CAN = SimpleNamespace(can_predict=True)
CANNOT = SimpleNamespace()


def plan(*names, **evaluate):
    return read_plan({"evaluate": {"metrics": list(names), **evaluate}}).plan


def refusal(names, learner):
    with pytest.raises(PlanError) as caught:
        check_measured(plan(*names), learner)
    return caught.value


def test_an_unknown_metric_is_refused_with_the_nearest_and_the_list() -> None:
    error = refusal(["f1", "roc-auc"], CAN)
    assert error.code == "plan-unknown-name"
    assert "'roc-auc'" in error.happened
    assert "roc_auc" in error.hint
    assert all(name in error.hint for name in MEASURES)


def test_metrics_of_classes_and_of_numbers_do_not_go_together() -> None:
    error = refusal(["r2", "f1_weighted"], CAN)
    assert error.code == "plan-impossible"
    assert "f1_weighted" in error.happened and "r2" in error.happened


def test_a_learner_that_predicts_nothing_is_refused_before_anything_runs() -> None:
    assert refusal(["f1"], CANNOT).code == "plan-impossible"
    assert refusal(["f1"], SimpleNamespace(can_predict=False)).code == "plan-impossible"
    check_measured(plan(), CANNOT)
    check_measured(plan(*[n for n, m in MEASURES.items() if m.of == "classes"]), CAN)


def test_a_plan_says_how_fine_scores_are_counted() -> None:
    assert asked_of(plan("roc_auc", roc_bins=20)) == Asked(("roc_auc",), 20)
    assert asked_of(read_plan({}).plan) == Asked()


def test_a_run_does_not_stop_by_what_a_built_in_model_does_not_measure() -> None:
    learner = SimpleNamespace(can_predict=True, measures=frozenset({"loss", "accuracy"}))

    def check(metric: str, *asked: str, **stop: object) -> None:
        table = {"stop": {"metric": metric, **stop}, "evaluate": {"metrics": list(asked)}}
        check_measured(read_plan(table).plan, learner)

    check("loss", target=0.1)
    check("acuracy")  # nobody waits for it
    check("f1", "f1", patience=3)
    check("f1/2", "f1_per_class", target=0.5)
    check_measured(read_plan({"stop": {"metric": "mine", "target": 1.0}}).plan, CAN)  # may be there
    for stop in ({"target": 0.9}, {"patience": 2}):
        with pytest.raises(PlanError, match="nobody measures") as raised:
            check("acuracy", "f1", **stop)
        assert raised.value.code == "plan-bad-value" and "accuracy, f1, loss" in raised.value.hint
