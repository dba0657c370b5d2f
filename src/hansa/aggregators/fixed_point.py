"""Exact sums: integers added in any order give the same bits, floats do not.

A bounded vector is summed in one int64 per value, `acc += rint(x * (w * 2^k))`.  The binary point
k is fixed when the round opens such that `sum(w) * bound * 2^k <= 2^62`: no order of additions can
overflow.  Each product is rounded once, on its own, so the sum of given contributions is one
integer whatever their order; its distance from the exact sum is at most n/2 units of 2^-k.

A wide vector is summed in 126 bits, as `high + low / 2^62` with `0 <= low < 2^62`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from hansa.limits import ACCUMULATOR_BITS, BLOCK_VALUES, SUM_BYTES_KEPT, WIDE_BITS

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

ROUNDER = 1.5 * 2.0**52
"""A float64 this large has no bits below the point: adding it to |v| <= 2^51 is rint(v)."""
ROUNDED_MAX = 2.0**50
"""Half of what the rounder can take; the other half covers the rounding of products."""
ROUNDER_BITS = int(np.float64(ROUNDER).view(np.int64))
LOW_ONE = 2**WIDE_BITS
"""One, in units of the low limb of a wide sum."""


def ceil_log2(value: float) -> int:
    """Return the smallest e with value <= 2^e, exactly."""
    mantissa, exponent = math.frexp(value)
    return exponent - 1 if mantissa == 0.5 else exponent


def point(bound: float, weight_limit: float) -> int:
    """Return k, the number of bits below the binary point of a bounded sum."""
    return ACCUMULATOR_BITS - ceil_log2(weight_limit) - ceil_log2(bound)


def wide_bound(weight_limit: float) -> float:
    """Return the magnitude up to which the values of a wide vector cannot overflow their sum."""
    return math.ldexp(1.0, WIDE_BITS - ceil_log2(weight_limit))


def blocks(size: int) -> Iterator[slice]:
    """Cut a vector into pieces that stay in the second-level cache."""
    return (slice(i, min(i + BLOCK_VALUES, size)) for i in range(0, size, BLOCK_VALUES))


def fold(acc: Integers, x: Floats, scale: float, *, largest: float) -> None:
    """Add `rint(x * scale)` to `acc` in place; no product is greater in magnitude than `largest`.

    Both branches give the same integers; the first needs no conversion and is bound by memory.
    """
    scratch = np.empty(min(x.size, BLOCK_VALUES), np.float64)
    for block in blocks(x.size):
        product = scratch[: block.stop - block.start]
        product[...] = x[block]
        product *= scale
        total = acc[block]
        if largest <= ROUNDED_MAX:
            product += ROUNDER
            rounded = product.view(np.int64)
            rounded -= ROUNDER_BITS
        else:
            rounded = np.rint(product, out=product).astype(np.int64)
        total += rounded


def fold_wide(acc: Integers, x: Floats, weight: float) -> None:
    """Add `x * weight` to the two limbs `acc[0] + acc[1] / 2^62` in place."""
    for block in blocks(x.size):
        product = x[block].astype(np.float64) * weight
        whole = np.trunc(product)
        fraction = np.rint((product - whole) * LOW_ONE)
        acc[0, block] += whole.astype(np.int64)
        acc[1, block] += fraction.astype(np.int64)
        _carry(acc[:, block])


def add(acc: Integers, other: Integers) -> None:
    """Add a second sum of the same spec to `acc` in place."""
    acc += other
    if acc.ndim == 2:
        _carry(acc)


def _carry(limbs: Integers) -> None:
    """Bring the low limb back into [0, 2^62), so that equal sums have equal limbs."""
    high, low = limbs
    high += low >> WIDE_BITS
    low &= LOW_ONE - 1


def mean(acc: Integers, weight: Fraction, *, k: int, dtype: str) -> Floats:
    """Return `acc / (weight * 2^k)`, one division in float64, then rounded to `dtype`.

    The mean takes the place of the sum, which is used up: of a large model there is no room for
    both.  What is written is never ahead of what is read, for no mean is wider than its sum.
    """
    size, divisor = acc.size, float(weight * Fraction(2) ** k)
    mean = acc.view(dtype)
    scratch = np.empty(min(size, BLOCK_VALUES), np.float64)
    for block in blocks(size):
        quotient = scratch[: block.stop - block.start]
        quotient[...] = acc[block]  # at once, where divide would convert a few at a time
        quotient /= divisor
        mean[block] = quotient
    del mean
    if acc.nbytes > SUM_BYTES_KEPT:
        words = -(-size * np.dtype(dtype).itemsize // acc.itemsize)
        acc.resize(words, refcheck=False)  # gives back the rest of the memory; nobody else has it
    return acc.view(dtype)[:size]


def wide_mean(acc: Integers, weight: Fraction, *, dtype: str) -> Floats:
    """Return the mean of a wide sum, in float64, then rounded to `dtype`."""
    mean = np.empty(acc.shape[1], dtype)
    for block in blocks(mean.size):
        high, low = acc[:, block]
        # Nearest integer and signed rest: -1 + (1 - tiny) would lose the bits of -tiny.
        up = low >> (WIDE_BITS - 1)
        rest = (low - up * LOW_ONE) / LOW_ONE
        mean[block] = ((high + up) + rest) / float(weight)
    return mean
