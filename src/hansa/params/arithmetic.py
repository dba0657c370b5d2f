"""Arithmetic on whole models: one operation per dtype, never a loop over tensors.

It acts on the floating tensors.  Others (counters, masks) have no meaningful average or multiple;
they are carried over from the operand named in each function.  F16 and BF16 are computed in float32
and rounded once.  Overflow gives infinity, as IEEE 754 has it, without a warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from hansa.params.dtypes import FLOATS, Array, assign, blocks, numpy_dtype, quietly, unknown_dtype
from hansa.params.layout import Layout, TensorSpec, check_same_layout, shown
from hansa.params.tensors import Params


def axpy(a: float, x: Params, y: Params) -> Params:
    """Return `y + a * x`; other tensors and metadata from `y`.

    >>> x, y = Params.of([np.float32([1, -2])]), Params.of([np.float32([10, 20])])
    >>> axpy(0.5, x, y)["0"]
    array([10.5, 19. ], dtype=float32)

    Raises:
      ParamsError: params-mismatch, when names, order, shapes or dtypes differ.
    """
    a = float(a)  # a NumPy scalar would widen float32 to float64
    return _apply(lambda out, y, x: np.add(y, np.multiply(x, a, out=out), out=out), y, x)


def scale(a: float, x: Params) -> Params:
    """Return `a * x`; other tensors and metadata from `x`."""
    a = float(a)
    return _apply(lambda out, x: np.multiply(x, a, out=out), x)


def subtract(x: Params, y: Params) -> Params:
    """Return `x - y`; other tensors and metadata from `x`.

    Raises:
      ParamsError: params-mismatch, when names, order, shapes or dtypes differ.
    """
    return _apply(lambda out, x, y: np.subtract(x, y, out=out), x, y)


def norm(x: Params) -> float:
    """Return the L2 norm of all floating elements together, summed in float64.

    The order of the sum is fixed, so that the same bytes give the same norm whatever the number of
    threads.  Infinity when the sum of squares exceeds float64, as only F64 tensors can make it.
    """
    total = 0.0
    for dtype in x.layout.float_spans():
        flat = x.flat(dtype)
        for block in blocks(flat.size):
            wide = flat[block].astype(np.float64)
            with quietly():
                total += float(np.sum(np.square(wide, out=wide)))
    return math.sqrt(total)


def cast(x: Params, dtype: str) -> Params:
    """Return `x` with every floating tensor in another floating dtype, rounded to nearest even.

    Raises:
      ParamsError: params-unknown-dtype, when `dtype` is not F64, F32, BF16 or F16.
    """
    if dtype not in FLOATS:
        raise unknown_dtype(f"{shown(dtype)}, as a floating type,")
    layout = Layout.of(
        (spec.name, dtype if spec.dtype in FLOATS else spec.dtype, spec.shape)
        for spec in x.layout.specs
    )
    made = Params.zeros(layout, x.metadata)
    for source, target in _runs(x.layout, layout):
        old = x.body[source.start : source.stop].view(numpy_dtype(source.dtype))
        new = made.body[target.start : target.stop].view(numpy_dtype(target.dtype))
        assign(new, old)
    return made


def _runs(old: Layout, new: Layout) -> Iterator[tuple[TensorSpec, TensorSpec]]:
    """Join tensors that are neighbours in both layouts: one run a dtype, but when dtypes merge."""
    open_runs: dict[str, tuple[TensorSpec, TensorSpec]] = {}
    for source, target in zip(old.specs, new.specs, strict=True):
        if run := open_runs.get(source.dtype):
            if run[1].stop == target.start:
                source = source._replace(start=run[0].start)
                target = target._replace(start=run[1].start)
            else:
                yield run
        open_runs[source.dtype] = source, target
    yield from open_runs.values()


def _apply(step: Callable[..., Array], *operands: Params) -> Params:
    """Apply a step to the floats of each dtype, block by block; take the rest from the first."""
    first = operands[0]
    for other in operands[1:]:
        check_same_layout(first.layout, other.layout)
    made = Params.zeros(first.layout, first.metadata)
    for dtype in first.layout.dtypes:
        target, sources = made.flat(dtype), [operand.flat(dtype) for operand in operands]
        if dtype not in FLOATS:
            target[:] = sources[0]
            continue
        with quietly():
            for block in blocks(target.size):
                _step(step, target[block], [source[block] for source in sources])
    return made


def _step(step: Callable[..., Array], out: Array, sources: list[Array]) -> None:
    if out.itemsize > 2:
        step(out, *sources)
        return
    wide = np.empty(out.size, np.float32)
    assign(out, step(wide, *(source.astype(np.float32) for source in sources)))
