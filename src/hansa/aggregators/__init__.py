"""Turning updates into one: monoids whose result depends on the set of updates alone."""

from hansa.aggregators.admission import admit
from hansa.aggregators.aggregator import (
    Aggregate,
    AggregationSpec,
    Aggregator,
    Contribution,
    VectorSpec,
)
from hansa.aggregators.geometric_median import geometric_median
from hansa.aggregators.krum import krum, multi_krum
from hansa.aggregators.mean import mean
from hansa.aggregators.median import median
from hansa.aggregators.norm_bounded_mean import norm_bounded_mean
from hansa.aggregators.trimmed_mean import trimmed_mean

AGGREGATORS = {
    "mean": mean,
    "norm_bounded_mean": norm_bounded_mean,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "geometric_median": geometric_median,
}
"""What `aggregator = "..."` in a plan may name: a value, or a function that makes one."""

__all__ = [
    "AGGREGATORS",
    "Aggregate",
    "AggregationSpec",
    "Aggregator",
    "Contribution",
    "VectorSpec",
    "admit",
    "geometric_median",
    "krum",
    "mean",
    "median",
    "multi_krum",
    "norm_bounded_mean",
    "trimmed_mean",
]
