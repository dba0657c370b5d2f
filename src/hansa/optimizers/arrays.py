"""The few operations on flat vectors for which NumPy and torch have other words.

Torch is reached through the methods of its tensors, so this room imports no framework.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from hansa.seeds import Key

Vector = Any


def sign(v: Vector) -> Vector:
    """Return -1, 0 or 1 for each element, in the vector's own dtype."""
    return v.sign() if _is_tensor(v) else np.sign(v)


def larger(a: Vector, b: Vector) -> Vector:
    """Return the larger of two elements each."""
    return a.maximum(b) if _is_tensor(a) else np.maximum(a, b)


def normal_like(v: Vector, key: Key) -> Vector:
    """Return standard normal numbers of a vector's shape and dtype, alike on every device."""
    dtype = np.float64 if str(v.dtype).endswith("float64") else np.float32
    drawn = key.generator().standard_normal(tuple(v.shape), dtype)
    return v.new_tensor(drawn) if _is_tensor(v) else drawn


def clipped(u: Vector, norm: float) -> Vector:
    """Return `u * min(1, norm / |u|)`, with the L2 norm over the last axis."""
    squares = _squares(u)
    if _is_tensor(u):
        lengths = squares.sum(-1, keepdim=True).sqrt()
        return u * (norm / lengths.clamp(min=norm)).to(u.dtype)
    lengths = np.sqrt(squares.sum(axis=-1, keepdims=True))
    with np.errstate(invalid="ignore"):  # infinity becomes NaN, which is refused by name later
        return u * (norm / np.maximum(lengths, norm)).astype(u.dtype)


def clipped_by_tensor(u: Vector, norm: float, starts: tuple[int, ...]) -> Vector:
    """Return every tensor of `u` scaled by min(1, norm / its L2 norm).

    Args:
      u: `[..., D]`.
      norm: the largest norm that is left.
      starts: the first element of each tensor that is not empty, from 0 upwards.
    """
    if not starts:
        return u
    if not _is_tensor(u):
        sizes = _sizes(starts, u.shape[-1])
        lengths = np.sqrt(np.add.reduceat(_squares(u), starts, axis=-1))
        with np.errstate(invalid="ignore"):
            return u * np.repeat((norm / np.maximum(lengths, norm)).astype(u.dtype), sizes, axis=-1)
    if u.device.type == "cpu":  # where a tensor's memory is an array's too; ten times as fast
        return u.new_tensor(clipped_by_tensor(u.numpy(), norm, starts))
    return clipped_on_device(u, norm, starts)


def clipped_on_device(u: Vector, norm: float, starts: tuple[int, ...]) -> Vector:
    """Do what `clipped_by_tensor` does, with what torch has on any device."""
    sizes = u.new_empty(0).long().new_tensor(_sizes(starts, u.shape[-1]))
    which = ((sizes * 0 + 1).cumsum(0) - 1).repeat_interleave(sizes)
    squares = _squares(u)
    sums = squares.new_zeros((*u.shape[:-1], len(starts))).index_add_(-1, which, squares)
    factors = (norm / sums.sqrt().clamp(min=norm)).to(u.dtype)
    return u * factors[..., which]


def _sizes(starts: tuple[int, ...], stop: int) -> list[int]:
    return [b - a for a, b in itertools.pairwise((*starts, stop))]


def _squares(u: Vector) -> Vector:
    """Return squares in float64, whose range those of float32 cannot leave."""
    if not _is_tensor(u):
        return np.square(u, dtype=np.float64)
    wide = u if u.device.type == "mps" else u.double()  # Apple's GPUs have no float64
    return wide * wide


def _is_tensor(v: Vector) -> bool:
    return hasattr(v, "new_tensor")
