"""The federated mean is the mean of the pooled data, in whatever order clients come."""

from __future__ import annotations

import json
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.metrics import Mean, pooled, summarise, summarise_all

finite = st.floats(allow_nan=False, allow_infinity=False)
means = st.lists(st.builds(Mean, st.floats(-1e9, 1e9), st.floats(0, 1e9)), min_size=1, max_size=8)
pooled_data = st.lists(  # examples by client: integers over 8 are exact in every sum
    st.lists(st.integers(-(2**20), 2**20).map(lambda n: n / 8), min_size=1, max_size=9),
    min_size=1,
    max_size=6,
)


@given(pooled_data)
def test_the_federated_mean_is_the_pooled_mean_to_the_bit(data) -> None:
    federated = pooled([Mean(math.fsum(values), len(values)) for values in data])
    everything = [Fraction(value) for values in data for value in values]
    assert federated.value == float(sum(everything) / len(everything))
    assert federated.weight == len(everything)


@given(st.lists(st.builds(Mean, finite, st.floats(0, 1e300)), min_size=1, max_size=8))
def test_sums_are_rounded_once_from_the_exact_sum(parts) -> None:
    exact = sum(Fraction(m.total) for m in parts)
    largest = Fraction(np.finfo(float).max)
    total = pooled(parts).total
    if abs(exact) <= largest:
        assert total == float(exact)
    else:
        assert abs(total) >= float(largest)
        assert (total > 0) == (exact > 0)


@given(means, st.randoms(use_true_random=False))
def test_no_order_changes_a_bit(parts, random) -> None:
    shuffled = random.sample(parts, len(parts))
    assert pooled(shuffled) == pooled(parts)


def test_floats_that_plain_addition_gets_wrong() -> None:
    parts = [Mean(1e16, 1), Mean(1.0, 1), Mean(-1e16, 1)]
    assert pooled(parts) == Mean(1.0, 3.0)
    assert pooled([Mean(0.1, 0.1)] * 10) == Mean(1.0, 1.0)


def test_a_sum_beyond_the_largest_float_is_infinite_and_no_crash() -> None:
    assert pooled([Mean(1.5e308, 1.0), Mean(1.5e308, 1.0)]).total == math.inf
    assert pooled([Mean(-1.5e308, 1.0), Mean(-1.5e308, 1.0)]).total == -math.inf
    assert summarise({"a": Mean(1.5e308, 1.0), "b": Mean(1.5e308, 1.0)})["mean"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_makes_the_pooled_value_nan_in_any_order(bad: float) -> None:
    parts = [Mean(bad, 3.0), Mean(0.1, 0.1), Mean(0.2, 0.2), Mean(0.3, 0.3)]
    for order in (parts, parts[::-1]):
        total, weight = pooled(order)
        assert math.isnan(total)
        assert weight == float(3 + Fraction(0.1) + Fraction(0.2) + Fraction(0.3))
    assert math.isnan(pooled([Mean(1.0, bad), Mean(1.0, 2.0)]).value)


def test_numpys_own_numbers_are_taken() -> None:
    assert pooled([Mean(np.float32(1.5), np.int64(2)), Mean(0.25, 1)]) == Mean(1.75, 3.0)


def test_a_mean_of_nothing_is_nan() -> None:
    assert math.isnan(Mean(0.0, 0.0).value)
    assert math.isnan(pooled([]).value)
    assert Mean(-3.0, 4.0).value == -0.75


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_quartiles_are_numpys_over_clients_and_ignore_weights(values) -> None:
    by_client = {f"c{i:02}": Mean(v * (i + 1), i + 1) for i, v in enumerate(values)}
    summary = summarise(by_client)
    means = [m.value for m in by_client.values()]
    expected = np.percentile(means, [0, 25, 50, 75, 100], method="linear")
    names = ("min", "q25", "median", "q75", "max")
    np.testing.assert_allclose([summary[n] for n in names], expected, rtol=1e-12, atol=1e-300)


def test_a_summary_by_hand() -> None:
    summary = summarise(
        {"south": Mean(-8.0, 2.0), "north": Mean(3.0, 1.0), "east": Mean(10.0, 5.0)}
    )
    assert summary == {
        "mean": 5 / 8,
        "weight": 8.0,
        "min": -4.0,
        "q25": -1.0,
        "median": 2.0,
        "q75": 2.5,
        "max": 3.0,
        "by_client": {"east": 2.0, "north": 3.0, "south": -4.0},
    }
    assert list(summary["by_client"]) == ["east", "north", "south"]


def test_a_client_without_a_number_is_shown_and_does_not_count_in_the_spread() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarise(
            {"a": Mean(math.nan, 4.0), "b": Mean(2.0, 1.0), "c": Mean(9.0, 3.0), "d": Mean(1, 0)}
        )
        nothing = summarise({"a": Mean(math.inf, 2.0)})
    assert summary["mean"] is None
    assert summary["weight"] == 8.0
    assert (summary["min"], summary["median"], summary["max"]) == (2.0, 2.5, 3.0)
    assert summary["by_client"] == {"a": None, "b": 2.0, "c": 3.0, "d": None}
    assert (nothing["min"], nothing["median"], nothing["by_client"]) == (None, None, {"a": None})


def test_a_summary_is_strict_json_whatever_was_measured() -> None:
    wild = [math.nan, math.inf, -math.inf, 0.0, 1e308, 5e-324]
    for total in wild:
        for weight in wild:
            summary = summarise({"a": Mean(total, weight), "b": Mean(1e308, 1.0)})
            json.dumps(summary, allow_nan=False)


def test_each_metric_is_summarised_over_the_clients_that_have_it() -> None:
    table = summarise_all(
        {
            "b": {"loss": Mean(4.0, 2.0)},
            "a": {"loss": Mean(1.0, 2.0), "accuracy": Mean(1.0, 4.0)},
        }
    )
    assert list(table) == ["accuracy", "loss"]
    assert table["accuracy"]["by_client"] == {"a": 0.25}
    assert table["loss"]["mean"] == 1.25
    assert summarise_all({}) == {}
