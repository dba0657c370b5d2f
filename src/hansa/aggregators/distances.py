"""Distances between whole updates, for rules that judge a client by its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hansa.aggregators.aggregator import AggregationSpec, Contribution
from hansa.aggregators.collected import stacks
from hansa.aggregators.fixed_point import Floats


def squared_distances(spec: AggregationSpec, contributions: Sequence[Contribution]) -> Floats:
    """Return `|x_i - x_j|^2` over all bounded vectors, float64 `[n, n]`, in canonical order.

    Wide vectors do not count: the millions of a BatchNorm counter would drown the model's
    differences, and whoever saw fewest batches would be chosen.

    Differences are squared and added in blocks of fixed size.  The matrix product
    `|x|^2 + |y|^2 - 2xy` would be faster for many clients, but its bytes depend on threads and
    processor, and it loses near neighbours of large vectors to cancellation.
    """
    n = len(contributions)
    squares = np.zeros((n, n))
    for name in (name for name, v in spec.vectors.items() if v.bound is not None):
        for _, rows in stacks(contributions, name, dtype="float64"):
            scratch = np.empty_like(rows)
            for i in range(n - 1):
                apart = np.subtract(rows[i + 1 :], rows[i], out=scratch[i + 1 :])
                squares[i, i + 1 :] += np.square(apart, out=apart).sum(axis=1)
    return squares + squares.T
