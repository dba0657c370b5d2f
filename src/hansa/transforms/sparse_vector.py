"""The sparse vector technique: which values leave is noisy too.  Dwork and Roth 2014, Alg. 2."""

from __future__ import annotations

import math

import numpy as np

from hansa.errors import PlanError
from hansa.seeds import Key
from hansa.transforms.transform import Transform, Wire, require_floats, unchanged, widened


def sparse_vector(
    fraction: float = 0.1,
    epsilon: float = 0.1,
    noise: float = 0.1,
    bound: float = 1e-5,
    threshold: float = 1e-6,
) -> Transform:
    """Let a share of an update's values leave: those above a noisy threshold, with noise.

    Each is told of an update as one answer of the technique: queries |d_i|, at most c of which are
    answered above the threshold; answered ones get noise of their own.  What is promised holds for
    one update of one round; no accountant adds rounds up, so it is not called differential privacy.
    In a plan the noise is drawn from the run's seed, which the server knows: it hides values from
    others alone.  As a filter of a site's policy it is drawn in secret.

    Args:
      fraction: of the n values that leave at most: c = ceil(fraction * n).
      epsilon: e1, of the threshold; that of the queries is e2 = e1 (2 c)^(2/3).
      noise: e3, of the values that leave.
      bound: gamma, to which values are clipped: the sensitivity.
      threshold: tau.

    Raises:
      PlanError: an argument is out of range.
      UpdateRefused: from `encode`, a vector holds no floats.
    Source: Lyu, Su and Li 2017, Alg. 1, as NVFlare's SVTPrivacy has it: tau + Lap(gamma / e1),
      queries + Lap(2 gamma c / e2), released values + Lap(2 gamma c / e3).  Ours differs: the
      queries are asked once, in an order that is drawn, and the first c above leave.
    """
    values = {"epsilon": epsilon, "noise": noise, "bound": bound, "fraction": fraction}
    wrong = [name for name, v in values.items() if not (math.isfinite(v) and v > 0)]
    if wrong or fraction > 1 or not math.isfinite(threshold):
        raise PlanError(
            "plan-bad-value",
            f"sparse_vector needs positive numbers, and a fraction up to 1; {wrong or 'fraction'} "
            "is none.",
            'Use for example { name = "sparse_vector", fraction = 0.1, epsilon = 0.1 }.',
        )

    def encode(vectors: Wire, key: Key) -> Wire:
        return sparse(
            vectors, key.generator(), fraction, (epsilon, noise), bound=bound, threshold=threshold
        )

    return Transform("sparse_vector", encode, unchanged)


def sparse(
    vectors: Wire,
    rng: np.random.Generator,
    fraction: float,
    epsilons: tuple[float, float],
    *,
    bound: float,
    threshold: float,
) -> Wire:
    """Return vectors of any shapes with all values 0 but those that the technique lets leave.

    Raises:
      UpdateRefused: update-dtype, one of them holds no floats.
    """
    require_floats(vectors, "sparse_vector")
    wide = {name: widened(v) for name, v in vectors.items()}
    if not sum(v.size for v in wide.values()):
        return vectors
    flat = np.concatenate([v.ravel().astype(np.float64) for v in wide.values()])
    clipped = np.clip(flat, -bound, bound)
    # 0.07 * 100 is a little more than 7, and means 7.
    count = max(1, math.ceil(round(fraction * flat.size, 6)))
    first, third = epsilons
    second = first * (2.0 * count) ** (2.0 / 3.0)
    above = threshold + rng.laplace(scale=bound / first)
    queries = np.abs(clipped) + rng.laplace(scale=2 * bound * count / second, size=flat.size)
    order = rng.permutation(flat.size)
    leaving = order[queries[order] >= above][:count]
    made = np.zeros_like(flat)
    released = rng.laplace(scale=2 * bound * count / third, size=len(leaving))
    made[leaving] = clipped[leaving] + released
    out: dict[str, np.ndarray] = {}
    start = 0
    for name, vector in wide.items():
        part = made[start : start + vector.size]
        # NaN and infinity stay as they are, so that admission still sees and refuses them.
        passed = np.where(np.isfinite(vector), part.reshape(vector.shape), vector)
        out[name] = passed.astype(vectors[name].dtype)
        start += vector.size
    return out
