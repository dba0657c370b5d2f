"""Named tensors over one contiguous buffer: memory, file and wire have the same bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from hansa.errors import ParamsError
from hansa.limits import HASH_THREADED_BYTES
from hansa.params.dtypes import FLOATS, Array, assign, dtype_name, numpy_dtype
from hansa.params.header import render
from hansa.params.layout import Layout, about, is_text, shown

Body = NDArray[np.uint8]
_NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Params(Mapping[str, Array]):
    """An ordered mapping from names to tensors, all of them views of one flat buffer.

    Views are writable if the buffer is: always after `Params.of` and `copy`, never after loading a
    file.  Two are equal when they encode to the same bytes: names, order, dtypes, shapes, metadata
    and every bit of every tensor.

    Args:
      layout: where each tensor lies.
      body: uint8, `layout.nbytes` long, contiguous; kept, not copied.
      metadata: text by text, carried in the header.

    Raises:
      ParamsError: params-truncated, the body does not fit the layout; params-bad-header, metadata
        that is not text.

    >>> params = Params.of({"w": np.zeros((2, 3), np.float32), "step": np.int64(7)})
    >>> params["w"].shape, params["step"].item(), params.layout.dtypes
    ((2, 3), 7, ('I64', 'F32'))
    """

    __slots__ = ("body", "layout", "metadata")

    def __init__(
        self, layout: Layout, body: Body, metadata: Mapping[str, str] = _NO_METADATA
    ) -> None:
        if body.dtype != np.uint8 or body.shape != (layout.nbytes,) or not body.flags.c_contiguous:
            raise ParamsError(
                "params-truncated",
                f"The body is {body.dtype} of shape {body.shape}; the layout needs "
                f"{layout.nbytes} contiguous bytes.  Nothing was made.",
                "Pass the body that belongs to this layout.",
            )
        self.layout = layout
        self.body = body
        self.metadata = _checked_metadata(metadata)

    @classmethod
    def of(
        cls, arrays: Mapping[str, Any] | Sequence[Any], metadata: Mapping[str, str] = _NO_METADATA
    ) -> Params:
        """Copy arrays into a new buffer; those of a sequence are named "0", "1", and so on.

        Arrays may be strided, zero-dimensional, empty, or of the other byte order.

        Raises:
          ParamsError: params-not-an-array, params-unknown-dtype, params-bad-header (a name),
            params-duplicate-name, params-too-large.
        """
        if not isinstance(arrays, Mapping):
            arrays = {str(i): array for i, array in enumerate(arrays)}
        checked = {name: _array(name, array) for name, array in arrays.items()}
        layout = Layout.of((name, _dtype(name, a), a.shape) for name, a in checked.items())
        params = cls.zeros(layout, metadata)
        for name, array in checked.items():
            np.copyto(params[name], array)
        return params

    @classmethod
    def zeros(cls, layout: Layout, metadata: Mapping[str, str] = _NO_METADATA) -> Params:
        """Make tensors of zeros; large ones take memory only when they are written."""
        return cls(layout, np.zeros(layout.nbytes, np.uint8), metadata)

    @classmethod
    def from_vector(
        cls, layout: Layout, vector: Array, metadata: Mapping[str, str] = _NO_METADATA
    ) -> Params:
        """Copy `vector` into the floating tensors of a layout; other tensors are zero.

        Args:
          layout: its floating tensors take `vector` in the order of `vector()`.
          vector: floats, `layout.float_size` long; rounded once, to nearest even.
          metadata: text by text.

        Raises:
          ParamsError: params-mismatch, for a vector of another length or of no floating dtype.
        """
        if vector.shape != (layout.float_size,) or dtype_name(vector.dtype) not in FLOATS:
            raise ParamsError(
                "params-mismatch",
                f"A vector of {vector.dtype}, shape {vector.shape}, cannot fill "
                f"{layout.float_size} floating elements; nothing was made.",
                "Pass a float vector as long as the `float_size` of the layout.",
            )
        made = cls.zeros(layout, metadata)
        for dtype, (start, stop) in layout.float_spans().items():
            assign(made.flat(dtype), vector[start:stop])
        return made

    def __getitem__(self, name: str) -> Array:
        _, dtype, shape, start, stop = self.layout[name]
        return self.body[start:stop].view(numpy_dtype(dtype)).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def __contains__(self, name: object) -> bool:
        return name in self.layout

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Params):
            return NotImplemented
        return (
            self.layout == other.layout
            and self.metadata == other.metadata
            and np.array_equal(self.body, other.body)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Params({len(self)} tensors, {self.layout.nbytes:,} bytes)"

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded form: what a file or an upload takes."""
        return 8 + len(render(self.layout, self.metadata)) + self.layout.nbytes

    def flat(self, dtype: str) -> Array:
        """View all tensors of one dtype as one array, in body order; empty if there are none."""
        start, stop = self.layout.span(dtype)
        return self.body[start:stop].view(numpy_dtype(dtype))

    def vector(self) -> Array:
        """Return all floating tensors as one array of length `layout.float_size`, in body order.

        A view when all floats are F32, or all F64; otherwise a float32 copy, or float64 if any
        tensor is F64.
        """
        spans = self.layout.float_spans()
        if list(spans) in (["F32"], ["F64"]):
            return self.flat(*spans)
        vector = np.empty(self.layout.float_size, np.float64 if "F64" in spans else np.float32)
        for dtype, (start, stop) in spans.items():
            assign(vector[start:stop], self.flat(dtype))
        return vector

    def with_vector(self, vector: Array) -> Params:
        """Return a copy with the floating tensors replaced by `vector`, as `vector()` orders them.

        Values are rounded once, to nearest even.  Other tensors and metadata are kept.

        Raises:
          ParamsError: params-mismatch, for a vector of another length or of no floating dtype.
        """
        made = Params.from_vector(self.layout, vector, self.metadata)
        for dtype in self.layout.dtypes:
            if dtype not in FLOATS:
                made.flat(dtype)[:] = self.flat(dtype)
        return made

    def subset(self, names: Collection[str]) -> Params:
        """Copy the named tensors, in the order they have here, with the metadata.

        Raises:
          ParamsError: params-mismatch, for a name that is not here.
        """
        layout = self.layout.subset(names)
        made = Params.zeros(layout, self.metadata)
        for spec in layout.specs:
            old = self.layout[spec.name]
            made.body[spec.start : spec.stop] = self.body[old.start : old.stop]
        return made

    def copy(self) -> Params:
        """Return a writable copy that shares nothing."""
        return Params(self.layout, self.body.copy(), self.metadata)

    def to_dict(self) -> dict[str, Array]:
        """Return views by name."""
        return {name: self[name] for name in self}

    def to_list(self) -> list[Array]:
        """Return views in order."""
        return [self[name] for name in self]

    def digest(self) -> str:
        """Return "blake3:" and the hash of the encoded bytes in hex: the identity of a model."""
        header = render(self.layout, self.metadata)
        threads = blake3.AUTO if self.body.size >= HASH_THREADED_BYTES else 1
        state = blake3(len(header).to_bytes(8, "little") + header, max_threads=threads)
        return "blake3:" + state.update(self.body.data).hexdigest()


def _array(name: str, value: Any) -> Array:
    """Return a value as an array, without guessing what lists and plain numbers mean."""
    reason = "it is not an array"
    if hasattr(value, "__array__"):
        try:
            return np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            reason = str(error)
    raise ParamsError(
        "params-not-an-array",
        f"Tensor {shown(name)} is a {type(value).__name__}: {reason}.  Nothing was made.",
        "Pass NumPy arrays, for example `numpy.asarray(value, dtype=numpy.float32)`.",
    )


def _dtype(name: str, array: Array) -> str:
    try:
        return dtype_name(array.dtype)
    except ParamsError as error:
        raise about(name, error) from None


def _checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    for key, text in metadata.items():
        if not is_text(key) or not is_text(text):
            raise ParamsError(
                "params-bad-header",
                f"The metadata {shown(key)}: {shown(text)} is not text; nothing was made.",
                "Write numbers as text: metadata maps text to text.",
            )
    return dict(metadata)
