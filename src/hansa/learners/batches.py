"""The order in which local examples are visited; shared by every learner that has batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

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


def aligned_rows(settings: Mapping[str, Any], examples: int) -> np.ndarray:
    """Return the rows of a batch of split learning, the same at every client of as many examples.

    Args:
      settings: of the question, `ctx.settings` of a named task.
      examples: that this client holds; those of all clients are in the same order.

    >>> told = {"part": "train", "batch_size": 2, "seed": 7}
    >>> sorted(int(row) for i in (0, 1) for row in aligned_rows(told | {"batch": i}, 4))
    [0, 1, 2, 3]
    """
    size = settings.get("batch_size")
    if size is None or settings["part"] != "train":
        return np.arange(examples)
    where = np.arange(settings["batch"] * size, (settings["batch"] + 1) * size)
    rows = np.empty(size, np.int64)
    for epoch in np.unique(where // examples):
        key = Key.root(settings["seed"]).child("aligned rows", int(epoch))
        mine = where // examples == epoch
        rows[mine] = key.generator().permutation(examples)[where[mine] % examples]
    return rows
