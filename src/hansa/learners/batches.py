"""The order in which local examples are visited; shared by every learner that has batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from hansa.learners.learner import Hyper
from hansa.seeds import Key


def steps_per_epoch(examples: int, batch_size: int | None) -> int:
    """Return the number of batches that one pass over the data takes.

    A last example that would be alone joins the batch before it: BatchNorm cannot train on one.
    """
    if batch_size is None or batch_size >= examples:
        return 1
    full, rest = divmod(examples, batch_size)
    return full + (rest > 1)


def local_steps(examples: int, hyper: Hyper) -> int:
    """Return K, the local steps of one round."""
    if hyper.steps is not None:
        return hyper.steps
    return hyper.epochs * steps_per_epoch(examples, hyper.batch_size)


def batches(examples: int, hyper: Hyper, key: Key) -> Iterator[np.ndarray | slice]:
    """Yield the indices of each of this round's K batches; every pass has its own shuffle."""
    left = local_steps(examples, hyper)
    for epoch in range(left):
        for batch in one_epoch(examples, hyper.batch_size, key.child("epoch", epoch)):
            if left == 0:
                return
            left -= 1
            yield batch


def one_epoch(examples: int, batch_size: int | None, key: Key) -> Iterator[np.ndarray | slice]:
    """Yield one pass over the data; the last batch may be smaller, or larger by one."""
    if batch_size is None or batch_size >= examples:
        yield slice(0, examples)
        return
    order = key.generator().permutation(examples)
    last = steps_per_epoch(examples, batch_size) - 1
    for step in range(last):
        yield order[step * batch_size : (step + 1) * batch_size]
    yield order[last * batch_size :]


def endless(examples: int, hyper: Hyper, key: Key) -> Iterator[np.ndarray | slice]:
    """Yield batches for as long as they are asked for; every pass has its own shuffle."""
    for epoch in itertools.count():
        yield from one_epoch(examples, hyper.batch_size, key.child("epoch", epoch))
