"""Where each tensor lies in the body: names, dtypes, shapes and byte offsets."""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, NoReturn

from hansa.errors import ParamsError
from hansa.limits import NAME_CHARS_MAX, RANK_MAX, TENSOR_BYTES_MAX, TENSORS_MAX
from hansa.params.dtypes import DTYPES, FLOATS, unknown_dtype, width

METADATA = "__metadata__"
"""The one name that the format keeps for itself."""

_REPR = reprlib.Repr()
_REPR.maxstring, _REPR.maxlevel = 80, 2


class TensorSpec(NamedTuple):
    """One tensor: its name, dtype and shape, and its bytes [start, stop) in the body."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Layout(Mapping[str, TensorSpec]):
    """The order, types and places of named tensors in one body; immutable and hashable.

    Tensors keep the order in which they were given.  In the body they are grouped by dtype, widest
    first, so that all tensors of one dtype are one flat array.

    >>> layout = Layout.of([("step", "I64", ()), ("w", "F32", (2, 3)), ("b", "F32", (3,))])
    >>> layout.span("F32"), layout.nbytes
    ((8, 44), 44)
    """

    __slots__ = ("_index", "_spans", "specs")

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> Layout:
        """Lay out tensors given as (name, dtype, shape).

        Raises:
          ParamsError: params-duplicate-name, params-unknown-dtype, params-bad-header (a name or
            shape that cannot be), params-too-large.
        """
        entries = [(name, dtype, tuple(shape)) for name, dtype, shape in tensors]
        nbytes = [_nbytes(*entry) for entry in entries]
        sizes: dict[str, int] = {}
        for (_, dtype, _), size in zip(entries, nbytes, strict=True):
            sizes[dtype] = sizes.get(dtype, 0) + size
        spans, total = {}, 0
        for dtype in DTYPES:
            if dtype in sizes:
                spans[dtype] = (total, total := total + sizes[dtype])
        if total > TENSOR_BYTES_MAX or len(entries) > TENSORS_MAX:
            raise too_large(f"{len(entries)} tensors of {total} bytes together")
        specs, free = [], {dtype: start for dtype, (start, _) in spans.items()}
        for (name, dtype, shape), size in zip(entries, nbytes, strict=True):
            start = free[dtype]
            stop = free[dtype] = start + size
            specs.append(TensorSpec(name, dtype, shape, start, stop))
        return cls(tuple(specs), spans)

    def __init__(self, specs: tuple[TensorSpec, ...], spans: dict[str, tuple[int, int]]) -> None:
        """Use `Layout.of`; this trusts its arguments."""
        self.specs = specs
        self._spans = spans
        self._index = {spec.name: spec for spec in specs}
        if len(self._index) != len(specs):
            raise ParamsError(
                "params-duplicate-name",
                f"Two tensors have the name {shown(repeated(self.names))}; nothing was laid out.",
                "Give every tensor its own name.",
            )

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Layout) and self.specs == other.specs)

    def __hash__(self) -> int:
        return hash(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __getitem__(self, name: str) -> TensorSpec:
        return self._index[name]

    def __repr__(self) -> str:
        return f"Layout({len(self)} tensors, {self.nbytes:,} bytes: {', '.join(self.dtypes)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order given."""
        return tuple(spec.name for spec in self.specs)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that occur, in body order."""
        return tuple(self._spans)

    @property
    def nbytes(self) -> int:
        """Bytes of the body."""
        return max((stop for _, stop in self._spans.values()), default=0)

    @property
    def float_size(self) -> int:
        """Number of floating-point elements: the length of `Params.vector()`."""
        return sum(stop - start for start, stop in self.float_spans().values())

    def span(self, dtype: str) -> tuple[int, int]:
        """Return the bytes [start, stop) of all tensors of one dtype; (0, 0) if there are none."""
        width(dtype)
        return self._spans.get(dtype, (0, 0))

    def float_spans(self) -> dict[str, tuple[int, int]]:
        """Return the elements [start, stop) of the float vector that each floating dtype fills."""
        spans, total = {}, 0
        for dtype in FLOATS:
            if dtype in self._spans:
                start, stop = self._spans[dtype]
                spans[dtype] = (total, total := total + (stop - start) // width(dtype))
        return spans

    def float_starts(self) -> tuple[int, ...]:
        """Return the first element in the float vector of each floating tensor that has any.

        >>> layout = Layout.of([("w", "F32", (2, 3)), ("n", "I64", ()), ("b", "F64", (3,))])
        >>> layout.float_starts()
        (0, 3)
        """
        begins = {d: (start, self.span(d)[0]) for d, (start, _) in self.float_spans().items()}
        return tuple(
            sorted(
                begins[spec.dtype][0] + (spec.start - begins[spec.dtype][1]) // width(spec.dtype)
                for spec in self.specs
                if spec.dtype in begins and spec.stop > spec.start
            )
        )

    def subset(self, names: Collection[str]) -> Layout:
        """Lay out only the named tensors, in the order of this layout.

        Raises:
          ParamsError: params-mismatch, for a name that is not here.
        """
        wanted = set(names)
        if unknown := sorted(wanted - self._index.keys()):
            raise ParamsError(
                "params-mismatch",
                f"There is no tensor {shown(unknown[0])} among these {len(self)}.",
                f"Choose from {', '.join(map(shown, self.names[:8]))}{' ...' * (len(self) > 8)}.",
            )
        return Layout.of(spec[:3] for spec in self.specs if spec.name in wanted)


def shown(value: object) -> str:
    """Quote a name or value for a message: one short line of ASCII, whatever it holds."""
    text = _REPR.repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 200 else f"{text[:197]}..."


def repeated(names: Iterable[str]) -> str:
    """Return the name that occurs most often."""
    return Counter(names).most_common(1)[0][0]


def is_text(value: object) -> bool:
    """Tell whether a value is text that UTF-8 can carry; half a surrogate pair is not."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def too_large(what: str) -> ParamsError:
    """Return the error for something beyond a limit."""
    return ParamsError(
        "params-too-large",
        f"Refused {what}: beyond the limit; nothing was allocated.",
        "Split the model, or check where it came from; the limits are in hansa/limits.py.",
    )


def _nbytes(name: str, dtype: str, shape: tuple[int, ...]) -> int:
    """Check one tensor; return its bytes."""
    if not is_text(name) or name == METADATA:
        _refuse(f"{shown(name)} cannot be the name of a tensor.")
    if len(name) > NAME_CHARS_MAX:
        raise too_large(f"the name {shown(name)} of {len(name)} characters")
    if len(shape) > RANK_MAX:
        raise too_large(f"the tensor {shown(name)} of {len(shape)} dimensions")
    if not all(type(n) is int and n >= 0 for n in shape):
        _refuse(f"Tensor {shown(name)} has the shape {shown(shape)}; sizes are whole numbers >= 0.")
    if dtype not in DTYPES:
        raise about(name, unknown_dtype(shown(dtype)))
    # A zero among the sizes hides the others from the product, but not from NumPy.
    if math.prod(n or 1 for n in shape) * width(dtype) > TENSOR_BYTES_MAX:
        raise too_large(f"the tensor {shown(name)} of shape {shown(shape)}")
    return math.prod(shape) * width(dtype)


def about(name: str, error: ParamsError) -> ParamsError:
    """Return an error that says which tensor it is about."""
    return ParamsError(error.code, f"Tensor {shown(name)}: {error.happened}", error.hint)


def _refuse(happened: str) -> NoReturn:
    hint = f"Name tensors by text other than {METADATA}, and write them again from their source."
    raise ParamsError("params-bad-header", f"{happened}  Nothing was laid out.", hint)
