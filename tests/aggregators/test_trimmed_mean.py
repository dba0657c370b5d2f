"""The trimmed mean against its definition in exact arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.aggregators import mean, median, trimmed_mean
from hansa.errors import AggregationError

Run = Callable[..., np.ndarray]


@settings(max_examples=80)
@given(
    rows=st.lists(
        st.lists(st.floats(-64, 64, width=32), min_size=3, max_size=3), min_size=1, max_size=12
    ),
    percent=st.integers(0, 49),
)
def test_it_is_the_mean_of_what_is_left(
    aggregate: Run, rows: list[list[float]], percent: int
) -> None:
    n = len(rows)
    cut = percent * n // 100
    got = aggregate(trimmed_mean(percent / 100), rows, dtype="float32")
    for value, column in zip(got, zip(*rows, strict=True), strict=True):
        left = sorted(map(Fraction, column))[cut : n - cut]
        exact = float(sum(left) / len(left))
        assert value == pytest.approx(exact, rel=2**-23, abs=1e-15)


def test_a_hand_made_round(aggregate: Run) -> None:
    rows = [[-60.0, 1.0], [1.0, 2.0], [2.0, 3.0], [4.5, -64.0], [64.0, 64.0]]
    assert aggregate(trimmed_mean(0.2), rows).tolist() == [2.5, 2.0]


def test_the_fraction_is_taken_as_it_is_written(aggregate: Run) -> None:
    """0.29 * 100 is 28.999999999999996 in float64; the rule must cut 29."""
    rows = [[64.0]] * 29 + [[-1.0]] * 42 + [[-64.0]] * 29
    assert aggregate(trimmed_mean(0.29), rows).tolist() == [-1.0]


def test_trimming_nothing_is_the_uniform_mean(aggregate: Run) -> None:
    rows = [[1.0, -2.0], [4.0, 8.5], [-11.0, 0.25]]
    np.testing.assert_allclose(
        aggregate(trimmed_mean(0), rows, [1, 7, 3]), aggregate(mean, rows), rtol=1e-15
    )


def test_trimming_nearly_half_is_the_median_of_an_odd_number(aggregate: Run) -> None:
    rows = [[1.0, -2.0], [4.0, 8.5], [-11.0, 0.25], [3.0, 3.0], [-6.0, 64.0]]
    assert aggregate(trimmed_mean(0.49), rows).tolist() == aggregate(median, rows).tolist()


@pytest.mark.parametrize("fraction", [-0.1, 0.5, 1.0, float("nan")])
def test_a_fraction_that_leaves_nothing_is_refused(fraction: float) -> None:
    with pytest.raises(AggregationError, match="fraction") as caught:
        trimmed_mean(fraction)
    assert caught.value.code == "aggregation-bad-setting"
