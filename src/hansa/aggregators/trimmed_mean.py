"""Coordinate-wise trimmed mean.  Yin et al. 2018, Definition 2."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np

from hansa.aggregators.aggregator import AggregationSpec, Aggregator, Contribution, Vector
from hansa.aggregators.collected import aggregator, stacks
from hansa.aggregators.settings import require, require_updates


def trimmed_mean(fraction: float) -> Aggregator:
    """Build the mean of each coordinate without its largest and smallest values.

    Of n updates, floor(fraction * n) are dropped at either end of every coordinate.  Unweighted, as
    in the paper: a weight is a claim of the client, and trimming by claims would not be robust.

    Args:
      fraction: beta in [0, 1/2); at least the fraction of faulty clients.

    """
    require(0 <= fraction < 0.5, "fraction", fraction, "a number from 0 to below 0.5")
    # As written in decimal: 0.29 * 100 is a little less than 29 in binary.
    exact = Fraction(str(fraction))

    def rule(spec: AggregationSpec, contributions: Sequence[Contribution]) -> dict[str, Vector]:
        n = len(contributions)
        cut = floor(exact * n)
        require_updates(n, 2 * cut + 1, f"trimming {cut} at either end")
        return sorted_mean(spec, contributions, slice(cut, n - cut))

    return aggregator("trimmed_mean", rule)


def sorted_mean(
    spec: AggregationSpec, contributions: Sequence[Contribution], ranks: slice
) -> dict[str, Vector]:
    """Return, for every coordinate, the mean of the values that have these ranks."""
    means = {}
    for name, vector in spec.vectors.items():
        means[name] = np.empty(vector.size, vector.dtype)
        for where, rows in stacks(contributions, name, dtype=vector.dtype):
            # Sorting along contiguous memory is several times faster than down the stacks.
            values = np.ascontiguousarray(rows.T)
            values.sort(axis=1)
            # Added one rank after the other, not by sum(): the order is ours on every machine.
            # From +0.0, so that it does not matter how sort() orders -0.0 and 0.0.
            total = np.zeros(len(values))
            for rank in range(ranks.start, ranks.stop):
                total += values[:, rank]
            means[name][where] = total / (ranks.stop - ranks.start)
    return means
