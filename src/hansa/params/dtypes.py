"""The element types that Hansa carries, under the names of the safetensors format.

Floats convert with one rounding, to nearest even; numbers too large become infinity and NaN stays
NaN.  NumPy has no bfloat16 of its own, so `ml_dtypes` is imported, but only when a BF16 tensor
shows up.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.errors import ParamsError
from hansa.limits import BLOCK_VALUES

Array = NDArray[Any]
"""A NumPy array of any element type that Hansa carries."""

_CODES = {
    "U64": "u8",
    "I64": "i8",
    "F64": "f8",
    "F32": "f4",
    "U32": "u4",
    "I32": "i4",
    "BF16": "bfloat16",
    "F16": "f2",
    "U16": "u2",
    "I16": "i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "b1",
}
# Widest first, so that every tensor is aligned without padding between tensors, which the format
# forbids; among equals the order of the safetensors library, so that its files load without a copy.

DTYPES = tuple(_CODES)
"""All dtypes, in the order in which their tensors lie in the body."""

FLOATS = ("F64", "F32", "BF16", "F16")
"""The floating dtypes, in body order; arithmetic acts on these."""

_NAMES = {code: name for name, code in _CODES.items()}
_WIDTHS = {name: 2 if name == "BF16" else int(code[1:]) for name, code in _CODES.items()}


def width(dtype: str) -> int:
    """Return the bytes of one element.

    Raises:
      ParamsError: params-unknown-dtype.
    """
    if dtype not in _WIDTHS:
        raise unknown_dtype(f"{dtype!r}")
    return _WIDTHS[dtype]


@functools.cache
def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """Return NumPy's little-endian dtype for one of `DTYPES`.

    >>> numpy_dtype("F32")
    dtype('float32')
    """
    width(dtype)
    if dtype == "BF16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype("<" + _CODES[dtype])


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether a NumPy dtype is one of floats; bfloat16 is, though its kind is "V".

    >>> is_float(np.dtype(np.float16)), is_float(numpy_dtype("BF16")), is_float(np.dtype(bool))
    (True, True, False)
    """
    return dtype.kind == "f" or dtype.name == "bfloat16"


@functools.cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a NumPy dtype, whatever its byte order.

    >>> dtype_name(np.dtype(">f8"))
    'F64'

    Raises:
      ParamsError: params-unknown-dtype, for complex numbers, strings, objects and the like.
    """
    code = f"{dtype.kind}{dtype.itemsize}" if dtype.kind != "V" else dtype.name
    if code not in _NAMES:
        raise unknown_dtype(str(dtype))
    return _NAMES[code]


def unknown_dtype(dtype: str) -> ParamsError:
    """Return the error for a dtype that Hansa does not carry."""
    return ParamsError(
        "params-unknown-dtype",
        f"The dtype {dtype} is not one that Hansa carries; nothing was read or written.",
        f"Convert the tensor to one of {', '.join(DTYPES)}.",
    )


def blocks(size: int) -> Iterator[slice]:
    """Yield slices that cover `size` elements in steps that fit a cache."""
    for start in range(0, size, BLOCK_VALUES):
        yield slice(start, min(start + BLOCK_VALUES, size))


def quietly() -> np.errstate:
    """Return a context in which overflow is infinity and NaN is NaN, without a warning."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


def assign(target: Array, source: Array) -> None:
    """Write one flat array into another of the same length, with one rounding to nearest even."""
    with quietly():
        if target.dtype.name == "bfloat16" and source.dtype.name == "float64":
            for block in blocks(source.size):
                target[block] = _rounded_to_odd(source[block])
        else:
            np.copyto(target, source, casting="unsafe")


def _rounded_to_odd(wide: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round float64 to float32 so that a second rounding, to bfloat16, comes out as if it were one.

    Source: Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums: proved
    algorithms using rounding to odd".
    """
    nearest = wide.astype(np.float32)
    bits = nearest.view(np.uint32)
    inexact = nearest != wide
    bits -= np.abs(nearest) > np.abs(wide)  # towards zero, where rounding went away from it
    bits |= inexact
    return nearest
