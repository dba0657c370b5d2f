"""An even split of examples among learners that is independent and identically distributed."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.errors import DataError
from hansa.seeds import Key


def iid_partition(
    x_train: Any, y_train: Any, num_partitions: int, seed: int = 1990
) -> tuple[list[Any], list[Any]]:
    """Deal examples at random into parts whose sizes differ by at most one.

    The rows are permuted by the seed and then cut, so a part of a sorted set is no single class.
    The same seed gives the same parts, on every machine.

    Args:
      x_train: array of examples, rows first.
      y_train: array of as many labels.
      num_partitions: from 1 up to the number of rows; the first ones get the rows that are over.
      seed: of the permutation.

    Returns:
      The parts of x_train and those of y_train, in the same order.

    Raises:
      DataError: data-mismatch, the arrays differ in length; data-too-few, fewer rows than parts.
    """
    x, y = np.asarray(x_train), np.asarray(y_train)
    if len(x) != len(y):
        raise DataError(
            "data-mismatch",
            f"There are {len(x)} examples and {len(y)} labels. Nothing was divided.",
            "Give a label for each example.",
        )
    if not 1 <= num_partitions <= len(x):
        raise DataError(
            "data-too-few",
            f"{len(x)} examples cannot be divided into {num_partitions} parts.",
            "Ask for at least one part and for no more parts than examples.",
        )
    order = Key.root(seed).child("metisfl", "iid").generator().permutation(len(x))
    parts = np.array_split(order, num_partitions)
    return [x[part] for part in parts], [y[part] for part in parts]
