"""A partial sum from elsewhere: what honest weights cannot come to is not merged.

Oracle: Python's integers, which do not overflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, mean
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
