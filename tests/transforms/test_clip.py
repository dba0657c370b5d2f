"""Clipping is exact, and hides nothing from the server."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import PlanError
from hansa.seeds import Key
from hansa.transforms import clip

KEY = Key.root(0)
numbers = st.floats(-1e6, 1e6, width=32)


def exact_norm(vectors) -> float:
    return math.hypot(*(float(value) for vector in vectors.values() for value in vector))


@given(
    st.lists(numbers, min_size=1, max_size=20),
    st.lists(numbers, max_size=5),
    st.floats(1e-3, 1e4),
)
def test_the_norm_over_all_vectors_is_never_above_c(a, b, c) -> None:
    update = {"delta": np.array(a, np.float32), "dc": np.array(b, np.float32)}
    kept = {name: v.copy() for name, v in update.items()}
    clipped = clip(c).encode(update, KEY)
    before, after = exact_norm(update), exact_norm(clipped)
    assert after <= c * (1 + 1e-6)
    if before > c:
        assert after == pytest.approx(c, rel=1e-5)
        for name in update:  # the direction stays
            np.testing.assert_allclose(
                clipped[name] * before, update[name] * np.float64(c), rtol=1e-5, atol=1e-30
            )
    if before <= c * (1 - 1e-12):
        assert {n: v.tobytes() for n, v in clipped.items()} == {
            n: v.tobytes() for n, v in update.items()
        }
    for name, vector in update.items():
        np.testing.assert_array_equal(vector, kept[name])
        assert clipped[name].dtype == np.float32


def test_known_numbers() -> None:
    clipped = clip(1.0).encode({"a": np.array([3.0]), "b": np.array([0.0, -4.0])}, KEY)
    np.testing.assert_allclose(clipped["a"], [0.6], rtol=1e-15)
    np.testing.assert_allclose(clipped["b"], [0.0, -0.8], rtol=1e-15)
    assert clip(1.0).decode(clipped) is clipped


def test_a_norm_of_exactly_c_is_left_alone() -> None:
    update = {"a": np.array([3.0, -4.0], np.float32)}
    np.testing.assert_array_equal(clip(5.0).encode(update, KEY)["a"], [3, -4])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_for_the_server_to_refuse(bad: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clipped = clip(1.0).encode({"a": np.array([1e9, bad], np.float32), "b": np.ones(2)}, KEY)
    np.testing.assert_array_equal(clipped["a"], np.array([1e9, bad], np.float32))


def test_squares_beyond_float64_are_clipped_and_not_made_zero() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clipped = clip(1.0).encode({"a": np.array([3e200]), "b": np.array([0.0, -4e200])}, KEY)
        huge = clip(1e250).encode({"a": np.array([3e300, -4e300])}, KEY)
    np.testing.assert_allclose(clipped["a"], [0.6], rtol=1e-12)
    np.testing.assert_allclose(clipped["b"], [0.0, -0.8], rtol=1e-12)
    np.testing.assert_allclose(huge["a"], [6e249, -8e249], rtol=1e-12)


def test_many_small_values_are_summed_in_float64() -> None:
    """In float32, 1e8 + 1 is 1e8: the tail would not count."""
    update = {"a": np.concatenate([[1e4], np.full(200_000, 1.0)]).astype(np.float32)}
    length = exact_norm(clip(100.0).encode(update, KEY))
    assert length == pytest.approx(100, rel=1e-6)


def test_zeros_and_nothing_at_all_pass() -> None:
    for update in ({}, {"a": np.zeros(0, np.float32)}, {"a": np.zeros(3, np.float32)}):
        assert clip(1.0).encode(update, KEY) == update or not update["a"].any()


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf])
def test_a_norm_that_bounds_nothing_is_refused(norm: float) -> None:
    with pytest.raises(PlanError, match="positive norm") as caught:
        clip(norm)
    assert caught.value.code == "plan-bad-value"


def test_squares_below_float32_count() -> None:
    """1e-25 squared is 0 in float32, and such an update would never be clipped."""
    clipped = clip(1e-30).encode({"a": np.array([3e-25, -4e-25], np.float32)}, KEY)
    np.testing.assert_allclose(clipped["a"], [6e-31, -8e-31], rtol=1e-6)
