"""The accumulator of rules that are not sums: it keeps every contribution until the end.

It keeps references, not copies, so vectors may be memory-mapped files of any size; rules read them
in blocks.  `finish` sees them sorted by client id, whatever order they came in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hansa.aggregators.admission import admit, check_spec
from hansa.aggregators.aggregator import (
    Aggregate,
    AggregationSpec,
    Aggregator,
    Contribution,
    Vector,
)
from hansa.aggregators.members import Members, bad_partial
from hansa.errors import UpdateRefused
from hansa.limits import STACK_BYTES
from hansa.params import Params

Rule = Callable[[AggregationSpec, Sequence[Contribution]], dict[str, Vector]]
"""Contributions in canonical order, at least one, to the vectors of the result."""


@dataclass(slots=True)
class Collected:
    """Contributions by client."""

    spec: AggregationSpec
    members: Members
    contributions: dict[str, Contribution] = field(default_factory=dict)


def aggregator(name: str, rule: Rule, *, needs: int = 1) -> Aggregator:
    """Build an aggregator from a rule over all contributions, of which it needs so many."""

    def finish(acc: Collected) -> Aggregate:
        acc.members.require_any()
        vectors = rule(acc.spec, _in_order(acc))
        return Aggregate(vectors, float(acc.members.weight), len(acc.contributions))

    return Aggregator(
        name,
        linear=False,
        streaming=False,
        zero=zero,
        add=add,
        merge=merge,
        finish=finish,
        dump=dump,
        load=load,
        needs=needs,
    )


def zero(spec: AggregationSpec) -> Collected:
    """Return the empty collection."""
    check_spec(spec)
    return Collected(spec, Members(spec))


def add(acc: Collected, contribution: Contribution) -> Collected:
    """Keep one admitted contribution."""
    acc.members.join(contribution.client, float(contribution.weight))
    acc.contributions[contribution.client] = contribution
    return acc


def merge(acc: Collected, other: Collected) -> Collected:
    """Keep the contributions of a second collection too."""
    acc.members.unite(other.members)
    acc.contributions |= other.contributions
    return acc


def dump(acc: Collected) -> Params:
    """Return all contributions as tensors, copied once: as large as all updates together."""
    kept = _in_order(acc)
    arrays = {
        f"{i}/{name}": c.vectors[name] for i, c in enumerate(kept) for name in acc.spec.vectors
    }
    weights = json.dumps([float(c.weight) for c in kept])
    return Params.of(arrays, metadata={**acc.members.dump(), "weights": weights})


def load(spec: AggregationSpec, params: Params) -> Collected:
    """Return the collection that `dump` wrote; vectors are views of its buffer.

    Raises:
      AggregationError: it belongs to another spec or is damaged (aggregation-bad-partial).

    """
    acc, members = zero(spec), Members(spec)
    members.load(params.metadata)
    try:
        weights = json.loads(params.metadata["weights"])
        for i, (client, weight) in enumerate(zip(sorted(members.clients), weights, strict=True)):
            vectors = {name: params[f"{i}/{name}"] for name in spec.vectors}
            add(acc, admit(Contribution(client, vectors, weight), spec))
    except (KeyError, TypeError, ValueError, UpdateRefused) as reason:
        raise bad_partial(f"a damaged update ({reason})") from None
    if acc.members != members:
        raise bad_partial("updates that do not add up to its weight")
    return acc


def stacks(
    contributions: Sequence[Contribution], name: str, *, dtype: str
) -> Iterator[tuple[slice, Vector]]:
    """Yield (where, rows) over one vector: rows `[clients, where]`, overwritten each time."""
    vectors = [contribution.vectors[name] for contribution in contributions]
    size = vectors[0].size
    width = max(1, STACK_BYTES // (len(vectors) * np.dtype(dtype).itemsize))
    stack = np.empty((len(vectors), min(width, size)), dtype)
    for start in range(0, size, width):
        where = slice(start, min(start + width, size))
        rows = stack[:, : where.stop - start]
        for row, vector in zip(rows, vectors, strict=True):
            row[...] = vector[where]
        yield where, rows


def _in_order(acc: Collected) -> list[Contribution]:
    return [acc.contributions[client] for client in sorted(acc.contributions)]
