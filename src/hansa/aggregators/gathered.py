"""Every update by itself, beside what another rule makes of them.

For whoever combines updates in a way of their own, and wants the plan's own result to fall back on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hansa.aggregators.aggregator import (
    Aggregate,
    AggregationSpec,
    Aggregator,
    Contribution,
    Vector,
)
from hansa.aggregators.collected import aggregator

_WEIGHT = "weight"


def gathered(rule: Aggregator) -> Aggregator:
    """Return a rule whose result holds each client's vectors as `client/name`, besides `rule`'s.

    Args:
      rule: the plan's own.
    """

    def both(spec: AggregationSpec, contributions: Sequence[Contribution]) -> dict[str, Vector]:
        acc = rule.zero(spec)
        for contribution in contributions:
            acc = rule.add(acc, contribution)
        found = dict(rule.finish(acc).vectors)
        for one in contributions:
            found[f"{one.client}/{_WEIGHT}"] = np.array([float(one.weight)])
            found |= {f"{one.client}/{name}": one.vectors[name] for name in spec.vectors}
        return found

    return aggregator(f"{rule.name}, each update beside it", both, needs=rule.needs)


def apart(aggregate: Aggregate) -> tuple[Aggregate, list[Contribution]]:
    """Return what `gathered`'s rule made, and the contributions, by client.

    >>> from hansa.aggregators import AggregationSpec, VectorSpec, mean
    >>> both = gathered(mean)
    >>> acc = both.zero(AggregationSpec({"delta": VectorSpec(1, "float32", 64.0)}, 8.0))
    >>> for name, value, weight in [("south", 4.0, 1.0), ("north", 0.0, 3.0)]:
    ...     acc = both.add(acc, Contribution(name, {"delta": np.array([value], "f4")}, weight))
    >>> made, each = apart(both.finish(acc))
    >>> made.vectors["delta"].tolist(), [(c.client, c.weight) for c in each]
    ([1.0], [('north', 3.0), ('south', 1.0)])
    """
    plain: dict[str, Vector] = {}
    by_client: dict[str, dict[str, Vector]] = {}
    for name, vector in aggregate.vectors.items():
        client, slash, inner = name.rpartition("/")
        if slash:
            by_client.setdefault(client, {})[inner] = vector
        else:
            plain[name] = vector
    return aggregate._replace(vectors=plain), [_one(c, by_client[c]) for c in sorted(by_client)]


def _one(client: str, vectors: Mapping[str, Vector]) -> Contribution:
    rest = {name: vector for name, vector in vectors.items() if name != _WEIGHT}
    return Contribution(client, rest, float(vectors[_WEIGHT][0]))
