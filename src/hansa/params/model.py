"""A model as the algorithms see it: one trained vector, and the rest.

Optimisation acts on the floating tensors that are trained, as one flat vector `x`.  What training
changes besides (BatchNorm statistics, counters: "buffers") is averaged by the same weights,
whatever the algorithm, and travels as one float64 vector so that integers up to 2**53 stay exact.
What never changes (frozen layers, masks: "constants") is in the model's file and in no update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any, Self

import numpy as np

from hansa.params.dtypes import FLOATS, Array, assign, numpy_dtype
from hansa.params.layout import Layout
from hansa.params.tensors import Params


class ModelLayout:
    """Which tensors of a layout are trained, which are buffers, and which never change.

    Args:
      layout: all tensors of the model.
      buffers: names of floating tensors that are not trained; tensors of other dtypes never are.
      constants: names of those that are neither trained nor averaged.
    """

    def __init__(
        self, layout: Layout, buffers: Iterable[str] = (), constants: Iterable[str] = ()
    ) -> None:
        named, fixed = frozenset(buffers), frozenset(constants)
        rest = [s for s in layout.specs if s.name not in fixed]
        held = {s.name for s in rest if s.name in named or s.dtype not in FLOATS}
        self.layout = layout
        self.trained = layout.subset([s.name for s in rest if s.name not in held])
        self.buffers = layout.subset([s.name for s in rest if s.name in held])
        self.constants = layout.subset([name for name in layout.names if name in fixed])
        self.all_trained = len(self.trained) == len(layout)
        self._fixed: Mapping[str, Array] = {}

    @property
    def fixed(self) -> Mapping[str, Array]:
        """The constants' values, which `holding` has brought."""
        assert len(self._fixed) == len(self.constants)
        return self._fixed

    def holding(self, tensors: Mapping[str, Array]) -> Self:
        """Return this layout with the constants' values: views of those among `tensors`."""
        held = copy(self)
        held._fixed = {name: tensors[name] for name in self.constants}
        return held

    def changed(self, params: Mapping[str, Array]) -> str | None:
        """Return the first constant that has other bits in a model; None if all are as they were.

        A shape or dtype is none of its business: the model has this layout.
        """
        return next((n for n in self.constants if not same_bits(params[n], self.fixed[n])), None)

    def split(self, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """Return `(x [D], buffers [B] float64)`; `x` may be a view of `params`."""
        x = params if self.all_trained else params.subset(self.trained.names)
        rest = params.subset(self.buffers.names)
        flats = [rest.flat(dtype).astype(np.float64) for dtype in self.buffers.dtypes]
        return x.vector(), np.concatenate([np.empty(0), *flats])

    def join(self, x: np.ndarray, buffers: np.ndarray) -> Params:
        """Return the whole model; averaged integers are rounded to the nearest, ties to even."""
        trained = from_vector(self.trained, x)
        if self.all_trained:
            return trained
        rest = self.buffer_params(buffers)
        whole = zeros(self.layout)
        for part in (trained, rest, self.fixed):
            for name, tensor in part.items():
                whole[name][...] = tensor
        return whole

    def exact(self) -> bool:
        """Return whether the trained tensors hold `x` without rounding it."""
        return self.trained.dtypes in ((), ("F32",), ("F64",))

    def rounded(self, buffers: np.ndarray) -> np.ndarray:
        """Return buffers as they are after a round trip through the tensors' own dtypes."""
        rest = self.buffer_params(buffers)
        flats = [rest.flat(dtype).astype(np.float64) for dtype in self.buffers.dtypes]
        return np.concatenate([np.empty(0), *flats])

    def buffer_params(self, buffers: np.ndarray) -> Params:
        """Return the buffers alone, each in its own dtype."""
        rest = zeros(self.buffers)
        start = 0
        for dtype in self.buffers.dtypes:
            flat = rest.flat(dtype)
            values = buffers[start : start + len(flat)]
            start += len(flat)
            assign(flat, values if dtype in FLOATS else _whole(values, flat.dtype))
        return rest


def same_bits(one: Array, other: Array) -> bool:
    """Return whether two tensors of one dtype and shape have the same bits; NaN equals itself."""
    first, second = (np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in (one, other))
    return np.array_equal(first, second)


def zeros(layout: Layout) -> Params:
    """Return tensors of a layout, all zero and writable."""
    return Params(layout, np.zeros(layout.nbytes, np.uint8))


def from_vector(layout: Layout, vector: np.ndarray) -> Params:
    """Return the tensors of a floating layout over a vector: a view where its dtype is theirs."""
    same = layout.dtypes in (("F32",), ("F64",)) and vector.dtype == numpy_dtype(layout.dtypes[0])
    if same and vector.flags.c_contiguous:
        return Params(layout, vector.view(np.uint8))
    return Params.from_vector(layout, vector)


def _whole(values: Array, dtype: np.dtype[Any]) -> Array:
    """Round to integers (a boolean mean of one half is False) and stay inside the dtype."""
    rounded = np.rint(values)
    if dtype == np.bool_:
        return np.asarray(rounded > 0)
    info = np.iinfo(dtype)
    # float64(2**63 - 1) rounds up to 2**63, which would wrap; stay below it.
    top = np.nextafter(float(info.max), 0) if info.bits == 64 else float(info.max)
    whole: Array = np.clip(rounded, float(info.min), top).astype(dtype)
    return whole
