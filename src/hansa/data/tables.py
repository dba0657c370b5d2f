"""Read tables from CSV files: a header row, numeric features, and one target column."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from hansa import limits
from hansa.data.dataset import Array
from hansa.errors import DataError
from hansa.text import few

BLOCK_ROWS = 10_000
"""Rows held as text at a time; text takes ten times the memory of the numbers."""

INTEGER_CLASSES_MAX = 100
"""Distinct whole numbers up to which a target column means classes; beyond, regression."""

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null"})
"""What programs write into a cell that has no value, in lower case."""


class Table(NamedTuple):
    """One CSV file: x float32 [n, features], target and groups as text [n]."""

    x: Array
    target: Array
    groups: Array | None
    features: tuple[str, ...]


class _Columns(NamedTuple):
    path: Path
    names: list[str]
    target: int
    group: int | None

    @property
    def features(self) -> list[int]:
        return [i for i in range(len(self.names)) if i not in (self.target, self.group)]


def read_csv(path: Path, *, target: str | None, group: str | None) -> Table:
    """Read a CSV file in UTF-8 with a header row; blank lines are skipped.

    Args:
      path: the file.
      target: name of the column to predict.
      group: name of a column with natural keys, if any; it is not a feature.

    Raises:
      DataError: there is no such column, a cell is empty or not a number, a row is shorter or
        longer than the header, or the file is not text in UTF-8.

    """
    try:
        _check_size(path)
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            columns = _columns(next(reader, []), path, target=target, group=group)
            blocks = [_block(rows, columns) for rows in _blocks(reader)]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise _bad_file(path, f"cannot be read as a table: {error}") from error
    if not blocks:
        raise _bad_file(path, "has no row below its header")
    features = tuple(columns.names[i] for i in columns.features)
    x, targets, groups = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Table(x, targets, None if group is None else groups, features)


def typed_target(cells: Array) -> tuple[Array, tuple[str, ...] | None]:
    """Decide from its cells what a target column means.

    Text means classes, sorted by name.  Whole numbers mean classes, sorted by value, when at most
    `INTEGER_CLASSES_MAX` of them are distinct.  Other numbers mean regression.

    Returns:
      (y, classes): int64 labels and the names of the classes, or float32 values and None.

    >>> typed_target(np.array(["3", "1", "3"]))
    (array([1, 0, 1]), ('1', '3'))

    """
    try:
        numbers = cells.astype(np.float64)
    except ValueError:
        names, labels = np.unique(cells, return_inverse=True)
        return labels.astype(np.int64), tuple(names.tolist())
    values, labels = np.unique(numbers, return_inverse=True)
    if len(values) <= INTEGER_CLASSES_MAX and np.array_equal(values, np.rint(values)):
        return labels.astype(np.int64), tuple(f"{value:.0f}" for value in values.tolist())
    return numbers.astype(np.float32), None


def _check_size(path: Path) -> None:
    if path.stat().st_size > limits.DATA_BYTES_MAX:
        raise DataError(
            "data-too-large",
            f"The table {path} has {path.stat().st_size:,} bytes; "
            f"the limit is {limits.DATA_BYTES_MAX:,}.",
            "Split it, or store it as .npz.",
        )


def _columns(header: list[str], path: Path, *, target: str | None, group: str | None) -> _Columns:
    names = [name.strip() for name in header]
    if len(names) > limits.CSV_COLUMNS_MAX:
        raise DataError(
            "data-too-large",
            f"The table {path} has {len(names):,} columns; "
            f"the limit is {limits.CSV_COLUMNS_MAX:,}.",
            "Store such data as .npz.",
        )
    if len(names) < 2:
        raise _bad_file(path, f"has the header {','.join(names)[:80]!r}, which is one column")
    if not all(names) or len(set(names)) < len(names):
        raise _bad_file(path, "has a header with an empty or a repeated name, as row numbers leave")
    place = _position(target, "target", names, path=path)
    columns = _Columns(
        path, names, place, None if group is None else _position(group, "group", names, path=path)
    )
    if not columns.features:
        raise _bad_file(path, "has no column left for features")
    return columns


def _position(name: str | None, role: str, names: list[str], *, path: Path) -> int:
    if name in names:
        return names.index(name)
    near = difflib.get_close_matches(name or "", names, n=1)
    asked = f"no column {name!r}" if name is not None else f"no {role} column named"
    raise DataError(
        "data-no-column",
        f"The table {path} has {asked}; its columns are: {few(names, 20)}.",
        f"Set {role} to {near[0]!r}." if near else f"Set {role} to one of these columns.",
    )


def _blocks(reader: Iterable[list[str]]) -> Iterator[list[tuple[int, list[str]]]]:
    numbered = ((number, row) for number, row in enumerate(reader, start=2) if row)
    while rows := list(islice(numbered, BLOCK_ROWS)):
        yield rows


def _block(rows: list[tuple[int, list[str]]], columns: _Columns) -> tuple[Array, Array, Array]:
    width = len(columns.names)
    for number, row in rows:
        if len(row) != width:
            raise _bad_file(
                columns.path, f"has {len(row)} cells in row {number}, but {width} in its header"
            )
    targets = _text(rows, columns, place=columns.target)
    groups = targets if columns.group is None else _text(rows, columns, place=columns.group)
    return _numbers(rows, columns), targets, groups


def _text(rows: list[tuple[int, list[str]]], columns: _Columns, *, place: int) -> Array:
    cells = [row[place].strip() for _, row in rows]
    for (number, _), cell in zip(rows, cells, strict=True):
        if cell.lower() in MISSING or len(cell) > limits.LABEL_CHARS_MAX:
            _refuse_cell(cell, number, columns, place=place)
    return np.array(cells)


def _numbers(rows: list[tuple[int, list[str]]], columns: _Columns) -> Array:
    features = columns.features
    cells = chain.from_iterable([row[i] for i in features] for _, row in rows)
    try:
        flat = np.fromiter(map(float, cells), np.float64, count=len(rows) * len(features))
    except ValueError:
        _refuse_first(rows, columns)
    with np.errstate(over="ignore"):
        x = flat.astype(np.float32).reshape(len(rows), len(features))
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0].tolist()
        place = features[column]
        _refuse_cell(rows[row][1][place], rows[row][0], columns, place=place)
    return x


def _refuse_first(rows: list[tuple[int, list[str]]], columns: _Columns) -> NoReturn:
    for number, row in rows:
        for place in columns.features:
            try:
                float(row[place])
            except ValueError:
                _refuse_cell(row[place], number, columns, place=place)
    raise AssertionError("a cell was not a number, and now all are")


def _refuse_cell(cell: str, number: int, columns: _Columns, *, place: int) -> NoReturn:
    what = repr(cell[:40]) if cell.strip() else "empty"
    raise DataError(
        "data-bad-cell",
        f"In {columns.path}, row {number}, column {columns.names[place]!r}, the cell is {what}; "
        "the table was not read.",
        "Fill it or drop the row."
        if cell.strip().lower() in MISSING
        else "Features are finite numbers; encode text as numbers, or drop the column."
        if place in columns.features
        else f"A label has at most {limits.LABEL_CHARS_MAX} characters.",
    )


def _bad_file(path: Path, how: str) -> DataError:
    return DataError(
        "data-bad-file",
        f"The table {path} {how}.",
        "A table is UTF-8 text: a header row, commas between the cells, "
        "every row as long as the header.",
    )
