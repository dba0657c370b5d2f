"""Arrays that foreign client code returns, in the precision that the model has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def in_given_precision(
    arrays: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return floats in the precision that the model has, and everything else as it is.

    Much code returns float64 for float32, or the other way round, and other servers take it.
    """
    return {
        name: array.astype(given[name].dtype)
        if name in given and array.dtype.kind == given[name].dtype.kind == "f"
        else array
        for name, array in arrays.items()
    }
