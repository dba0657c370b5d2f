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
from hansa.plan.schema import DataPlan
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


def check_fits(plan: DataPlan, data: ClientData, name: str) -> None:
    """Refuse a client's data of another shape or other classes than the plan asks for.

    The message may leave the site, so it says no more than what does not fit; what is there stands
    in the error's cause, for the traceback that the owner keeps.

    Raises:
      DataError: data-mismatch.
    """
    for rows in (data.train, data.validation):
        if rows is None or (plan.shape is None and plan.classes is None):
            continue
        if not isinstance(rows, Dataset):
            raise _misfit(
                name,
                "cannot be compared with data.shape and data.classes of the plan",
                f"data() returned {type(rows).__name__}, and only a hansa.Dataset or (x, y) can be",
            )
        shape = rows.x.shape[1:]
        if plan.shape is not None and shape != plan.shape:
            asked = " x ".join(map(str, plan.shape))
            raise _misfit(name, f"have another shape than {asked}", f"one example has {shape}")
        if plan.classes is not None and not _has_classes(rows.classes, plan.classes):
            named = plan.classes if isinstance(plan.classes, tuple) else (str(plan.classes),)
            asked = ", ".join(named)
            raise _misfit(name, f"have other classes than the plan's: {asked}", f"{rows.classes}")


def _has_classes(own: tuple[str, ...] | None, asked: int | tuple[str, ...]) -> bool:
    """Return whether labels mean what the plan means; a client may lack the last few of a number.

    Arrays of labels tell no names, so `classes` reaches to the highest label that is there.
    """
    if own is None:
        return False
    return len(own) <= asked if isinstance(asked, int) else own == asked


def _misfit(name: str, what: str, cause: str) -> DataError:
    error = DataError(
        "data-mismatch",
        f"The examples of {name} {what}.",
        "Declare other data by that name, or change the plan's data.shape or data.classes.",
    )
    error.__cause__ = ValueError(cause)
    return error
