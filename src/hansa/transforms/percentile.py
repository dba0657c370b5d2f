"""Only the largest changes leave, and none is larger than a bound.  Shokri and Shmatikov 2015."""

from __future__ import annotations

import math

import numpy as np

from hansa.errors import PlanError
from hansa.transforms.transform import Transform, Wire, require_floats, unchanged, widened


def percentile(share: float = 10.0, bound: float = 0.01) -> Transform:
    """Set the smallest values of an update to 0 and cut the others off at a bound.

    The cutoff is a percentile of the absolute values of all vectors together; those below it are
    set to 0.  This hides small changes; it is not differential privacy, and has no epsilon.  The
    bound holds up to the rounding of each value, as that of `clip` does.

    Args:
      share: q, from 0 to 100: the percentile of |d| below which values are set to 0.
      bound: gamma > 0, the largest absolute value that leaves the client.

    Raises:
      PlanError: an argument is out of range.
      UpdateRefused: from `encode`, a vector holds no floats.
    Source: NVFlare's PercentilePrivacy: cutoff = percentile(|d|, q); d = 0 where |d| < cutoff;
      clip to +-gamma.  Ours differs: steps are not divided out, see `largest` for that.
    """
    if not (0 <= share <= 100 and bound > 0 and math.isfinite(bound)):
        raise PlanError(
            "plan-bad-value",
            f"percentile needs a share from 0 to 100 and a positive bound; the plan says {share!r} "
            f"and {bound!r}.",
            'Use for example { name = "percentile", share = 10, bound = 0.01 }.',
        )
    return Transform("percentile", lambda v, key: largest(v, share, bound), unchanged)


def largest(vectors: Wire, share: float, bound: float, *, steps: float = 1.0) -> Wire:
    """Return vectors with the smallest values set to 0, and the others cut off.

    Args:
      vectors: of any shapes.
      share: percentile, 0 to 100.
      bound: on the absolute value of a change by step.
      steps: that the changes were made in; they are divided out, and multiplied in after.

    Raises:
      UpdateRefused: update-dtype, one of them holds no floats.
    """
    require_floats(vectors, "percentile")
    wide = {name: widened(v) for name, v in vectors.items()}
    if not sum(v.size for v in wide.values()):
        return vectors
    absolute = {name: np.abs(v) / steps for name, v in wide.items()}
    cutoff = np.percentile(np.concatenate([v.ravel() for v in absolute.values()]), share)
    made = {}
    for name, vector in wide.items():
        kept = np.where(absolute[name] < cutoff, 0, vector / steps)
        cut = np.clip(kept, -bound, bound) * steps
        # NaN and infinity stay as they are, so that admission still sees and refuses them.
        made[name] = np.where(np.isfinite(vector), cut, vector).astype(vectors[name].dtype)
    return made
