"""Values that do not leave: those of named tensors are sent as no change at all."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

import numpy as np

from hansa.transforms.transform import Wire


def without(vectors: Wire, spans: Iterable[tuple[str, int, int]], patterns: Iterable[str]) -> Wire:
    """Return vectors with the values of some tensors set to 0.

    Args:
      vectors: flat ones that are as long as the model, or tensors by their own names.
      spans: name, start and stop of each trained tensor in them.
      patterns: of names, such as "head.*".
    """
    spans, wanted = list(spans), tuple(patterns)
    size = max((stop for _, _, stop in spans), default=0)
    hidden = [
        (start, stop)
        for name, start, stop in spans
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
    ]
    made = dict(vectors)
    for name, vector in vectors.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted):
            made[name] = np.zeros_like(vector)
        elif vector.ndim == 1 and vector.size == size and hidden:
            made[name] = np.array(vector)
            for start, stop in hidden:
                made[name][start:stop] = 0
    return made
