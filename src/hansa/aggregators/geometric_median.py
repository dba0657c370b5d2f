"""Geometric median by smoothed Weiszfeld.  Pillutla et al. 2022 (RFA), Alg. 2.

Minimises sum alpha_i |v - x_i| with alpha_i = w_i / sum w:
    v <- sum beta_i x_i / sum beta_i,   beta_i = alpha_i / max(nu, |v - x_i|)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hansa.aggregators.aggregator import AggregationSpec, Aggregator, Contribution, Vector
from hansa.aggregators.collected import aggregator
from hansa.aggregators.distances import squared_distances
from hansa.aggregators.fixed_point import Floats
from hansa.aggregators.mean import mean_of
from hansa.aggregators.settings import require

ITERATIONS_MAX = 1_000
"""Tens are usual, and one costs only n^2 operations.  Updates that lie nearly on a line need most;
after this many, the objective is within about 1e-4 of its least value."""
TOLERANCE = 1e-12
"""Largest change of a share at which iteration stops."""


def geometric_median(smoothing: float = 1e-6) -> Aggregator:
    """Build the weighted geometric median over all bounded vectors joined.

    Wide vectors (statistics, counters) have no say in the distances, and get the mean under the
    same shares.

    Holds while honest clients have more than half of the *weight*; weigh uniformly where a client
    could lie about its number of examples.

    Ours differs from the paper: v is always a weighted mean of the x_i, so the iteration runs on
    the n shares and the n x n distances alone, reads the updates twice in all, and can go on until
    it has converged; the paper stops after a few passes over the clients.

    Args:
      smoothing: nu > 0, the distance below which an update pulls no harder.

    """
    require(0 < smoothing < math.inf, "smoothing", smoothing, "a positive number")

    def rule(spec: AggregationSpec, contributions: Sequence[Contribution]) -> dict[str, Vector]:
        weights = np.array([float(c.weight) for c in contributions])
        squares = squared_distances(spec, contributions)
        return mean_of(spec, contributions, _shares(squares, weights, smoothing).tolist())

    return aggregator("geometric_median", rule)


def _shares(squares: Floats, weights: Floats, smoothing: float) -> Floats:
    """Return the shares s, adding up to 1, whose mean v = sum s_i x_i is the median."""
    alpha = shares = weights / math.fsum(weights)
    for _ in range(ITERATIONS_MAX):
        beta = alpha / np.maximum(smoothing, _distances(squares, shares))
        before, shares = shares, beta / math.fsum(beta)
        if np.abs(shares - before).max() <= TOLERANCE:
            break
    return shares


def _distances(squares: Floats, shares: Floats) -> Floats:
    """Return |v - x_j| for v = sum s_i x_i.

    |v - x_j|^2 = sum_i s_i d_ij^2 - 1/2 sum_ik s_i s_k d_ik^2.  Sums, not products of matrices,
    whose bytes depend on the processor.
    """
    to_each = (squares * shares).sum(axis=1)
    spread = (to_each * shares).sum() / 2
    distances: Floats = np.sqrt(np.maximum(to_each - spread, 0.0))
    return distances
