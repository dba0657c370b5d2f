"""The weighted mean, exact in any order.  McMahan et al. 2017, Alg. 1: sum n_i x_i / sum n_i.

The weight comes with each contribution: examples, steps, 1 for a uniform mean, or a user's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from hansa.aggregators import weighted_sum
from hansa.aggregators.aggregator import AggregationSpec, Aggregator, Contribution, Vector

mean = Aggregator(
    "mean",
    linear=True,
    streaming=True,
    zero=weighted_sum.zero,
    add=weighted_sum.add,
    merge=weighted_sum.merge,
    finish=weighted_sum.finish,
    dump=weighted_sum.dump,
    load=weighted_sum.load,
)
"""Its error is at most n/2 units of 2^-k before the division by sum w (see `fixed_point`).

Where the average weight is weight_limit / 2^b, that is bound / 2^(63-b): float64's precision for a
cohort of a thousand equal clients, whatever the order.
"""


def mean_of(
    spec: AggregationSpec, contributions: Sequence[Contribution], shares: Sequence[float]
) -> dict[str, Vector]:
    """Return the mean under other weights than the contributions' own; `shares` add up to 1."""
    acc = mean.zero(spec)
    for contribution, share in zip(contributions, shares, strict=True):
        # Half the limit leaves room for the rounding of the shares.
        acc = mean.add(acc, contribution._replace(weight=share * spec.weight_limit / 2))
    return mean.finish(acc).vectors
