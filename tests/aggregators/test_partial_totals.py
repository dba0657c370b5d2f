"""A partial sum from elsewhere: what honest weights cannot come to is not merged.

Oracle: Python's integers, which do not overflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, mean, norm_bounded_mean
from hansa.errors import AggregationError
from hansa.params import Params

SPEC = AggregationSpec(
    {"delta": VectorSpec(4, "float32", 4.0), "buffers": VectorSpec(2, "float64", None)}, 64.0
)
WEIGHTS = {"north": 3.0, "south": 0.5, "west": 41.0}


def partial(*names: str, extreme: bool = False) -> Params:
    chance, acc = np.random.default_rng(5), mean.zero(SPEC)
    for name in names:
        delta = chance.uniform(-4, 4, 4).astype(np.float32)
        buffers = chance.uniform(-1e12, 3e9, 2)
        if extreme:
            delta, buffers = np.float32([4, -4, 4, -4]), np.array([-0.25, 2.0**55])
        vectors = {"delta": delta, "buffers": buffers}
        acc = mean.add(acc, Contribution(name, vectors, WEIGHTS[name]))
    return mean.dump(acc)


def changed(params: Params, name: str, change: Any) -> Params:
    totals = {n: np.array(v) for n, v in params.to_dict().items()}
    totals[name] = change(totals[name])
    return Params.of(totals, metadata=params.metadata)


@pytest.mark.parametrize("extreme", [False, True])
def test_what_was_folded_elsewhere_merges_to_the_same_bytes(extreme: bool) -> None:
    whole = mean.load(SPEC, partial(*WEIGHTS, extreme=extreme))
    assert mean.dump(whole).to_dict()["delta"].dtype == np.int64
    for name in ("delta", "buffers"):
        there = partial(*WEIGHTS, extreme=extreme).to_dict()[name]
        assert np.array_equal(mean.dump(whole).to_dict()[name], there)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("delta", lambda v: v * 0 + 2**62),
        ("delta", lambda v: np.full_like(v, -(2**63))),
        ("buffers", lambda v: np.stack([v[0] * 0 + 2**62, v[1]])),
        ("buffers", lambda v: np.stack([v[0], v[1] * 0 - 1])),
        ("buffers", lambda v: np.stack([v[0], v[1] * 0 + 2**62])),
    ],
    ids=["too large", "too small", "wide too large", "low limb below 0", "low limb too large"],
)
def test_totals_that_the_weights_cannot_come_to_are_refused(name: str, change: Any) -> None:
    with pytest.raises(AggregationError) as caught:
        mean.load(SPEC, changed(partial("north", "south"), name, change))
    assert caught.value.code == "aggregation-bad-partial"
    assert name in caught.value.happened


@pytest.mark.parametrize("limit", [0.1, 0.7, 1.0, 2.5])
@pytest.mark.parametrize("weight_limit", [1.0, 1499.0])
def test_an_update_that_is_all_in_one_value_is_scaled_down_and_merged(
    limit: float, weight_limit: float
) -> None:
    """That value is the norm itself, which three roundings can put a little above the limit."""
    chance, rule = np.random.default_rng(11), norm_bounded_mean(limit)
    spec = AggregationSpec({"delta": VectorSpec(3, "float32", 64.0)}, weight_limit)
    for number in range(200):
        delta = np.zeros(3, np.float32)
        delta[number % 3] = (-1) ** number * chance.uniform(3, 60)
        weights = [weight_limit * chance.uniform(0.5, 0.7), weight_limit * chance.uniform(0.2, 0.3)]
        parts = [
            rule.add(rule.zero(spec), Contribution(f"c{i}", {"delta": delta}, weight))
            for i, weight in enumerate(weights)
        ]
        there, here = (rule.load(spec, rule.dump(part)) for part in parts)
        found = rule.finish(rule.merge(here, there)).vectors["delta"]
        expected = np.clip(delta.astype(np.float64), -limit, limit)
        np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_what_is_clipped_to_a_bound_that_float32_rounds_up_is_merged() -> None:
    spec = AggregationSpec({"delta": VectorSpec(2, "float32", 0.1)}, 7.0)
    delta = np.array([0.1, -0.1], np.float32)
    assert float(delta[0]) > 0.1
    there = mean.add(mean.zero(spec), Contribution("north", {"delta": delta}, 6.75))
    there = mean.load(spec, mean.dump(there))
    assert np.array_equal(mean.finish(there).vectors["delta"], delta)


def test_the_largest_totals_that_are_taken_do_not_overflow_when_they_are_merged() -> None:
    """Half of all weights each, at the bound and 2^-23 beyond it, and a unit for each client."""
    delta = np.full(4, 4.0, np.float32)
    parts = []
    for name, sign in (("north", 1), ("south", 1), ("west", -1)):
        vectors = {"delta": sign * delta, "buffers": np.zeros(2)}
        half = mean.dump(mean.add(mean.zero(SPEC), Contribution(name, vectors, 32.0)))
        most = sign * (2**61 + 2**38 + 1)
        assert (half["delta"] == sign * 2**61).all()
        parts.append(mean.load(SPEC, changed(half, "delta", lambda v, most=most: v * 0 + most)))
        with pytest.raises(AggregationError):
            beyond = most + sign
            mean.load(SPEC, changed(half, "delta", lambda v, most=beyond: v * 0 + most))
    north, south, west = parts
    assert (mean.merge(north, south).totals["delta"].astype(object) == 2**62 + 2**39 + 2).all()
    assert 2**62 + 2**39 + 2 < 2**63
    low = mean.zero(SPEC)
    assert (mean.merge(low, west).totals["delta"].astype(object) == -(2**61 + 2**38 + 1)).all()
