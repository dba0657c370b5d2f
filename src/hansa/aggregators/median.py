"""Coordinate-wise median.  Yin et al. 2018, Definition 1."""

from __future__ import annotations

from collections.abc import Sequence

from hansa.aggregators.aggregator import AggregationSpec, Contribution, Vector
from hansa.aggregators.collected import aggregator
from hansa.aggregators.trimmed_mean import sorted_mean


def _rule(spec: AggregationSpec, contributions: Sequence[Contribution]) -> dict[str, Vector]:
    n = len(contributions)
    return sorted_mean(spec, contributions, slice((n - 1) // 2, n // 2 + 1))


median = aggregator("median", _rule)
"""The middle of the sorted values of each coordinate; of an even number, the mean of the two.

Holds against fewer than half of the clients.  Unweighted, as in the paper.
"""
