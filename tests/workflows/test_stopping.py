"""A run ends for the first reason that holds, and says which."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from hansa.metrics import Asked, Predicted, summarise_all, sums
from hansa.plan.schema import StopPlan
from hansa.workflows.stopping import Progress, advance, watched


def row(number: int, value: float | None = None, metric: str = "accuracy") -> dict:
    measured = {} if value is None else {"test": {metric: {"mean": value}}}
    return {"round": number, **measured}


def follow(values, stop: StopPlan, *, rounds: int = 99) -> Progress:
    """Go on until the run ends; through JSON each time, as a restart does."""
    progress = Progress()
    for number, value in enumerate(values, start=1):
        progress = advance(
            progress, row(number, value, stop.metric), stop, rounds=rounds, minutes=0.0
        )
        progress = Progress(**json.loads(json.dumps(progress._asdict())))
        if progress.ended:
            break
    return progress


def test_a_run_ends_with_its_last_round() -> None:
    progress = follow([0.1, 0.2, 0.3, 0.4], StopPlan(), rounds=3)
    assert progress == Progress(0.3, 3, 0, "all 3 rounds are done")
    assert follow([0.1, 0.2], StopPlan(), rounds=3).ended is None


def test_the_best_round_is_the_first_with_the_best_value() -> None:
    progress = follow([0.5, 0.7, 0.6, 0.7], StopPlan())
    assert (progress.best, progress.best_round, progress.evaluations_since) == (0.7, 2, 2)


def test_a_target_is_reached_from_below_and_by_equality() -> None:
    stop = StopPlan(target=0.8)
    assert follow([0.5, 0.79], stop).ended is None
    assert follow([0.5, 0.8], stop).ended == "accuracy reached 0.8, the target being 0.8"
    assert follow([0.5, 0.91], stop).ended == "accuracy reached 0.91, the target being 0.8"


@pytest.mark.parametrize("metric", ["loss", "val_LOSS", "error_rate", "perplexity", "rmse"])
def test_mistakes_are_better_when_they_are_fewer(metric: str) -> None:
    stop = StopPlan(metric=metric, target=0.5)
    progress = follow([0.9, 0.6, 0.7], stop)
    assert (progress.best, progress.best_round, progress.ended) == (0.6, 2, None)
    assert follow([0.9, 0.5], stop).ended == f"{metric} reached 0.5, the target being 0.5"


def test_the_plan_may_say_the_direction() -> None:
    down = follow([0.9, 0.6], StopPlan(metric="distance", lower_is_better=True))
    up = follow([0.9, 0.6], StopPlan(metric="loss", lower_is_better=False))
    assert (down.best, up.best) == (0.6, 0.9)
    assert follow([0.9], StopPlan(metric="distance", target=0.95, lower_is_better=True)).ended


def test_a_target_at_zero_is_a_target() -> None:
    assert follow([0.1, -0.2], StopPlan(metric="loss", target=0.0)).best_round == 2
    assert follow([-0.1, 0.0], StopPlan(target=0.0)).ended


def test_patience_counts_evaluations_without_a_better_value() -> None:
    stop = StopPlan(patience=3)
    assert follow([0.5, 0.4, 0.5], stop).ended is None
    progress = follow([0.5, 0.4, 0.5, 0.3, 0.9], stop)
    assert (progress.ended, progress.best_round) == (
        "accuracy has not improved in 3 evaluations",
        1,
    )
    assert follow([0.5, 0.4, 0.3, 0.6, 0.5, 0.5], stop).ended is None


def test_rounds_without_evaluation_do_not_try_patience() -> None:
    stop = StopPlan(patience=2)
    assert follow([0.5, None, None, None, 0.4], stop).ended is None
    assert follow([0.5, None, 0.4, None, 0.3], stop).ended is not None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_evaluation_that_is_not_a_number_is_never_the_best_and_tries_patience(bad) -> None:
    progress = Progress()
    stop = StopPlan(metric="loss", target=-1e9, patience=3)
    for number, value in enumerate([bad, 2.0, bad, bad], start=1):
        progress = advance(progress, row(number, value, "loss"), stop, rounds=99, minutes=0)
        assert progress.ended is None
    assert (progress.best, progress.best_round, progress.evaluations_since) == (2.0, 2, 2)
    missing = {"round": 5, "test": {"loss": {"mean": None}}}  # as NaN is kept in JSON
    assert advance(progress, missing, stop, rounds=99, minutes=0).ended is not None


def test_minutes_are_minutes_of_work() -> None:
    stop = StopPlan(minutes=1.5)
    assert advance(Progress(), row(1), stop, rounds=9, minutes=1.49).ended is None
    ended = advance(Progress(), row(1), stop, rounds=9, minutes=1.5).ended
    assert ended == "1.5 minutes of work are over"


def test_a_target_met_in_the_last_round_is_what_is_told() -> None:
    assert "reached" in str(follow([0.2, 0.9], StopPlan(target=0.9), rounds=2).ended)


def test_the_servers_test_part_is_watched_before_the_clients() -> None:
    validation = {"accuracy": {"mean": 0.3}, "loss": {"mean": 1.0}}
    both = {"round": 1, "test": {"accuracy": {"mean": 0.6}}, "validation": validation}
    assert watched(both, "accuracy") == 0.6
    assert watched(both, "loss") == 1.0
    assert watched(both, "f1") is None
    assert watched({"round": 1}, "accuracy") is None
    assert watched({"round": 1, "train": validation}, "accuracy") is None
    assert math.isnan(watched({"test": {"accuracy": {"mean": None}}}, "accuracy") or 0.0)


def test_over_clients_each_counts_once_with_its_latest_value() -> None:
    """MetisFL's cutoff: the mean over learners of what each of them measured last."""
    stop = StopPlan(metric="accuracy", target=0.6, over="clients")
    progress = Progress()
    seen = []
    for number, by_client in enumerate(
        [{"a": 0.2, "b": 0.9}, {"b": 0.5}, {"a": 0.3, "c": 0.94}, {}, {"b": 0.56}], start=1
    ):
        # The pooled mean, and what a server measures, say something else.
        part = {"accuracy": {"mean": 0.99, "by_client": by_client}} if by_client else {}
        row = {"round": number, "validation": part, "test": {"accuracy": {"mean": 0.99}}}
        progress = advance(progress, row, stop, rounds=9, minutes=0.0)
        seen.append(progress.best)
        if progress.ended:
            break
    assert seen == pytest.approx([0.55, 0.55, 0.58, 0.58, 0.6])
    assert progress.ended == "accuracy reached 0.6, the target being 0.6"


def test_a_client_that_measured_no_number_makes_their_mean_none() -> None:
    stop = StopPlan(metric="accuracy", patience=1, over="clients")
    row = {"round": 1, "validation": {"accuracy": {"mean": 0.5, "by_client": {"a": None, "b": 1}}}}
    ended = advance(Progress(), row, stop, rounds=9, minutes=0.0)
    assert ended.best is None and ended.ended is not None


def test_clients_whose_examples_leave_a_metric_undefined_do_not_count_in_its_mean() -> None:
    """Areas by hand, over clients of which some have one class; a diverged one is not hidden."""
    asked, stop = Asked(("roc_auc",)), StopPlan(metric="roc_auc", patience=2, over="clients")
    cases = {
        "a": ([0.9, 0.1, 0.6, 0.2], [1, 0, 0, 1]),  # three pairs of four lie the right way round
        "b": ([0.8, 0.3, 0.95], [1, 0, 0]),  # one pair of two
        "c": ([0.7, 0.4], [1, 1]),  # no pair
    }

    def after(progress: Progress, *clients: str, **other: list[float]) -> Progress:
        given = {c: (other.get(c, cases[c][0]), cases[c][1]) for c in (*clients, *other)}
        reports = {
            c: sums(asked, Predicted(np.array(s), np.array(t))) for c, (s, t) in given.items()
        }
        row = {"round": progress.best_round + 1, "validation": summarise_all(reports, asked)}
        return advance(progress, row, stop, rounds=9, minutes=0.0)

    progress = after(Progress(), *cases)
    assert (progress.best, progress.evaluations_since) == (0.625, 0)
    progress = after(Progress(), "c")
    assert (progress.best, progress.evaluations_since) == (None, 1)
    progress = after(progress, "b")
    assert (progress.best, progress.evaluations_since) == (0.5, 0)
    assert after(progress, "a").best == 0.625
    lost = after(progress, "a", b=[math.nan, 0.3, 0.2])
    assert (lost.best, lost.evaluations_since, lost.ended) == (0.5, 1, None)
    assert after(lost, "a", "c").ended is not None  # "b" has diverged, and nothing else is known
