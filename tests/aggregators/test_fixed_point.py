"""The integers behind a mean, against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hansa.aggregators import fixed_point

FINITE = st.floats(-64, 64, width=32)


@pytest.mark.parametrize("exponent", [-300, -1, 0, 1, 20, 300])
def test_ceil_log2_is_exact_at_and_beside_powers_of_two(exponent: int) -> None:
    power = 2.0**exponent
    assert fixed_point.ceil_log2(power) == exponent
    assert fixed_point.ceil_log2(np.nextafter(power, np.inf)) == exponent + 1
    assert fixed_point.ceil_log2(np.nextafter(power, 0)) == exponent


def test_the_design_s_example_has_36_bits_below_the_point() -> None:
    assert fixed_point.point(bound=2.0**6, weight_limit=2.0**20) == 36


@given(bound=st.floats(2.0**-300, 2.0**300), limit=st.floats(2.0**-300, 2.0**300))
def test_the_point_is_the_lowest_that_cannot_overflow(bound: float, limit: float) -> None:
    largest = Fraction(bound) * Fraction(limit) * Fraction(2) ** fixed_point.point(bound, limit)
    assert 2**60 < largest <= 2**62


@given(x=st.lists(FINITE, min_size=1, max_size=9), weight=st.floats(1e-3, 1e3))
def test_fold_rounds_each_product_to_the_nearest_integer(x: list[float], weight: float) -> None:
    scale = weight * 2.0**30
    acc = np.full(len(x), -7, np.int64)
    fixed_point.fold(acc, np.float32(x), scale, largest=64 * scale)
    # round() of a float is exact and ties to even; the product is one rounded float64.
    assert acc.tolist() == [round(value * scale) - 7 for value in x]


@settings(max_examples=200)
@given(
    x=st.lists(st.floats(-(2.0**50), 2.0**50), min_size=1, max_size=9),
    start=st.integers(-(2**60), 2**60),
)
def test_both_ways_of_rounding_give_the_same_integers(x: list[float], start: int) -> None:
    fast, slow = np.full(len(x), start), np.full(len(x), start)
    fixed_point.fold(fast, np.array(x), 1.0, largest=2.0**50)
    fixed_point.fold(slow, np.array(x), 1.0, largest=2.0**62)
    assert fast.tolist() == slow.tolist()


@pytest.mark.parametrize("value", [0.5, 1.5, 2.5, -0.5, -1.5, 2.0**50 - 0.5, 0.5 - 2.0**-54, -0.0])
@pytest.mark.parametrize("largest", [2.0**50, 2.0**62])
def test_ties_go_to_even_both_ways(value: float, largest: float) -> None:
    acc = np.zeros(1, np.int64)
    fixed_point.fold(acc, np.array([value]), 1.0, largest=largest)
    assert acc[0] == round(value)


WIDE = st.floats(-(2.0**40), 2.0**40) | st.floats(-1, 1) | st.floats(-1e-9, 1e-9)


@given(terms=st.lists(st.tuples(WIDE, st.floats(2.0**-20, 2.0**20)), min_size=1, max_size=30))
def test_a_wide_sum_is_exact_but_for_one_rounding_of_each_product(
    terms: list[tuple[float, float]],
) -> None:
    acc = np.zeros((2, 1), np.int64)
    for x, weight in terms:
        fixed_point.fold_wide(acc, np.array([x]), weight)
    high, low = acc[:, 0].tolist()
    assert 0 <= low < 2**62
    error = abs(high + Fraction(low, 2**62) - sum(Fraction(x * w) for x, w in terms))
    assert error <= Fraction(len(terms), 2**63)


@given(terms=st.lists(WIDE, min_size=2, max_size=12), cut=st.integers(0, 12))
def test_wide_sums_are_one_pair_of_integers_whatever_the_grouping(
    terms: list[float], cut: int
) -> None:
    def total(values: list[float]) -> np.ndarray:
        acc = np.zeros((2, 1), np.int64)
        for value in values:
            fixed_point.fold_wide(acc, np.array([value]), 1.0)
        return acc

    merged = total(terms[cut:][::-1])
    fixed_point.add(merged, total(terms[:cut]))
    assert merged.tolist() == total(terms).tolist()


@given(high=st.integers(-(2**60), 2**60), low=st.integers(0, 2**62 - 1), weight=st.integers(1, 999))
@example(high=-1, low=2**62 - 12345, weight=7)
@example(high=0, low=12345, weight=7)
def test_a_wide_mean_is_right_to_float64(high: int, low: int, weight: int) -> None:
    mean = fixed_point.wide_mean(np.array([[high], [low]]), Fraction(weight), dtype="float64")
    exact = (high + Fraction(low, 2**62)) / weight
    assert abs(Fraction(float(mean[0])) - exact) <= abs(exact) * Fraction(3, 2**53)


@given(total=st.integers(-(2**62), 2**62), weight=st.fractions(1, 1000), k=st.integers(-90, 90))
def test_a_mean_is_right_to_float64(total: int, weight: Fraction, k: int) -> None:
    mean = fixed_point.mean(np.array([total]), weight, k=k, dtype="float64")
    exact = total / (weight * Fraction(2) ** k)
    assert abs(Fraction(float(mean[0])) - exact) <= abs(exact) * Fraction(3, 2**53)
