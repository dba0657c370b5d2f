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
