import subprocess
import sys
import warnings

import ml_dtypes
import numpy as np
import pytest

from hansa.errors import ParamsError
from hansa.params.dtypes import DTYPES, FLOATS, assign, dtype_name, numpy_dtype, width


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    target = np.empty(values.shape, numpy_dtype(dtype))
    assign(target, values)
    return target


def bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.itemsize}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_and_its_numpy_dtype_name_each_other(dtype):
    assert dtype_name(numpy_dtype(dtype)) == dtype
    assert numpy_dtype(dtype).itemsize == width(dtype)


def test_both_byte_orders_have_one_name():
    assert dtype_name(np.dtype(">f8")) == dtype_name(np.dtype("<f8")) == "F64"


@pytest.mark.parametrize("dtype", ["c16", "O", "U4", "S3", "M8[s]", "V2", "f4,i4"])
def test_a_dtype_that_is_not_carried_is_refused_by_name(dtype):
    with pytest.raises(ParamsError, match="Convert the tensor to one of U64") as caught:
        dtype_name(np.dtype(dtype))
    assert caught.value.code == "params-unknown-dtype"


def test_every_bfloat16_becomes_the_float32_with_the_same_leading_bits():
    every = np.arange(2**16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    widened = rounded(every, "F32")
    expected = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
    finite = ~np.isnan(expected)
    assert (bits(widened)[finite] == bits(expected)[finite]).all()
    assert np.isnan(widened[~finite]).all()


def test_float32_becomes_the_nearest_bfloat16_and_ties_go_to_even():
    # Goal: every bfloat16, subnormal and infinite ones too, with low halves around the tie.
    high = np.arange(2**16, dtype=np.uint32)[:, None] << 16
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    source = (high | low).ravel()
    values = source.view(np.float32)
    up = (source & 0xFFFF > 0x8000) | ((source & 0xFFFF == 0x8000) & (source >> 16 & 1 == 1))
    expected = (source >> 16) + up
    found, nan = rounded(values, "BF16"), np.isnan(values)
    assert (bits(found)[~nan] == expected[~nan]).all()
    assert np.isnan(found[nan].astype(np.float32)).all()


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("sign", [1, -1])
def test_float64_is_rounded_once_to_a_narrow_float(dtype, sign):
    # Method: the midpoint of any two neighbours is a float64; so is what lies just beside it.
    infinity = {"F16": 0x7C00, "BF16": 0x7F80}[dtype]
    lower = np.arange(infinity, dtype=np.uint16)
    below = lower.view(numpy_dtype(dtype)).astype(np.float64)
    gap = np.append(np.diff(below), below[-1] - below[-2])
    middle = below + gap / 2
    cases = {
        "below": (np.nextafter(middle, 0), lower),
        "tie": (middle, lower + (lower & 1)),
        "above": (np.nextafter(middle, np.inf), lower + 1),
    }
    for values, expected in cases.values():
        found = bits(rounded(sign * values, dtype))
        assert (found == expected + (0x8000 if sign < 0 else 0)).all()


def test_float64_that_is_nan_or_infinite_stays_so_in_bfloat16():
    found = rounded(np.array([np.nan, np.inf, -np.inf, 1e308, -1e-320, -0.0]), "BF16")
    wide = found.astype(np.float64)
    assert np.isnan(wide[0])
    assert wide[1:].tolist() == [np.inf, -np.inf, np.inf, 0.0, 0.0]
    assert np.signbit(wide[4:]).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_number_too_large_becomes_infinity_without_a_warning(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rounded(np.array([np.inf, 1e300]), dtype).astype(np.float64)
    assert found.tolist() == [np.inf, 1e300 if dtype == "F64" else np.inf]


def test_importing_params_imports_nothing_heavy():
    heavy = {"ml_dtypes", "msgspec", "safetensors", "torch"}
    code = f"import sys, hansa.params; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
