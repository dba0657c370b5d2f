"""What happens to an update on its way out, in two halves: encode at the client, decode after.

`chain` joins transforms and decodes in reverse.

    encode:  vectors --clip--> vectors --cast--> vectors on the wire
    decode:  vectors <--clip-- vectors <--cast-- vectors on the wire

Only the vectors that an algorithm sends pass through.  A model's buffers (BatchNorm statistics,
counters) travel as they are: neither clipped nor narrowed.

Both halves are pure; a random one (noise, rounding) takes its key as an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from hansa.errors import UpdateRefused
from hansa.params.dtypes import Array, is_float
from hansa.seeds import Key

Wire = Mapping[str, np.ndarray]
"""Vectors of one update by name, each 1-D."""


class Transform(NamedTuple):
    """One step of a chain.

    `encode(vectors, key)` and `decode(vectors)` return new vectors and leave their input alone.
    """

    name: str
    encode: Callable[[Wire, Key], Wire]
    decode: Callable[[Wire], Wire]


def unchanged(vectors: Wire) -> Wire:
    """Decode half of a transform that has nothing to undo."""
    return vectors


def widened(vector: Array) -> Array:
    """Return a vector to compute with: 16-bit floats as float32, in which they are exact."""
    half = vector.dtype.itemsize == 2 and is_float(vector.dtype)
    return vector.astype(np.float32) if half else vector


def require_floats(vectors: Wire, transform: str) -> None:
    """Refuse what a transform that has something to say of floats alone would leave as it is.

    Raises:
      UpdateRefused: update-dtype.
    """
    for name, vector in vectors.items():
        if not is_float(vector.dtype):
            raise unfit(transform, name, vector)


def unfit(transform: str, name: str, vector: Array) -> UpdateRefused:
    """Return the refusal of a vector that a transform can do nothing to."""
    return UpdateRefused(
        "update-dtype",
        f"{transform} cannot change {name!r}, which holds {vector.dtype} and would leave as it is. "
        "Nothing was sent.",
        f"Put {transform} before what makes such values, or send them as float32.",
    )


def chain(*transforms: Transform) -> Transform:
    """Return the transforms in this order as one; decoding runs backwards."""

    def encode(vectors: Wire, key: Key) -> Wire:
        for position, transform in enumerate(transforms):
            vectors = transform.encode(vectors, key.child(position, transform.name))
        return vectors

    def decode(vectors: Wire) -> Wire:
        for transform in reversed(transforms):
            vectors = transform.decode(vectors)
        return vectors

    return Transform(" > ".join(t.name for t in transforms) or "identity", encode, decode)
