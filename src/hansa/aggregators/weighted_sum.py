"""The accumulator of rules that are sums: weighted totals in fixed point, and who is in them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ldexp

import numpy as np

from hansa.aggregators import fixed_point
from hansa.aggregators.admission import check_spec
from hansa.aggregators.aggregator import Aggregate, AggregationSpec, Contribution, VectorSpec
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
    for name, spec in acc.spec.vectors.items():
        total, x = acc.totals[name], contribution.vectors[name]
        if spec.bound is None:
            fixed_point.fold_wide(total, x, weight)
        else:
            scale = ldexp(weight, fixed_point.point(spec.bound, acc.spec.weight_limit))
            fixed_point.fold(total, x, scale * shrink, largest=scale * spec.bound)
    return acc


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
    vectors = {}
    for name, spec in acc.spec.vectors.items():
        if spec.bound is None:
            vectors[name] = fixed_point.wide_mean(acc.totals.pop(name), weight, dtype=spec.dtype)
        else:
            k = fixed_point.point(spec.bound, acc.spec.weight_limit)
            vectors[name] = fixed_point.mean(acc.totals.pop(name), weight, k=k, dtype=spec.dtype)
    return Aggregate(vectors, float(weight), len(acc.members.clients))


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
        return largest <= members.weight * Fraction(spec.bound) * Fraction(2) ** k + rounding
    high, low = total
    if int(low.min()) < 0 or int(low.max()) >= fixed_point.LOW_ONE:
        return False
    largest = max(int(high.max()), -int(high.min()))
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
