"""Clipping of a whole update to an L2 norm, as in Abadi et al. 2016 and McMahan et al. 2018."""

from __future__ import annotations

import math

import numpy as np

from hansa.errors import PlanError
from hansa.seeds import Key
from hansa.transforms.transform import Transform, Wire, unchanged


def clip(norm: float) -> Transform:
    """Scale an update by min(1, norm / |update|), over all its vectors together.

    This bounds one client's influence; without noise and an accountant it is not differential
    privacy.

    Args:
      norm: C > 0, the largest L2 norm that leaves the client.

    Raises:
      PlanError: `norm` is not a positive finite number.
    """
    if not (math.isfinite(norm) and norm > 0):
        raise PlanError(
            "plan-bad-value",
            f"clip needs a positive norm; the plan says {norm!r}.",
            'Use for example { name = "clip", norm = 1.0 }.',
        )

    def encode(vectors: Wire, key: Key) -> Wire:
        squares = sum(float(np.sum(np.square(v, dtype=np.float64))) for v in vectors.values())
        factor = norm / math.sqrt(squares) if squares > norm * norm else 1.0
        # NaN stays NaN (no comparison is true), so admission still sees and refuses it.
        if factor == 1.0:
            return vectors
        return {name: (v * factor).astype(v.dtype) for name, v in vectors.items()}

    return Transform("clip", encode, unchanged)
