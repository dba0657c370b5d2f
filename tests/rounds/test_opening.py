"""What is fixed when a round opens depends on the committed state and the plan alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.aggregators import (
    AggregationSpec,
    Contribution,
    VectorSpec,
    admit,
    fixed_point,
    mean,
)
from hansa.algorithms import ALGORITHMS, Vectors
from hansa.errors import RunError
from hansa.limits import UPDATE_BOUND_FACTOR, UPDATE_BOUND_MIN
from hansa.rounds import BUFFERS, aggregation_spec

AVG, SCAFFOLD = ALGORITHMS["fed_avg"](), ALGORITHMS["scaffold"]()


def opened(x, **options) -> AggregationSpec:
    return aggregation_spec(AVG, Vectors(x=np.asarray(x)), **{"weight_limit": 8.0, **options})


def test_a_round_asks_for_what_the_algorithm_sends() -> None:
    message = Vectors(x=np.float32([1, -2, 3]), c=np.zeros(3, np.float32), buffers=np.zeros(2))
    spec = aggregation_spec(SCAFFOLD, message, weight_limit=70.0)
    assert spec == AggregationSpec(
        {
            "delta": VectorSpec(3, "float32", 2.0**19),
            "dc": VectorSpec(3, "float32", 2.0**19),
            BUFFERS: VectorSpec(2, "float64", None),
        },
        70.0,
    )


def test_a_model_without_buffers_asks_for_none() -> None:
    message = Vectors(x=np.zeros(2), buffers=np.empty(0))
    spec = aggregation_spec(AVG, message, weight_limit=2.0**21)
    assert spec.vectors == {"delta": VectorSpec(2, "float64", 64.0)}


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), max_size=9))
def test_the_bound_is_the_next_power_of_two_that_leaves_the_model_room(values) -> None:
    x = np.array(values, np.float32)
    bound = opened(x, weight_limit=2.0**20).vectors["delta"].bound
    needed = max(UPDATE_BOUND_MIN, *(UPDATE_BOUND_FACTOR * abs(float(v)) for v in x), 0.0)
    assert math.frexp(bound)[0] == 0.5
    assert needed <= bound < 2 * needed
    mean.zero(opened(x))  # a spec that can be summed


@pytest.mark.parametrize(
    ("weight_limit", "bound"),
    [
        (2.0**-300, 2.0**26),
        (1.0, 2.0**26),
        (353.0, 2.0**17),
        (512.0, 2.0**17),
        (513.0, 2.0**16),
        (2.0**20, 64.0),
        (2.0**26, 64.0),
    ],
)
def test_bits_that_weights_leave_free_raise_the_bound(weight_limit: float, bound: float) -> None:
    spec = opened([0.5, -1.0], weight_limit=weight_limit)
    assert spec.vectors["delta"].bound == bound
    assert fixed_point.point(bound, weight_limit) >= min(36, 62 - 6 - math.log2(weight_limit))


def test_a_linear_model_of_unscaled_targets_is_taken_in_its_first_round() -> None:
    """Ridge on a disease score of 25 to 346: from zero to coefficients of hundreds at once."""
    spec = opened(np.zeros(3), weight_limit=353.0)
    delta = np.array([-239.8, 519.8, 152.1])
    admit(Contribution("clinic", {"delta": delta}, 353.0), spec)
    got = mean.finish(mean.add(mean.zero(spec), Contribution("clinic", {"delta": delta}, 353.0)))
    np.testing.assert_allclose(got.vectors["delta"], delta, rtol=1e-13)


@pytest.mark.parametrize(
    ("asked", "bound"),
    [(1.0, 1.0), (3.0, 4.0), (0.3, 0.5), (64.0, 64.0), (math.nextafter(64, 99), 128.0)],
)
def test_the_plans_bound_is_never_rounded_down(asked: float, bound: float) -> None:
    assert opened([1e6, 0.0], bound=asked).vectors["delta"].bound == bound


def test_the_largest_and_smallest_bounds_of_a_plan_can_be_summed() -> None:
    for bound in (2.0**-300, 2.0**300):
        mean.zero(opened([0.0], bound=bound))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e308, -1e200])
@pytest.mark.parametrize("bound", [None, 1.0])
def test_a_model_that_has_diverged_ends_the_run_with_a_sentence(bad, bound) -> None:
    with pytest.raises(RunError, match="diverged") as caught:
        opened([0.5, bad, -1.0], bound=bound)
    assert caught.value.code == "run-diverged"


def test_an_empty_model_is_a_model() -> None:
    assert opened(np.empty(0, np.float32)).vectors["delta"] == VectorSpec(0, "float32", 2.0**23)
