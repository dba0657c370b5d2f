"""How one client's rows become its training and its validation part.

The same at a site and in simulation: a site that holds what a simulated client holds, under the
same name, trains on the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.data import Dataset
from hansa.data.dataset import held_out
from hansa.data.folders import check_own_labels
from hansa.errors import DataError
from hansa.learners.learner import ClientData
from hansa.seeds import Key


def data_key(seed: int) -> Key:
    """Return the key below which all draws about a run's data lie."""
    return Key.root(seed).child("data")


def validation_rows(labels: Any, rows: int, fraction: float, *, key: Key, name: str) -> np.ndarray:
    """Return a mask [rows] of a client's validation rows; it always keeps one to train on.

    Args:
      labels: [rows] one class each, or None.
      rows: how many there are.
      fraction: of the rows, from 0 up to 1.
      key: `data_key` of the run.
      name: of the client.
    """
    if not fraction or rows < 2:
        return np.zeros(rows, bool)
    own = key.child("validation", name)
    held: np.ndarray = held_out(labels, rows, fraction=fraction, key=own)
    return held


def cut(rows: Dataset, fraction: float, *, key: Key, name: str) -> ClientData:
    """Divide a client's rows, in the order they have, into training and validation."""
    held = validation_rows(rows.labels, rows.examples, fraction, key=key, name=name)
    validation = rows.take(np.flatnonzero(held)) if held.any() else None
    return ClientData(rows.take(np.flatnonzero(~held)), validation)


def answered(value: Any, fraction: float, *, key: Key, name: str) -> ClientData:
    """Return what a project's `data(client)` has returned as a client's data.

    Raises:
      DataError: it is nothing, or has labels that clients would number apart.
    """
    if value is None:
        raise DataError(
            "data-missing",
            f"data({name!r}) returned None.",
            "Return a hansa.Dataset, arrays (x, y), or {'train': ..., 'validation': ...}.",
        )
    if isinstance(value, ClientData):
        return value
    if isinstance(value, Mapping) and "train" in value:
        own = as_dataset(value.get("validation"), name)
        return ClientData(as_dataset(value["train"], name), own)
    train = as_dataset(value, name)
    if not isinstance(train, Dataset):
        return ClientData(train, None)
    return cut(train, fraction, key=key, name=name)


def as_dataset(value: Any, name: str) -> Any:
    """Return arrays (x, y) as a dataset, and everything else as it is.

    Labels keep their values: a client sees only its own, so it cannot number them.  `classes` then
    reaches to the highest label that this client has; the first client's sizes a seed model.
    """
    if isinstance(value, tuple) and not isinstance(value, Dataset) and len(value) == 2:
        x, y = value
        if hasattr(x, "shape") and hasattr(y, "shape"):
            x, y = np.asarray(x), np.asarray(y)
            check_own_labels(y, f"The arrays (x, y) of {name}")
            return Dataset.of(x, y, name=name)
    return value
