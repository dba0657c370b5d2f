"""Norms of whole updates are limited before the mean."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.aggregators import (
    AggregationSpec,
    Contribution,
    VectorSpec,
    mean,
    norm_bounded_mean,
)
from hansa.errors import AggregationError

Run = Callable[..., np.ndarray]
ROWS = st.lists(st.lists(st.floats(-64, 64), min_size=3, max_size=3), min_size=1, max_size=8)


@settings(max_examples=80)
@given(rows=ROWS, limit=st.floats(0.01, 200), data=st.data())
def test_it_is_the_mean_of_updates_scaled_to_the_limit(
    aggregate: Run, rows: list[list[float]], limit: float, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 100), min_size=len(rows), max_size=len(rows)))
    total = [0.0, 0.0, 0.0]
    for row, weight in zip(rows, weights, strict=True):
        norm = math.hypot(*row)
        factor = limit / norm if norm > limit else 1
        total = [t + weight * factor * x for t, x in zip(total, row, strict=True)]
    expected = [t / sum(weights) for t in total]
    got = aggregate(norm_bounded_mean(limit), rows, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_updates_within_the_limit_are_averaged_as_the_mean_does(aggregate: Run) -> None:
    rows = [[3.0, -4.0], [0.0, 2.5], [-1.0, 0.25]]
    got = aggregate(norm_bounded_mean(5.0), rows, [1, 2, 5])
    assert got.tolist() == aggregate(mean, rows, [1, 2, 5]).tolist()


def test_the_norm_is_that_of_all_bounded_vectors_together_and_wide_ones_are_left_alone() -> None:
    spec = AggregationSpec(
        {
            "a": VectorSpec(1, "float32", bound=64.0),
            "b": VectorSpec(2, "float64", bound=8.0),
            "statistics": VectorSpec(1, "float64", bound=None),
        },
        weight_limit=16,
    )
    vectors = {
        "a": np.array([-12.0], "float32"),
        "b": np.array([3.0, -4.0]),
        "statistics": np.array([1e6]),
    }
    rule = norm_bounded_mean(6.5)  # the norm is 13
    got = rule.finish(rule.add(rule.zero(spec), Contribution("c", vectors, 7))).vectors
    assert got["a"].tolist() == [-6.0]
    np.testing.assert_allclose(got["b"], [1.5, -2.0], rtol=1e-15)
    assert got["statistics"].tolist() == [1e6]


@pytest.mark.parametrize("limit", [1e-3, 0.5, 1.0, 63.9])
def test_the_worst_round_does_not_overflow(aggregate: Run, limit: float) -> None:
    """Four clients use up the limit of weights, each with its whole norm in one value."""
    got = aggregate(
        norm_bounded_mean(limit), [[-64.0, 0.0]] * 4, [512, 256, 128, 128], weight_limit=1024
    )
    np.testing.assert_allclose(got, [-limit, 0.0], rtol=1e-15)


def test_a_large_update_of_small_weight_is_folded_the_fast_way_without_wrapping(
    aggregate: Run,
) -> None:
    """Its values exceed the limit a thousandfold; only their scaled products are small."""
    got = aggregate(norm_bounded_mean(0.06), [[-64.0], [0.03]], [0.25, 0.25], weight_limit=2.0**11)
    np.testing.assert_allclose(got, [-0.015], rtol=1e-12)


def test_no_client_moves_the_mean_by_more_than_its_share(aggregate: Run) -> None:
    honest = [[0.5, -0.25]] * 9
    calm = aggregate(norm_bounded_mean(1.0), [*honest, [0.5, -0.25]])
    attacked = aggregate(norm_bounded_mean(1.0), [*honest, [-64.0, 64.0]])
    assert np.linalg.norm(attacked - calm) <= 2.0 / 10


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_no_positive_number_is_refused(limit: float) -> None:
    with pytest.raises(AggregationError, match="norm_limit") as caught:
        norm_bounded_mean(limit)
    assert caught.value.code == "aggregation-bad-setting"
