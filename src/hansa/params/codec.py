"""Params to bytes and back, in the safetensors format.

8 bytes little-endian header length, a JSON header, the body.  What comes in is not trusted: every
tensor must lie inside the body, and together they must fill it without overlap or hole.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from hansa.errors import ParamsError
from hansa.limits import HEADER_BYTES_MAX
from hansa.params.dtypes import Array
from hansa.params.header import Offsets, parse, render
from hansa.params.layout import Layout, TensorSpec, shown
from hansa.params.tensors import Body, Params

_HINT = "Nothing was loaded.  Fetch or write the file again; do not trust this copy."


def encode(params: Params) -> tuple[bytes, memoryview]:
    """Return the header, with its length before it, and the body as a view: nothing is copied.

    >>> header, body = encode(Params.of({"w": np.zeros(3, np.float32)}))
    >>> len(header) % 64, body.nbytes
    (0, 12)
    """
    header = render(params.layout, params.metadata)
    return len(header).to_bytes(8, "little") + header, params.body.data


def decode(buffer: bytes | bytearray | memoryview | Array, *, source: str = "buffer") -> Params:
    """Read Params from the bytes of a whole file.

    The tensors are views of `buffer` when they lie there as they would here, as in files written by
    Hansa, and in most others; otherwise they are copied into order.

    Args:
      buffer: contiguous, of any type with the buffer protocol; kept alive by the result, whose
        tensors are writable if it is.
      source: a name for the messages.

    Raises:
      ParamsError: params-truncated, params-too-large, params-bad-header, params-duplicate-name,
        params-unknown-dtype, params-bad-offsets, params-bad-value, params-not-an-array.
    """
    try:
        return _decode(_as_bytes(buffer))
    except ParamsError as error:
        raise ParamsError(error.code, f"{source}: {error.happened}", error.hint) from None


def _decode(data: Body) -> Params:
    if data.size < 8:
        _refuse("params-truncated", f"{data.size} bytes are too few for a header.")
    header_size = int.from_bytes(data[:8].tobytes(), "little")
    if header_size > HEADER_BYTES_MAX:
        _refuse("params-too-large", f"A header of {header_size} bytes exceeds the limit.")
    if header_size > data.size - 8:
        _refuse("params-truncated", f"The header of {header_size} bytes is cut off.")
    layout, offsets, metadata = parse(data[8 : 8 + header_size].tobytes())
    body = data[8 + header_size :]
    _check_offsets(layout, offsets, body.size)
    params = Params(layout, _in_order(layout, offsets, body), metadata)
    _check_bools(params)
    return params


def _as_bytes(buffer: bytes | bytearray | memoryview | Array) -> Body:
    try:
        view = buffer.data if isinstance(buffer, np.ndarray) else memoryview(buffer)
        if view.itemsize != 1:
            raise TypeError(f"its items have {view.itemsize} bytes")
        return np.frombuffer(view.cast("B"), np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise ParamsError(
            "params-not-an-array",
            f"{type(buffer).__name__} is not a contiguous buffer of bytes ({error}).",
            "Pass bytes, a memoryview or a uint8 array.",
        ) from None


def _check_offsets(layout: Layout, offsets: Offsets, size: int) -> None:
    """Check that the tensors fill a body of `size` bytes one after the other."""
    free, before = 0, None
    for spec in sorted(layout.specs, key=lambda spec: offsets[spec.name]):
        start, stop = offsets[spec.name]
        if start != free or stop > size or stop - start != spec.stop - spec.start:
            _refuse_offsets(spec, offsets, size, before=before)
        free, before = stop, spec.name
    if free < size:
        last = "the header" if before is None else f"tensor {shown(before)}, the last"
        _refuse("params-truncated", f"{size - free} bytes follow {last}.")


def _refuse_offsets(
    spec: TensorSpec, offsets: Offsets, size: int, *, before: str | None
) -> NoReturn:
    start, stop = offsets[spec.name]
    free = 0 if before is None else offsets[before][1]
    tensor = f"Tensor {shown(spec.name)} at bytes {start} to {stop} of the body"
    if stop - start != spec.stop - spec.start:
        _refuse("params-bad-offsets", f"{tensor} should take {spec.stop - spec.start} bytes.")
    if start < free:
        _refuse("params-bad-offsets", f"{tensor} overlaps tensor {shown(before)}.")
    if stop > size:
        _refuse("params-truncated", f"{tensor} is cut off: the body has {size} bytes.")
    _refuse("params-bad-offsets", f"{tensor} leaves a hole of {start - free} bytes before it.")


def _in_order(layout: Layout, offsets: Offsets, body: Body) -> Body:
    """Return the body as `layout` has it: the same memory where possible."""
    aligned = body.ctypes.data % 8 == 0
    if aligned and all(offsets[s.name][0] == s.start or s.start == s.stop for s in layout.specs):
        return body
    ordered = np.empty(layout.nbytes, np.uint8)
    for spec in layout.specs:
        ordered[spec.start : spec.stop] = body[slice(*offsets[spec.name])]
    return ordered


def _check_bools(params: Params) -> None:
    """Refuse bytes other than 0 and 1, with which NumPy and torch would compute nonsense."""
    if params.flat("BOOL").view(np.uint8).max(initial=0) <= 1:
        return
    for spec in params.layout.specs:
        values = params.body[spec.start : spec.stop]
        if spec.dtype == "BOOL" and values.max(initial=0) > 1:
            name = shown(spec.name)
            _refuse("params-bad-value", f"Tensor {name} is BOOL and holds {values.max()}.")


def _refuse(code: str, happened: str) -> NoReturn:
    raise ParamsError(code, happened, _HINT)
