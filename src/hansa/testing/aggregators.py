"""The laws of aggregators, tried on random rounds.

>>> from hansa.aggregators import mean, trimmed_mean
>>> check_aggregator(mean)
>>> check_aggregator(trimmed_mean(0.2))
>>> check_aggregator(mean._replace(merge=lambda a, b: a))
Traceback (most recent call last):
...
hansa.testing.laws.LawBroken: Aggregator 'mean' breaks a law: merging partial aggregates gives \
other bytes than adding the same updates one by one. merge(a, b) must hold every member of a and \
of b, each once.  [law-broken]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import numpy as np

from hansa.aggregators import (
    Aggregate,
    AggregationSpec,
    Aggregator,
    Contribution,
    VectorSpec,
    admit,
)
from hansa.aggregators.aggregator import Accumulator
from hansa.errors import AggregationError, UpdateRefused
from hansa.params import decode, encode
from hansa.seeds import Key
from hansa.testing.laws import law

SPEC = AggregationSpec(
    {
        "delta": VectorSpec(11, "float32", bound=64.0),
        "precise": VectorSpec(3, "float64", bound=3.0),
        "statistics": VectorSpec(2, "float64", bound=None),
        "nothing": VectorSpec(0, "float32", bound=1.0),
    },
    weight_limit=100_000.0,
)
BYTES_PER_CLIENT_MAX = 1024
"""What a streaming accumulator may keep of each client: its name, not its vectors."""


class _Trial(NamedTuple):
    """One random round and the aggregator under test."""

    aggregator: Aggregator
    updates: list[Contribution]
    images: list[dict[str, bytes]]  # of the updates as they were drawn
    draw: np.random.Generator

    def fold(self, updates: Sequence[Contribution]) -> Accumulator:
        return reduce(self.aggregator.add, updates, self.aggregator.zero(SPEC))

    def result(self, acc: Accumulator) -> tuple[object, ...]:
        return _bytes(self.aggregator.finish(acc))

    def shuffled(self) -> list[Contribution]:
        return [self.updates[i] for i in self.draw.permutation(len(self.updates))]

    def groups(self) -> list[list[Contribution]]:
        """Deal the updates to four combiners, some of which may stay empty."""
        groups: list[list[Contribution]] = [[], [], [], []]
        for update in self.shuffled():
            groups[self.draw.integers(4)].append(update)
        return groups

    def require(self, holds: bool, sentence: str, *, hint: str) -> None:
        law(holds, f"Aggregator {self.aggregator.name!r}", sentence, hint=hint)


def check_aggregator(
    aggregator: Aggregator, *, clients: int = 9, trials: int = 10, seed: int = 0
) -> None:
    """Raise LawBroken if the aggregator breaks a law in any of some random rounds.

    The laws: any order, grouping, partial carried through bytes, and retry gives the same bytes;
    inputs and accumulators that were merged are left alone; an empty round is refused; the result
    has the form that the spec asks for; what it claims by `linear` and `streaming` is true.

    Args:
      aggregator: the value under test.
      clients: updates in each round; at least as many as the rule needs.
      trials: random rounds.
      seed: of the rounds; the same seed gives the same rounds.

    Raises:
      LawBroken: which law, and what to look for.

    """
    for number in range(trials):
        draw = Key.root(seed).child("check_aggregator", number).generator()
        updates = [_update(draw, f"client {i}") for i in range(clients)]
        trial = _Trial(aggregator, updates, [_image(update) for update in updates], draw)
        for check in LAWS:
            check(trial)


def _order(trial: _Trial) -> None:
    trial.require(
        trial.result(trial.fold(trial.shuffled())) == trial.result(trial.fold(trial.updates)),
        "another order of the same updates gives other bytes",
        hint="Add integers, or sort the updates by client before adding floats.",
    )


def _grouping(trial: _Trial) -> None:
    partials = [trial.fold(group) for group in trial.groups()]
    trial.require(
        trial.result(reduce(trial.aggregator.merge, partials))
        == trial.result(trial.fold(trial.updates)),
        "merging partial aggregates gives other bytes than adding the same updates one by one",
        hint="merge(a, b) must hold every member of a and of b, each once.",
    )


def _carried(trial: _Trial) -> None:
    partials = []
    for group in trial.groups():
        header, body = encode(trial.aggregator.dump(trial.fold(group)))
        partials.append(trial.aggregator.load(SPEC, decode(header + bytes(body))))
    trial.require(
        trial.result(reduce(trial.aggregator.merge, partials))
        == trial.result(trial.fold(trial.updates)),
        "a partial aggregate changes when it is carried by dump and load",
        hint="Carry every bit: integers as they are, weights exactly, and all members.",
    )


def _retry(trial: _Trial) -> None:
    aggregator, again = trial.aggregator, trial.updates[trial.draw.integers(len(trial.updates))]
    for repeat in (
        lambda acc: aggregator.add(acc, again),
        lambda acc: aggregator.merge(acc, trial.fold([again])),
    ):
        acc = trial.fold(trial.updates)
        trial.require(
            _refuses(partial(repeat, acc), UpdateRefused, "update-duplicate"),
            "a client's update can be counted twice",
            hint="Raise UpdateRefused('update-duplicate', ...) in add and in merge.",
        )
        trial.require(
            trial.result(acc) == trial.result(trial.fold(trial.updates)),
            "a refused duplicate changes the accumulator",
            hint="Check for duplicates before touching anything.",
        )


def _left_alone(trial: _Trial) -> None:
    half = len(trial.updates) // 2
    acc, other = trial.fold(trial.updates[:half]), trial.fold(trial.updates[half:])
    kept = encode(trial.aggregator.dump(other))
    trial.aggregator.merge(acc, other)
    trial.require(
        encode(trial.aggregator.dump(other)) == kept,
        "merge changes its second argument",
        hint="Only the first argument of merge may be worked on in place.",
    )
    trial.require(
        [_image(update) for update in trial.updates] == trial.images,
        "the vectors of an update are written to",
        hint="Updates may be memory-mapped files; copy before changing a block of them.",
    )


def _empty(trial: _Trial) -> None:
    trial.require(
        _refuses(
            lambda: trial.aggregator.finish(trial.aggregator.zero(SPEC)),
            AggregationError,
            "aggregation-empty",
        ),
        "a round without updates has a result",
        hint="Raise AggregationError('aggregation-empty', ...) in finish.",
    )


def _form(trial: _Trial) -> None:
    aggregate = trial.aggregator.finish(trial.fold(trial.updates))
    weight = sum(update.weight for update in trial.updates)
    trial.require(
        (aggregate.weight, aggregate.clients) == (weight, len(trial.updates)),
        f"the result counts {aggregate.clients} clients of weight {aggregate.weight} instead of "
        f"{len(trial.updates)} of {weight}",
        hint="Count all updates that were folded, used or not.",
    )
    form = {name: (v.dtype.name, v.shape) for name, v in aggregate.vectors.items()}
    asked = {name: (v.dtype, (v.size,)) for name, v in SPEC.vectors.items()}
    trial.require(
        form == asked,
        f"the result has vectors {form} instead of {asked}",
        hint="Return one vector for each of the spec, in its dtype and size.",
    )
    trial.require(
        all(np.isfinite(vector).all() for vector in aggregate.vectors.values()),
        "finite updates give a result with NaN or infinity",
        hint="Look for a division by zero and for overflow.",
    )


def _linear(trial: _Trial) -> None:
    if not trial.aggregator.linear:
        return
    others = [_update(trial.draw, update.client) for update in trial.updates]
    sums = [
        a._replace(vectors={name: a.vectors[name] + b.vectors[name] for name in a.vectors})
        for a, b in zip(trial.updates, others, strict=True)
    ]
    others = [b._replace(weight=a.weight) for a, b in zip(trial.updates, others, strict=True)]
    whole, x, y = (
        trial.aggregator.finish(trial.fold(updates)).vectors
        for updates in (sums, trial.updates, others)
    )
    trial.require(
        all(np.allclose(whole[n], x[n] + y[n], rtol=1e-5, atol=1e-4) for n in SPEC.vectors),
        "it claims to be linear, but the aggregate of sums is not the sum of aggregates",
        hint="Say linear=False: masked updates cannot be aggregated by this rule.",
    )


def _streaming(trial: _Trial) -> None:
    if not trial.aggregator.streaming:
        return
    size = 4 * BYTES_PER_CLIENT_MAX
    spec = AggregationSpec({"delta": VectorSpec(size, "float32", bound=1.0)}, SPEC.weight_limit)
    vectors = {"delta": np.zeros(size, "float32")}
    acc, sizes = trial.aggregator.zero(spec), []
    for i in range(20):
        acc = trial.aggregator.add(acc, Contribution(f"client {i}", vectors, 1.0))
        sizes.append(trial.aggregator.dump(acc).nbytes)
    growth = (sizes[-1] - sizes[0]) / (len(sizes) - 1)
    trial.require(
        growth <= BYTES_PER_CLIENT_MAX,
        f"it claims to stream, but a partial aggregate grows by {growth:.0f} bytes a client",
        hint="Say streaming=False, or keep totals instead of updates.",
    )


LAWS: tuple[Callable[[_Trial], None], ...] = (
    _empty,
    _form,
    _order,
    _grouping,
    _carried,
    _retry,
    _left_alone,
    _linear,
    _streaming,
)


def _update(draw: np.random.Generator, client: str) -> Contribution:
    """Return an admissible update: signed, off centre, at most half of each bound."""
    vectors = {}
    for name, spec in SPEC.vectors.items():
        bound = 1e4 if spec.bound is None else spec.bound
        vectors[name] = draw.uniform(-0.3 * bound, 0.5 * bound, spec.size).astype(spec.dtype)
    return admit(Contribution(client, vectors, float(draw.integers(1, 1000))), SPEC)


def _bytes(aggregate: Aggregate) -> tuple[object, ...]:
    vectors = {name: (v.dtype.name, v.tobytes()) for name, v in aggregate.vectors.items()}
    return vectors, aggregate.weight, aggregate.clients


def _image(update: Contribution) -> dict[str, bytes]:
    return {name: vector.tobytes() for name, vector in update.vectors.items()}


def _refuses(
    action: Callable[[], object], kind: type[AggregationError | UpdateRefused], code: str
) -> bool:
    try:
        action()
    except kind as error:
        return error.code == code
    return False
