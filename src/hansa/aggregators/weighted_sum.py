"""The accumulator of rules that are sums: weighted totals in fixed point, and who is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ldexp

import numpy as np

from hansa.aggregators import fixed_point
from hansa.aggregators.admission import check_spec
from hansa.aggregators.aggregator import (
    Aggregate,
    AggregationSpec,
    Contribution,
    Vector,
    VectorSpec,
)
from hansa.aggregators.fixed_point import Integers
from hansa.aggregators.members import Members, bad_partial
from hansa.params import Params


@dataclass(slots=True)
class Sum:
    """One partial sum: int64 `[size]` per bounded vector, `[2, size]` per wide one."""

    spec: AggregationSpec
    members: Members
    totals: dict[str, Integers]


def zero(spec: AggregationSpec) -> Sum:
    """Return the empty sum.

    Raises:
      AggregationError: the spec cannot be summed (aggregation-bad-spec).

    """
    check_spec(spec)
    totals = {
        name: np.zeros(v.size if v.bound is not None else (2, v.size), np.int64)
        for name, v in spec.vectors.items()
    }
    return Sum(spec, Members(spec), totals)


def add(acc: Sum, contribution: Contribution, *, shrink: float = 1.0) -> Sum:
    """Fold one admitted contribution, its bounded vectors times `shrink` in (0, 1], in place."""
    weight = float(contribution.weight)
    acc.members.join(contribution.client, weight)
    vectors, peaks = contribution.vectors, contribution.peaks
    fold_vectors(acc.totals, acc.spec, vectors, weight, shrink=shrink, peaks=peaks)
    return acc


def fold_vectors(
    totals: Mapping[str, Integers],
    spec: AggregationSpec,
    vectors: Mapping[str, Vector],
    weight: float,
    *,
    shrink: float = 1.0,
    peaks: Mapping[str, float] = {},
) -> None:
    """Add weighted vectors to their totals in place; the same with -weight takes them out again.

    Args:
      shrink: factor of the bounded vectors, in (0, 1].
      peaks: greatest magnitude in a vector, before it is shrunk; its bound if it is not known.
    """
    for name, vector in spec.vectors.items():
        if vector.bound is None:
            fixed_point.fold_wide(totals[name], vectors[name], weight)
        else:
            scale = ldexp(weight, fixed_point.point(vector.bound, spec.weight_limit))
            peak = peaks[name] * shrink if name in peaks else vector.bound
            largest = abs(scale) * peak
            fixed_point.fold(totals[name], vectors[name], scale * shrink, largest=largest)


def merge(acc: Sum, other: Sum) -> Sum:
    """Fold a second partial sum of the same round into the first, in place."""
    acc.members.unite(other.members)
    for name, total in acc.totals.items():
        fixed_point.add(total, other.totals[name])
    return acc


def finish(acc: Sum) -> Aggregate:
    """Return the mean: one conversion, whatever the number of clients.  The sum is used up.

    Raises:
      AggregationError: nothing was folded (aggregation-empty).

    """
    acc.members.require_any()
    weight = acc.members.weight
    vectors = means(acc.totals, acc.spec, weight)
    return Aggregate(vectors, float(weight), len(acc.members.clients))


def means(
    totals: dict[str, Integers], spec: AggregationSpec, weight: Fraction
) -> dict[str, Vector]:
    """Return totals over a weight, in the spec's dtypes; the totals are used up."""
    vectors: dict[str, Vector] = {}
    for name, vector in spec.vectors.items():
        if vector.bound is None:
            vectors[name] = fixed_point.wide_mean(totals.pop(name), weight, dtype=vector.dtype)
        else:
            k = fixed_point.point(vector.bound, spec.weight_limit)
            vectors[name] = fixed_point.mean(totals.pop(name), weight, k=k, dtype=vector.dtype)
    return vectors


ROUNDING = Fraction(1, 2**23)
"""How much more than its weight times its bound a contribution may come to, as a share of that.

A client that clips to 0.1 sends float32(0.1), up to 2^-24 more, and admission takes it; what a rule
scales down to a norm is off by some 2^-50, since norm, factor and product are rounded.  Sums have
room for both: all weights times the bound are 2^62 units at most, which with this share, and a unit
for each client, stays far below the 2^63 of an int64, in whatever parts it is merged.
"""


def _possible(total: Integers, members: Members, spec: VectorSpec) -> bool:
    """Return whether contributions of these weights, within their bound, can add up to a total.

    What is greater could overflow the sum that it is merged into.
    """
    if not total.size:
        return True
    largest, rounding = max(int(total.max()), -int(total.min())), len(members.clients)
    limit = members.spec.weight_limit
    if spec.bound is not None:
        k = fixed_point.point(spec.bound, limit)
        exact = members.weight * Fraction(spec.bound) * Fraction(2) ** k
        return largest <= exact * (1 + ROUNDING) + rounding
    high, low = total
    if int(low.min()) < 0 or int(low.max()) >= fixed_point.LOW_ONE:
        return False
    largest = max(int(high.max()), -int(high.min()))
    # Nothing scales these down, and their bound is a power of two: no product is rounded past it.
    return largest <= members.weight * Fraction(fixed_point.wide_bound(limit)) + rounding


def dump(acc: Sum) -> Params:
    """Return the partial sum as tensors; equal sets of contributions give equal bytes."""
    return Params.of(acc.totals, metadata=acc.members.dump())


def load(spec: AggregationSpec, params: Params) -> Sum:
    """Return the partial sum that `dump` wrote.

    Raises:
      AggregationError: it belongs to another spec or is damaged (aggregation-bad-partial).

    """
    acc = zero(spec)
    acc.members.load(params.metadata)
    for name, total in acc.totals.items():
        found = params.get(name)
        if found is None or (found.dtype, found.shape) != (total.dtype, total.shape):
            raise bad_partial(f"no int64 total of shape {total.shape} for vector {name!r}")
        total[...] = found
        if not _possible(total, acc.members, acc.spec.vectors[name]):
            raise bad_partial(f"totals of vector {name!r} that its weights cannot come to")
    return acc
