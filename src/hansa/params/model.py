"""A model as the algorithms see it: one trained vector, and the rest.

Optimisation acts on the floating tensors that are trained, as one flat vector `x`.  Everything
else (BatchNorm statistics, counters, masks: "buffers") is averaged by the same weights, whatever
the algorithm, and travels as one float64 vector so that integers up to 2**53 stay exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from hansa.params.dtypes import FLOATS, Array, assign, numpy_dtype
from hansa.params.layout import Layout
from hansa.params.tensors import Params


class ModelLayout:
    """Which tensors of a layout are trained and which are buffers.

    Args:
      layout: all tensors of the model.
      buffers: names of floating tensors that are not trained; tensors of other dtypes never are.
    """

    def __init__(self, layout: Layout, buffers: Iterable[str] = ()) -> None:
        named = frozenset(buffers)
        is_buffer = [s.name in named or s.dtype not in FLOATS for s in layout.specs]
        self.layout = layout
        pairs = list(zip(layout.names, is_buffer, strict=True))
        self.trained = layout.subset([name for name, buffer in pairs if not buffer])
        self.buffers = layout.subset([name for name, buffer in pairs if buffer])

    def split(self, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """Return `(x [D], buffers [B] float64)`; `x` may be a view of `params`."""
        x = params.subset(self.trained.names) if self.buffers.names else params
        rest = params.subset(self.buffers.names)
        flats = [rest.flat(dtype).astype(np.float64) for dtype in self.buffers.dtypes]
        return x.vector(), np.concatenate([np.empty(0), *flats])

    def join(self, x: np.ndarray, buffers: np.ndarray) -> Params:
        """Return the whole model; averaged integers are rounded to the nearest, ties to even."""
        trained = from_vector(self.trained, x)
        if not self.buffers.names:
            return trained
        rest = self.buffer_params(buffers)
        whole = zeros(self.layout)
        for part in (trained, rest):
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
