"""The mean of updates that are first scaled down to a norm.

Source: Sun et al. 2019, "Can you really backdoor federated learning?", norm thresholding; here the
mean is weighted.
"""

from __future__ import annotations

import math

import numpy as np

from hansa.aggregators import weighted_sum
from hansa.aggregators.admission import check_spec
from hansa.aggregators.aggregator import (
    AggregationSpec,
    Aggregator,
    Contribution,
    Vector,
    VectorSpec,
)
from hansa.aggregators.fixed_point import blocks
from hansa.aggregators.settings import require
from hansa.limits import BLOCK_VALUES
from hansa.params import Params


def norm_bounded_mean(norm_limit: float) -> Aggregator:
    """Build the mean of `x_i * min(1, norm_limit / |x_i|)`.

    |x_i| is the L2 norm of all bounded vectors of one update together; wide vectors (statistics)
    are averaged as they are.  No client moves the mean by more than its share of `norm_limit`,
    however large its update.  Not linear: the server must see each norm, so updates cannot stay
    masked; let clients clip themselves for that.

    Args:
      norm_limit: C > 0.

    """
    require(0 < norm_limit < math.inf, "norm_limit", norm_limit, "a positive number")

    def tightened(spec: AggregationSpec) -> AggregationSpec:
        # No value exceeds the norm: its bits above the point are better spent below it.
        return spec._replace(
            vectors={name: _tightened(v, norm_limit) for name, v in spec.vectors.items()}
        )

    def zero(spec: AggregationSpec) -> weighted_sum.Sum:
        check_spec(spec)
        return weighted_sum.zero(tightened(spec))

    def add(acc: weighted_sum.Sum, contribution: Contribution) -> weighted_sum.Sum:
        norm = math.sqrt(
            math.fsum(
                _square_sum(contribution.vectors[name])
                for name, v in acc.spec.vectors.items()
                if v.bound is not None
            )
        )
        shrink = norm_limit / norm if norm > norm_limit else 1.0
        return weighted_sum.add(acc, contribution, shrink=shrink)

    def load(spec: AggregationSpec, params: Params) -> weighted_sum.Sum:
        return weighted_sum.load(tightened(spec), params)

    return Aggregator(
        "norm_bounded_mean",
        linear=False,
        streaming=True,
        zero=zero,
        add=add,
        merge=weighted_sum.merge,
        finish=weighted_sum.finish,
        dump=weighted_sum.dump,
        load=load,
    )


def _tightened(spec: VectorSpec, norm_limit: float) -> VectorSpec:
    return spec if spec.bound is None else spec._replace(bound=min(spec.bound, norm_limit))


def _square_sum(x: Vector) -> float:
    """Return |x|^2 in float64; blocks and their order are fixed, so equal bytes give equal sums."""
    scratch = np.empty(min(x.size, BLOCK_VALUES), np.float64)
    parts = []
    for block in blocks(x.size):
        part = scratch[: block.stop - block.start]
        part[...] = x[block]
        parts.append(float(np.square(part, out=part).sum()))
    return math.fsum(parts)
