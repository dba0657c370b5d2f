"""Axes and thinning: what a chart may not get wrong whatever the numbers are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.web.charts.scales import Axis, finite, linear, logarithmic, nice_step, spaced, thin

numbers = st.floats(-1e300, 1e300)
positive = st.floats(1e-290, 1e300)
maybe = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@given(positive, st.integers(2, 12))
def test_a_step_is_one_two_or_five_times_a_power_of_ten(span, count):
    step = nice_step(span, count)
    digit = f"{step:.6e}".split("e")[0]
    assert digit in {"1.000000", "2.000000", "5.000000"}
    assert step * count >= span * (1 - 1e-8)
    # The next smaller nice step would need too many steps.
    assert step / 2.5 * count < span * (1 + 1e-6)


@given(st.lists(numbers, min_size=1, max_size=20))
def test_an_axis_holds_all_values_and_its_ticks_are_within_it(values):
    axis = linear(values)
    slack = (axis.high / 2 - axis.low / 2) * 1e-6
    assert axis.low <= min(values) + slack and max(values) - slack <= axis.high
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in axis.ticks)
    assert 2 <= len(axis.ticks) <= 9
    assert len(set(axis.labels())) == len(axis.ticks)


@given(st.lists(numbers, min_size=2, max_size=20, unique=True))
def test_a_larger_value_lies_further_along(values):
    axis = linear(values)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)


def test_places_are_proportional():
    assert linear([-2.0, 8.0]).at(-2.0) == 0.0
    assert linear([-2.0, 8.0]).ticks == (-2.0, 0.0, 2.0, 4.0, 6.0, 8.0)
    assert linear([-2.0, 8.0]).at(3.0) == pytest.approx(0.5)


def test_rounds_get_whole_ticks_only():
    assert linear([1, 2], integer=True, snap=False).ticks == (1.0, 2.0)
    assert linear([1, 1000], integer=True, snap=False).labels()[-1] == "1,000"


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-12, 1e12])
def test_one_value_stands_in_the_middle_of_its_axis(value):
    axis = linear([value], snap=False)
    assert axis.low < value < axis.high
    assert axis.at(value) == pytest.approx(0.5)


def test_an_axis_without_values_runs_from_zero_to_one():
    assert linear([])[:2] == (0.0, 1.0)


@given(st.lists(st.floats(1e-200, 1e200), min_size=1, max_size=10))
def test_a_logarithmic_axis_holds_all_values(values):
    axis = logarithmic(values)
    assert axis.low <= min(values) * 1.001 and max(values) <= axis.high * 1.001
    assert len(axis.ticks) <= 8


def test_equal_ratios_are_equal_distances_on_a_logarithmic_axis():
    axis = Axis(0.01, 100.0, (), log=True)
    assert [axis.at(value) for value in (0.1, 1.0, 10.0)] == pytest.approx([0.25, 0.5, 0.75])


@given(st.lists(maybe, max_size=400), st.integers(5, 60))
def test_thinning_keeps_the_ends_the_extremes_and_a_gap(values, limit):
    kept = thin(values, limit)
    assert kept == sorted(set(kept)) and len(kept) <= max(limit, 5)
    known = [v for value in values if (v := finite(value)) is not None]
    left = [v for i in kept if (v := finite(values[i])) is not None]
    if values:
        assert kept[0] == 0 and kept[-1] == len(values) - 1
    if known:
        assert (min(left), max(left)) == (min(known), max(known))
    assert (len(known) < len(values)) == (len(left) < len(kept))


@given(st.integers(0, 500), st.integers(2, 50))
def test_spaced_indices_include_both_ends(size, limit):
    kept = spaced(size, limit)
    assert len(kept) == min(size, limit)
    assert size == 0 or (kept[0], kept[-1]) == (0, size - 1)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_what_is_no_number_is_a_gap(value):
    assert (finite(value) is None) == (not math.isfinite(value))
