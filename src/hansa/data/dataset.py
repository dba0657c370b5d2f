"""A dataset in memory: examples, targets and, for classification, the names of the classes."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa import limits
from hansa.errors import DataError
from hansa.seeds import Key

Array: TypeAlias = npt.NDArray[Any]


class Dataset(NamedTuple):
    """Examples and targets, row by row.

    Build one with `Dataset.of`, which checks it.  `len()` is the number of fields, as for any
    named tuple; the number of rows is `examples`.

    x: shape [n, ...]
    y: shape [n, ...]; int64 labels below len(classes), or numbers when `classes` is None
    classes: the name of each label; None for regression
    groups: shape [n]; the natural key of each row, such as its author; strings or integers

    >>> toy = Dataset.of(np.eye(3), np.array(["b", "a", "b"]), name="toy")
    >>> toy.classes, toy.y.tolist(), toy.examples
    (('a', 'b'), [1, 0, 1], 3)
    """

    x: Array
    y: Array
    classes: tuple[str, ...] | None
    name: str
    groups: Array | None = None

    @classmethod
    def of(
        cls,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        name: str = "data",
        classes: tuple[str, ...] | None = None,
        groups: npt.ArrayLike | None = None,
    ) -> Dataset:
        """Check the arrays and name the classes.

        Integer or string `y` means classes: strings are sorted and numbered, integers from 0 up
        keep their value, other integers are sorted and numbered.  With `classes`, strings are
        names of classes and integers their positions.  Floating `y` means regression.

        Raises:
          DataError: lengths differ, a value is not finite, a label has no class, or an array
            holds something other than numbers (`x`, `y`), strings (`y`, `groups`).

        """
        x, y = _array(x, f"x of {name}"), _array(y, f"y of {name}")
        groups = None if groups is None else _array(groups, f"groups of {name}")
        _check_arrays(x, y, groups, name)
        if classes is not None:
            y = _checked_labels(y, classes, name)
        elif y.dtype.kind != "f":
            y, classes = _number_labels(y, name)
        return cls(x, y, classes, name, groups)

    @property
    def examples(self) -> int:
        """Return the number of rows."""
        return int(self.x.shape[0])

    @property
    def labels(self) -> Array | None:
        """Return one class label per row, or None where a row has no single label."""
        return self.y if self.classes is not None and self.y.ndim == 1 else None

    def take(self, indices: npt.ArrayLike) -> Dataset:
        """Return a copy with these rows, in this order."""
        rows = np.asarray(indices, dtype=np.int64)
        groups = None if self.groups is None else self.groups[rows]
        return self._replace(x=self.x[rows], y=self.y[rows], groups=groups)

    def holdout(self, fraction: float, key: Key) -> tuple[Dataset, Dataset]:
        """Split into (train, test), the test part holding `fraction` of the rows.

        With classes the split is stratified: each class gives its share, rounded up or down.
        Both parts keep the order of the rows.

        Raises:
          DataError: the fraction is not between 0 and 1, or a part would be empty.

        """
        if not 0 < fraction < 1:
            raise DataError(
                "data-option",
                f"Cannot hold out {fraction!r} of {self.name}.",
                "Give a fraction between 0 and 1, such as 0.2.",
            )
        held = held_out(self.labels, self.examples, fraction=fraction, key=key)
        if not held.any():
            raise DataError(
                "data-too-few",
                f"Holding out {fraction:g} of the {self.examples} rows of {self.name} "
                "leaves one part empty.",
                "Use more rows or another fraction.",
            )
        return self.take(np.flatnonzero(~held)), self.take(np.flatnonzero(held))


def held_out(labels: Array | None, rows: int, *, fraction: float, key: Key) -> Array:
    """Return a mask of round(fraction * rows) random rows, stratified where there are labels.

    Rows are shuffled, sorted by label, and picked at equal steps; a class of m rows then gives
    fraction * m of them, rounded up or down.  At least one row is left.
    """
    order = key.generator().permutation(rows)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    steps = np.floor(np.arange(rows + 1) * fraction + 0.5)
    mask = np.zeros(rows, dtype=bool)
    mask[order] = np.diff(steps) > 0
    mask[order[:1]] &= not mask.all()
    return mask


def _array(value: npt.ArrayLike, what: str) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(
            "data-bad-file",
            f"{what} is no array: {error}.",
            "Give every row the same shape.",
        ) from error
    # Columns of text come out of pandas as objects.
    if array.dtype == object and all(isinstance(entry, str) for entry in array.flat):
        return array.astype(str)
    return array


def _check_arrays(x: Array, y: Array, groups: Array | None, name: str) -> None:
    _check_kind(x, "biuf", f"x of {name}")
    _check_kind(y, "biufU", f"y of {name}")
    parts = {"x": x, "y": y}
    if groups is not None:
        _check_kind(groups, "iuU", f"groups of {name}")
        parts["groups"] = groups
    nested = groups is not None and groups.ndim > 1
    if nested or len({part.shape[0] for part in parts.values()}) > 1:
        shapes = ", ".join(f"{key} has shape {part.shape}" for key, part in parts.items())
        raise DataError(
            "data-mismatch",
            f"The arrays of {name} do not belong together: {shapes}.",
            "Give every array one entry per row.",
        )
    _check_finite(x, f"x of {name}")
    _check_finite(y, f"y of {name}")


def _check_kind(array: Array, kinds: str, what: str) -> None:
    if array.dtype.kind not in kinds or array.ndim == 0:
        raise DataError(
            "data-bad-file",
            f"The array {what} has dtype {array.dtype} and shape {array.shape}.",
            "Store an array with one row per example"
            + (", of numbers or strings." if "U" in kinds else ", of numbers."),
        )


def _check_finite(array: Array, what: str) -> None:
    if array.dtype.kind != "f" or not array.size:
        return
    # min and max carry NaN along and need no mask as large as the data.
    if np.isfinite(array.min()) and np.isfinite(array.max()):
        return
    row = int(np.argwhere(~np.isfinite(array))[0, 0])
    raise DataError(
        "data-not-finite",
        f"The array {what} holds NaN or infinity, first in row {row}.",
        "Fill or drop such rows before training.",
    )


def _checked_labels(y: Array, classes: tuple[str, ...], name: str) -> Array:
    if y.dtype.kind == "U":
        return _positions(y, classes, name)
    if y.dtype.kind not in "biu":
        raise DataError(
            "data-labels",
            f"{name} has {len(classes)} classes, but y has dtype {y.dtype}.",
            "Give y as names of classes, or as integers, their positions.",
        )
    if y.size and not 0 <= int(y.min()) <= int(y.max()) < len(classes):
        raise DataError(
            "data-labels",
            f"{name} has {len(classes)} classes, but labels from {y.min()} to {y.max()}.",
            f"Labels must lie between 0 and {len(classes) - 1}.",
        )
    return y.astype(np.int64, copy=False)


def _positions(y: Array, classes: tuple[str, ...], name: str) -> Array:
    values, numbers = np.unique(y, return_inverse=True)
    place = {label: i for i, label in enumerate(classes)}
    if unknown := [value for value in values.tolist() if value not in place]:
        raise DataError(
            "data-labels",
            f"{name} has {len(classes)} classes, and labels that are none of them: "
            f"{', '.join(map(repr, unknown[:5]))}.",
            "Name every class that any client has, and spell labels as there.",
        )
    positions = np.array([place[value] for value in values.tolist()], np.int64)
    return positions[numbers.reshape(y.shape)]


def _number_labels(y: Array, name: str) -> tuple[Array, tuple[str, ...]]:
    if y.dtype.kind != "U" and y.size and 0 <= int(y.min()) <= int(y.max()) < limits.CLASSES_MAX:
        count = int(y.max()) + 1
        return y.astype(np.int64, copy=False), tuple(map(str, range(count)))
    values, numbers = np.unique(y, return_inverse=True)
    if len(values) > limits.CLASSES_MAX:
        raise DataError(
            "data-labels",
            f"{name} has {len(values):,} different labels; the limit is {limits.CLASSES_MAX:,}.",
            "For regression, store y as floating point numbers.",
        )
    return numbers.reshape(y.shape).astype(np.int64), tuple(map(str, values.tolist()))
