"""Half-size floats are those of ml_dtypes and NumPy, rounded once."""

from __future__ import annotations

import math
import struct
import warnings
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.seeds import Key
from hansa.transforms import cast

KEY = Key.root(0)
HALVES = {"bf16": np.dtype(ml_dtypes.bfloat16), "fp16": np.dtype(np.float16)}
each = pytest.mark.parametrize("dtype", HALVES)


@each
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_every_float32_is_cast_as_the_libraries_do(dtype: str, bits: list[int]) -> None:
    vector = np.array(bits, np.uint32).view(np.float32)
    wire = cast(dtype).encode({"delta": vector}, KEY)["delta"]
    with np.errstate(all="ignore"):
        expected = vector.astype(HALVES[dtype])
    assert wire.dtype == HALVES[dtype]
    assert wire.nbytes == 2 * len(bits)
    np.testing.assert_array_equal(wire.astype(np.float32), expected.astype(np.float32))


def nearest_bf16(value: float) -> float:
    """Round to 8 significant bits, ties to even, in exact arithmetic."""
    if value == 0:
        return value
    unit = Fraction(2) ** (math.frexp(value)[1] - 8)
    return float(round(Fraction(value) / unit) * unit)


@given(st.floats(-1e30, 1e30).filter(lambda v: abs(v) > 1e-30))
def test_float64_is_rounded_once_to_bfloat16(value: float) -> None:
    wire = cast("bf16").encode({"delta": np.array([value])}, KEY)["delta"]
    assert float(wire[0]) == nearest_bf16(value)


def test_a_tie_of_float32_that_was_none_in_float64_goes_the_right_way() -> None:
    vector = np.array([1 + 2**-8 + 2**-40, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8 + 2**-40)])
    wire = cast("bf16").encode({"delta": vector}, KEY)["delta"].astype(float)
    np.testing.assert_array_equal(wire, [1 + 2**-7, 1, 1 + 2**-6, -(1 + 2**-7)])


def test_ties_go_to_even() -> None:
    vector = np.array([2049, 2051, -2049], np.float32)  # fp16 has 11 bits
    wire = cast("fp16").encode({"delta": vector}, KEY)["delta"].astype(float)
    np.testing.assert_array_equal(wire, [2048, 2052, -2048])


@each
def test_overflow_is_infinity_without_a_warning(dtype: str) -> None:
    vector = np.array([3.4e38, -3.4e38, np.nan, 1.0], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transform = cast(dtype)
        back = transform.decode(transform.encode({"delta": vector}, KEY))["delta"]
    np.testing.assert_array_equal(back, np.array([np.inf, -np.inf, np.nan, 1], np.float32))


def test_fp16_overflows_where_its_range_ends() -> None:
    vector = np.array([65504, 65519, 65520, -65520], np.float32)
    wire = cast("fp16").encode({"delta": vector}, KEY)["delta"]
    np.testing.assert_array_equal(wire, np.array([65504, 65504, np.inf, -np.inf], np.float16))


@each
def test_a_second_cast_changes_nothing(dtype: str) -> None:
    transform = cast(dtype)
    vector = np.linspace(-3, 5, 101, dtype=np.float32) ** 3
    once = transform.decode(transform.encode({"delta": vector}, KEY))
    twice = transform.decode(transform.encode(once, KEY))
    np.testing.assert_array_equal(once["delta"], twice["delta"])
    assert once["delta"].dtype == np.float32
    relative = np.abs(once["delta"] / vector - 1)[vector != 0]
    assert 2**-13 < relative.max() <= (2**-8 if dtype == "bf16" else 2**-11)


def test_the_input_is_not_written_to() -> None:
    vector = np.array([1 / 3], np.float32)
    vector.flags.writeable = False
    cast("bf16").encode({"delta": vector}, KEY)
    assert struct.unpack("<f", vector.tobytes()) == (np.float32(1 / 3),)
