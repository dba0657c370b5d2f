"""Clipping of a whole update to an L2 norm, as in Abadi et al. 2016 and McMahan et al. 2018."""

from __future__ import annotations

import math

import numpy as np

from hansa.errors import PlanError
from hansa.seeds import Key
from hansa.transforms.transform import Transform, Wire, unchanged, unfit, widened


def clip(norm: float) -> Transform:
    """Scale an update by min(1, norm / |update|), over all its vectors together.

    This bounds one client's influence; without noise and an accountant it is not differential
    privacy.  Buffers do not pass through transforms, so they are not clipped.

    The norm holds up to the rounding of each value: 2^-24 of it in float32, and 2^-8 (bf16) or
    2^-11 (fp16) beside a `cast`, which may exceed `norm` by so much.  Let `clip` be the last
    transform, or the last before `cast`: what others do after it is not bounded.  Integers are cut
    towards 0.

    Args:
      norm: C > 0, the largest L2 norm that leaves the client.

    Raises:
      PlanError: `norm` is not a positive finite number.
      UpdateRefused: from `encode`, a vector holds booleans, half of which is no boolean.
    """
    if not (math.isfinite(norm) and norm > 0):
        raise PlanError(
            "plan-bad-value",
            f"clip needs a positive norm; the plan says {norm!r}.",
            'Use for example { name = "clip", norm = 1.0 }.',
        )

    def encode(vectors: Wire, key: Key) -> Wire:
        for name, v in vectors.items():
            if v.dtype.kind == "b":
                raise unfit("clip", name, v)
        length = _length(vectors)
        # NaN and infinity stay as they are, so that admission still sees and refuses them.
        if not norm < length < math.inf:
            return vectors
        factor = norm / length
        return {name: (widened(v) * factor).astype(v.dtype) for name, v in vectors.items()}

    return Transform("clip", encode, unchanged)


def _length(vectors: Wire) -> float:
    """Return the L2 norm over all vectors, in float64."""
    with np.errstate(over="ignore"):
        squares = sum(float(np.sum(np.square(v, dtype=np.float64))) for v in vectors.values())
    if squares < math.inf or math.isnan(squares):
        return math.sqrt(squares)
    # Squares of float64 values can overflow though their norm does not.
    largest = max(float(np.max(np.abs(v), initial=0.0)) for v in vectors.values())
    if largest == math.inf:
        return math.inf
    return largest * _length({name: v / largest for name, v in vectors.items()})
