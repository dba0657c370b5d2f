"""The weighted mean of the latest contribution of each client, exact however often one is replaced.

A client's second contribution takes the place of its first: what was added is subtracted, with the
weight of that time, and the new one is added.  Sums are integers (see `fixed_point`), so what is
left is what would be there had the first never come: after any number of replacements, in any
order, the bytes are those of a fresh sum of the latest contributions.

The binary point of the sum is itself a function of the latest contributions: of their total weight
and their largest value.  Where that moves it, the sum is made anew from what is kept of each.

    >>> import numpy as np
    >>> kept = {}
    >>> latest = Latest(lambda client, number: kept[client, number])
    >>> def commit(number, client, value, weight):
    ...     kept[client, number] = {"x": np.array([value], "float32")}
    ...     latest.replace(Contribution(client, kept[client, number], weight), number)
    ...     return latest.mean().vectors["x"].tolist()
    >>> [commit(n, c, v, 100) for n, (c, v) in enumerate([("a", 1), ("b", 3), ("a", 1), ("b", 3)])]
    [[1.0], [2.0], [2.0], [2.0]]

Source: FedRec of MetisFL, the rolling sum `W <- W - p_old m_old + p_new m_new`.  Ours differs: what
is subtracted is what was added, to the bit, and the sum is divided by the weights in it, at the
first contribution too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from hansa.aggregators import weighted_sum
from hansa.aggregators.aggregator import (
    Aggregate,
    AggregationSpec,
    Contribution,
    Vector,
    VectorSpec,
)
from hansa.aggregators.fixed_point import Integers, ceil_log2
from hansa.limits import UPDATE_BOUND_MIN

WIDE = ("buffers",)
"""Names of vectors that are summed in 126 bits: few values of any magnitude."""


class Entry(NamedTuple):
    """What is in the sum of one client."""

    number: int  # under which its vectors are kept
    weight: float  # of that time
    largest: float  # absolute value


Load = Callable[[str, int], Mapping[str, Vector]]
"""Gives the vectors of a client that were kept under a number; called for one client at a time."""


class Latest:
    """A sum in which each client is once, with its latest contribution.

    Memory is one accumulator, whatever the number of clients.

    Args:
      load: gives back what was kept of a client.
      entries: what is in the sum already, by client.
    """

    def __init__(self, load: Load, entries: Mapping[str, Entry] | None = None) -> None:
        self._load = load
        self.entries = dict(entries or {})
        self._spec: AggregationSpec | None = None
        self._totals: dict[str, Integers] = {}

    def replace(self, contribution: Contribution, number: int) -> None:
        """Let a contribution, which has been kept under a number, take its client's place."""
        client, vectors, weight = contribution.client, contribution.vectors, contribution.weight
        before = self.entries.get(client)
        self.entries[client] = Entry(number, float(weight), largest_of(vectors))
        spec = spec_of(vectors, self.entries.values())
        if spec != self._spec:
            self._spec = None  # made anew when the mean is wanted
            return
        if before is not None:
            old = self._load(client, before.number)
            weighted_sum.fold_vectors(self._totals, spec, old, -before.weight)
        weighted_sum.fold_vectors(self._totals, spec, vectors, float(weight))

    def mean(self) -> Aggregate:
        """Return the weighted mean of every client's latest contribution; the sum stays."""
        if self._spec is None:
            self._sum_anew()
        assert self._spec is not None  # there is an entry, or nothing could be asked for
        weight = sum((Fraction(entry.weight) for entry in self.entries.values()), Fraction(0))
        totals = {name: total.copy() for name, total in self._totals.items()}
        vectors = weighted_sum.means(totals, self._spec, weight)
        return Aggregate(vectors, float(weight), len(self.entries))

    def _sum_anew(self) -> None:
        for client, entry in self.entries.items():
            vectors = self._load(client, entry.number)
            if self._spec is None:
                self._spec = spec_of(vectors, self.entries.values())
                self._totals = weighted_sum.zero(self._spec).totals
            weighted_sum.fold_vectors(self._totals, self._spec, vectors, entry.weight)


def spec_of(vectors: Mapping[str, Vector], entries: Collection[Entry]) -> AggregationSpec:
    """Return the spec of a sum of these entries, whose vectors are like the given ones."""
    bound = 2.0 ** ceil_log2(max(UPDATE_BOUND_MIN, *(entry.largest for entry in entries)))
    limit = 2.0 ** ceil_log2(max(1.0, float(sum(Fraction(entry.weight) for entry in entries))))
    specs = {
        name: VectorSpec(v.size, str(v.dtype), None if name in WIDE else bound)
        for name, v in vectors.items()
    }
    return AggregationSpec(specs, limit)


def largest_of(vectors: Mapping[str, Vector]) -> float:
    """Return the largest absolute value of the vectors that are summed with a bound."""
    values = [np.asarray(v) for name, v in vectors.items() if name not in WIDE]
    return max((float(np.max(np.abs(v), initial=0.0)) for v in values), default=0.0)
