"""Natural keys: clients that the data itself names, such as authors, hospitals or files."""

from __future__ import annotations

import re

import numpy as np

from hansa.data.dataset import Array, Dataset
from hansa.data.dealing import offsets
from hansa.errors import DataError


def by_group(dataset: Dataset) -> tuple[Array, Array, tuple[str, ...]]:
    """Return (order, offsets, names) with one client per value of the dataset's groups.

    Clients come in natural order of their names, rows of a client in their own order.

    Raises:
      DataError: the dataset has no groups, or no rows.

    """
    if dataset.groups is None or not dataset.examples:
        raise DataError(
            "data-no-groups",
            f"The {dataset.examples} rows of {dataset.name} carry no natural key to make "
            "clients of.",
            "Name the column with `group`, store the array groups in the .npz file, "
            "or load a folder with one file per client.",
        )
    seen: dict[str | int, int] = {}
    found = (seen.setdefault(value, len(seen)) for value in dataset.groups.tolist())
    owner = np.fromiter(found, np.int64, count=dataset.examples)
    names = sorted(seen, key=natural_order)
    rank = np.empty(len(names), np.int64)
    rank[[seen[name] for name in names]] = np.arange(len(names))
    owner = rank[owner]
    order = np.argsort(owner, kind="stable")
    return order, offsets(np.bincount(owner)), tuple(map(str, names))


def natural_order(name: str | int) -> list[tuple[int, int, str]]:
    """Return a sort key that puts client-2 before client-10, and integers by value.

    >>> sorted(["client-10", "client-2", "b"], key=natural_order)
    ['b', 'client-2', 'client-10']
    """
    if isinstance(name, int):
        return [(0, name, "")]
    parts = re.split(r"([0-9]{1,18})", name)
    return [(0, int(p), p) if p.isdigit() and p.isascii() else (1, 0, p) for p in parts]
