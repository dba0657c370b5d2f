"""Read tables from CSV files: a header row, numeric features, and one target column."""

from __future__ import annotations

import csv
import difflib
import re
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
"""Distinct whole numbers of a target column that are classes without a word of the plan."""

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

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


def typed_target(cells: Array, path: Path, *, counted: bool = False) -> Array:
    """Decide from how its cells are written what a target column means.

    Whole numbers are labels, and keep their value; numbers with a point or an exponent among them
    mean regression; all else is names of classes.  So a cell means the same in any file of its
    kind, whatever else is there.

    Args:
      cells: as text.
      path: of the table, for messages.
      counted: whether the plan says how many classes there are.

    Returns:
      int64 labels, float32 numbers to predict, or the cells as they are.

    Raises:
      DataError: data-labels, so many whole numbers are hardly classes.

    >>> typed_target(np.array(["3", "1", "3"]), Path("t.csv"))
    array([3, 1, 3])

    """
    texts, places = np.unique(cells, return_inverse=True)
    if not all(map(_NUMBER.fullmatch, texts.tolist())):
        return cells
    if not all(map(_WHOLE.fullmatch, texts.tolist())):
        with np.errstate(over="ignore"):  # too large a number is refused as infinity
            return cells.astype(np.float64).astype(np.float32)
    values = [int(text) for text in texts.tolist()]
    least, most, different = min(values), max(values), len(set(values))
    if (different > INTEGER_CLASSES_MAX and not counted) or max(-least, most) >= 2**63:
        raise DataError(
            "data-labels",
            f"The target of {path} has {different:,} different whole numbers, from {least} to "
            f"{most}, and whole numbers are classes.",
            "Write numbers to predict with a decimal point, such as 250.0; for classes say how "
            "many in the plan: data.classes.",
        )
    return np.array(values, np.int64)[places]


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
    is_target = place == columns.target
    bad = {cell for cell in set(cells) if _is_bad(cell) or (is_target and _only_looks(cell))}
    for (number, _), cell in zip(rows, cells, strict=True) if bad else ():
        if cell in bad:
            _refuse_cell(cell, number, columns, place=place)
    return np.array(cells)


def _is_bad(cell: str) -> bool:
    return cell.lower() in MISSING or len(cell) > limits.LABEL_CHARS_MAX


def _only_looks(cell: str) -> bool:
    """Tell whether Python would read a cell as a number, and other programs would not."""
    return _is_float(cell) and not _NUMBER.fullmatch(cell)


def _is_float(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(rows: list[tuple[int, list[str]]], columns: _Columns) -> Array:
    features = columns.features
    cells = chain.from_iterable([row[i] for i in features] for _, row in rows)
    try:
        flat = np.fromiter(map(float, cells), np.float64, count=len(rows) * len(features))
    except ValueError:
        _refuse_first(rows, columns)
    if any("_" in cell for _, row in rows for cell in row):  # float("1_000") is 1000
        _refuse_underscores(rows, columns)
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
            if not _is_float(row[place]):
                _refuse_cell(row[place], number, columns, place=place)
    raise AssertionError("a cell was not a number, and now all are")


def _refuse_underscores(rows: list[tuple[int, list[str]]], columns: _Columns) -> None:
    """Refuse a feature with an underscore, if it is not a label or a group that has it."""
    for number, row in rows:
        for place in columns.features:
            if "_" in row[place]:
                _refuse_cell(row[place], number, columns, place=place)


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
        else "Write a number to predict as 1000 or 1e3, and a class by another name."
        if _is_float(cell)
        else f"A label has at most {limits.LABEL_CHARS_MAX} characters.",
    )


def _bad_file(path: Path, how: str) -> DataError:
    return DataError(
        "data-bad-file",
        f"The table {path} {how}.",
        "A table is UTF-8 text: a header row, commas between the cells, "
        "every row as long as the header.",
    )
