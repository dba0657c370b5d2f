"""The conformance check finds the faults it is for: one broken aggregator for each law."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest

from hansa.aggregators import Aggregate, Aggregator, Contribution, mean, median
from hansa.errors import HansaError, UpdateRefused
from hansa.params import Params
from hansa.testing import LawBroken, check_aggregator


def summing_floats() -> Aggregator:
    """The mean as everyone writes it first: float32 sums in order of arrival."""

    def zero(spec):
        return spec, {n: np.zeros(v.size, v.dtype) for n, v in spec.vectors.items()}, {}

    def add(acc, update: Contribution):
        if update.client in acc[2]:
            raise UpdateRefused("update-duplicate", "twice", "once")
        for name, total in acc[1].items():
            total += np.float32(update.weight) * update.vectors[name]
        acc[2][update.client] = update.weight
        return acc

    def finish(acc):
        mean.finish(mean.zero(acc[0])) if not acc[2] else None
        weight = sum(acc[2].values())
        return Aggregate(
            {n: v / np.float32(weight) for n, v in acc[1].items()}, weight, len(acc[2])
        )

    return mean._replace(zero=zero, add=add, finish=finish)


def adding(change: Callable[[Contribution], Contribution | None]) -> Aggregator:
    def add(acc, update):
        changed = change(update)
        return acc if changed is None else mean.add(acc, changed)

    return mean._replace(add=add)


def finishing(aggregator: Aggregator, change: Callable[[Aggregate], Aggregate]) -> Aggregator:
    return aggregator._replace(finish=lambda acc: change(aggregator.finish(acc)))


def writes_to_updates() -> Aggregator:
    def scale_in_place(update: Contribution) -> Contribution:
        if update.client == "client 5":
            update.vectors["delta"][0] = 0
        return update

    return adding(scale_in_place)


def takes_duplicates() -> Aggregator:
    def add(acc, update):
        try:
            return mean.add(acc, update)
        except UpdateRefused:
            return acc

    return mean._replace(add=add)


def merges_duplicates() -> Aggregator:
    def merge(a, b):
        b = copy.deepcopy(b)
        b.members.clients -= a.members.clients
        return mean.merge(a, b)

    return mean._replace(merge=merge)


def spoils_on_duplicates() -> Aggregator:
    def add(acc, update):
        if update.client in acc.members.clients:
            acc.totals["delta"] += 10**12
        return mean.add(acc, update)

    return mean._replace(add=add)


def empties_the_second() -> Aggregator:
    def merge(a, b):
        a = mean.merge(a, b)
        for total in b.totals.values():
            total[...] = 0
        return a

    return mean._replace(merge=merge)


def forgets_weights() -> Aggregator:
    def dump(acc):
        params = mean.dump(acc)
        spec = {**params.metadata, "weight": f"{round(float(acc.members.weight)) + 1}/1"}
        empty = not acc.members.clients
        return Params(params.layout, params.body, params.metadata if empty else spec)

    return mean._replace(dump=dump)


def swap(name: str, value: Callable[[np.ndarray], np.ndarray]) -> Callable[[Aggregate], Aggregate]:
    return lambda a: a._replace(vectors={**a.vectors, name: value(a.vectors[name])})


BROKEN = {
    "another order": summing_floats(),
    "merging partial": mean._replace(merge=lambda a, b: a),
    "dump and load": forgets_weights(),
    "counted twice": takes_duplicates(),
    "counted twice ": merges_duplicates(),
    "refused duplicate changes": spoils_on_duplicates(),
    "second argument": empties_the_second(),
    "written to": writes_to_updates(),
    "without updates": mean._replace(
        finish=lambda acc: mean.finish(acc) if acc.members.clients else None
    ),
    "counts 8 clients": adding(lambda u: None if u.client == "client 5" else u),
    "instead of": finishing(mean, swap("delta", lambda v: v.astype("float64"))),
    "instead of ": finishing(mean, lambda a: a._replace(vectors={"delta": a.vectors["delta"]})),
    "NaN": finishing(mean, swap("delta", lambda v: v * np.float32("nan"))),
    "linear": median._replace(linear=True),
    "stream": median._replace(streaming=True),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_broken_law_is_named(sentence: str) -> None:
    with pytest.raises(LawBroken, match=sentence.strip()) as caught:
        check_aggregator(BROKEN[sentence])
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, HansaError)
    assert caught.value.code == "law-broken"
    assert caught.value.hint


def test_a_rule_that_needs_more_updates_says_so() -> None:
    from hansa.aggregators import krum
    from hansa.errors import AggregationError

    with pytest.raises(AggregationError, match="at least 13"):
        check_aggregator(krum(5))
    check_aggregator(krum(5), clients=13, trials=2)
