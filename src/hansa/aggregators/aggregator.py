"""What an aggregator is: a monoid that turns admitted updates into one.

    acc = zero(spec)                     the empty sum of a round
    acc = add(acc, contribution)         as each update arrives, in any order
    acc = merge(acc, other)              what combiners and workers folded elsewhere
    aggregate = finish(acc)

The bytes of the aggregate depend on the *set* of contributions and on nothing else: not on their
order, not on how they were grouped into partial sums, not on retries.

    >>> import numpy as np
    >>> from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, mean
    >>> spec = AggregationSpec({"delta": VectorSpec(2, "float32", bound=64.0)}, weight_limit=1000)
    >>> acc = mean.zero(spec)
    >>> for client, value, examples in [("north", 1.0, 300), ("south", -1.0, 100)]:
    ...     delta = np.array([value, 10 * value], "float32")
    ...     acc = mean.add(acc, Contribution(client, {"delta": delta}, examples))
    >>> mean.finish(acc)
    Aggregate(vectors={'delta': array([0.5, 5. ], dtype=float32)}, weight=400.0, clients=2)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hansa.params import Params

Vector = np.ndarray[Any, np.dtype[Any]]
"""A 1-D array."""

Accumulator = Any
"""What one aggregator keeps between updates; only that aggregator looks inside."""


class VectorSpec(NamedTuple):
    """One vector of an update, as declared when the round opens.

    `bound`: no value is greater in magnitude.  None marks a *wide* vector, few values of any
    magnitude (counters, BatchNorm statistics), which is summed in 126 bits instead of 62.
    """

    size: int
    dtype: str  # "float32" or "float64"
    bound: float | None


class AggregationSpec(NamedTuple):
    """All that must be known before the first update arrives.

    `weight_limit`: the weights of the round never add up to more.  It and the bounds fix where
    the binary point of every sum lies, so the nearer they are to the truth, the finer the sum.
    """

    vectors: Mapping[str, VectorSpec]
    weight_limit: float


class Contribution(NamedTuple):
    """One client's admitted update; vectors may be memory-mapped and are never written to.

    `peaks`: the greatest magnitude in each vector, where admission has found it.  Sums are made
    faster by that, and no different.
    """

    client: str
    vectors: Mapping[str, Vector]
    weight: float
    peaks: Mapping[str, float] = {}


class Aggregate(NamedTuple):
    """The result: vectors in the spec's dtypes, and how much was folded into them."""

    vectors: dict[str, Vector]
    weight: float
    clients: int


class Aggregator(NamedTuple):
    """Pure functions over one kind of accumulator.

    `add` and `merge` may work in place on their first argument, so use only what they return;
    when they raise, the first argument is as it was.  The second argument is never changed.
    `finish` may use its argument up.
    `dump` and `load` carry a partial aggregate between processes, bit for bit, with its members.
    """

    name: str
    linear: bool  # the result is a weighted sum of the contributions: they may stay masked
    streaming: bool  # an accumulator's memory does not grow with the number of clients
    zero: Callable[[AggregationSpec], Accumulator]
    add: Callable[[Accumulator, Contribution], Accumulator]
    merge: Callable[[Accumulator, Accumulator], Accumulator]
    finish: Callable[[Accumulator], Aggregate]
    dump: Callable[[Accumulator], Params]
    load: Callable[[AggregationSpec, Params], Accumulator]
    needs: int = 1  # updates without which there is no result
