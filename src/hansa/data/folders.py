"""Read a folder with one sub-folder, or one file, per client.

    data/client-0/train.npz  data/client-0/valid.npz  data/client-1/train.npz  ...
    data/north.csv  data/south.csv  ...

The rows of all clients form one dataset whose `groups` are the names of the sub-folders or files;
the scheme `files` gives each client its own back.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from hansa import limits
from hansa.data.archives import read_npz
from hansa.data.dataset import Array, Dataset
from hansa.data.groups import natural_order
from hansa.data.tables import read_csv, typed_target
from hansa.errors import DataError

SUFFIXES = (".csv", ".npz")

Asked: TypeAlias = int | tuple[str, ...] | None
"""What a plan says of the classes: how many, or their names in order."""


class _Part(NamedTuple):
    """One file's arrays before labels are numbered, so that all files share one numbering.

    A table's target is text where it is names of classes.
    """

    path: Path
    x: Array
    y: Array
    groups: Array | None
    classes: tuple[str, ...] | None
    features: tuple[str, ...] | None

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what must be the same in all files of a folder."""
        kind = _KINDS.get(self.y.dtype.kind, self.y.dtype.kind)
        return (self.x.shape[1:], self.y.shape[1:], kind, self.classes, self.features)


_KINDS = {"i": "whole numbers", "f": "decimal numbers", "U": "text"}


def load_file(
    path: Path, *, target: str | None = None, group: str | None = None, asked: Asked = None
) -> Dataset:
    """Read one .csv or .npz file.

    A .npz file holds the arrays x and y, and may hold groups and classes (names of the labels).
    Text labels are numbered in the order of their names in the plan, or else by name.

    Raises:
      DataError: see `read_csv`, `read_npz` and `Dataset.of`.

    """
    return _dataset(_read(path, target=target, group=group, asked=asked), path.stem, asked)


def load_own(
    path: Path,
    *,
    target: str | None = None,
    group: str | None = None,
    classes: tuple[str, ...] | None = None,
    asked: Asked = None,
) -> Dataset:
    """Read one client's own .csv or .npz file, where the others' files cannot be seen.

    Labels are then numbered by the names of all classes, which the file, the client's `classes` or
    the plan gives, or they are numbers from 0 already; never by what happens to occur in this one
    file.

    Raises:
      DataError: data-labels, the labels would be numbered otherwise elsewhere; and all that
        `load_file` raises.

    """
    part = _read(path, target=target, group=group, asked=classes or asked)
    names = part.classes or classes or _names(part, asked)
    if names is None:
        check_own_labels(part.y, f"The rows of {path.name}")
    return Dataset.of(part.x, part.y, name=path.stem, classes=names, groups=part.groups)


def in_own_order(names: tuple[str, ...]) -> bool:
    """Tell whether names of classes stand as a table with all of them would number its labels."""
    y = typed_target(np.array(names), Path(), counted=True)
    if y.dtype.kind == "f":
        return False
    return np.array_equal(Dataset.of(np.zeros(len(y)), y).y, np.arange(len(y)))


def check_own_labels(y: Array, whose: str) -> None:
    """Refuse labels that mean nothing without those of other clients.

    Raises:
      DataError: data-labels.

    """
    if y.dtype.kind == "f" or not y.size:
        return
    if y.dtype.kind in "biu" and 0 <= int(y.min()) <= int(y.max()) < limits.CLASSES_MAX:
        return
    what = f"from {y.min()} to {y.max()}" if y.dtype.kind in "biu" else f"of dtype {y.dtype}"
    raise DataError(
        "data-labels",
        f"{whose} have labels {what}, which each client would number in its own way.",
        "Number them from 0, or return hansa.Dataset.of(x, y, classes=...) so that all clients "
        "number labels alike; for a file name all of them in the plan's data.classes, or declare "
        "the site's data with classes = [...].",
    )


def load_folder(
    folder: Path, *, part: str = "train", target: str | None = None, asked: Asked = None
) -> Dataset | None:
    """Read one part, train or valid, of every client of a folder.

    Returns:
      The dataset, clients in natural order of their names; None if no client has this part.

    Raises:
      DataError: the folder holds no client, or clients differ in shape, columns or classes.

    """
    clients = _clients(folder, part)
    names = [name for name in sorted(clients, key=natural_order) if clients[name].is_file()]
    if not names:
        return None
    parts, size = [], 0
    for name in names:
        parts.append(_read(clients[name], target=target, group=None, asked=asked))
        _check_alike(parts[0], parts[-1])
        size += parts[-1].x.nbytes
        if size > limits.DATA_BYTES_MAX:
            raise DataError(
                "data-too-large",
                f"The folder {folder} holds more than {limits.DATA_BYTES_MAX:,} bytes of data.",
                "Keep fewer clients in one folder.",
            )
    joined = parts[0]._replace(
        x=np.concatenate([p.x for p in parts]),
        y=np.concatenate([p.y for p in parts]),
        groups=np.repeat(names, [len(p.x) for p in parts]),
    )
    return _dataset(joined, folder.name, asked)


def _clients(folder: Path, part: str) -> dict[str, Path]:
    """Return where each client's part would be."""
    try:
        visible = [p for p in folder.iterdir() if not p.name.startswith(".")]
        nested = [p for p in visible if (p / "train.npz").is_file()]
        single = [p for p in visible if p.suffix.lower() in SUFFIXES and p.is_file()]
    except OSError as error:
        raise _unusable(folder, f"cannot be read: {error}") from error
    if nested and single:
        raise _unusable(folder, f"holds clients as sub-folders and as files ({single[0].name})")
    if nested:
        return {p.name: p / f"{part}.npz" for p in nested}
    if len({p.stem for p in single}) < max(len(single), 1):
        raise _unusable(folder, "holds two files of one client" if single else "holds no client")
    return {p.stem: p for p in single} if part == "train" else {}


def _read(path: Path, *, target: str | None, group: str | None, asked: Asked) -> _Part:
    if path.suffix.lower() == ".csv":
        table = read_csv(path, target=target, group=group)
        y = table.target  # cells are names where names are known
        if not isinstance(asked, tuple):
            y = typed_target(y, path, counted=asked is not None)
        return _Part(path, table.x, y, table.groups, None, table.features)
    if target is not None or group is not None:
        raise DataError(
            "data-option",
            f"{path} has no columns, but target = {target!r}, group = {group!r} was given.",
            "In a .npz file the array y is the target and the array groups the natural key.",
        )
    arrays = read_npz(path, ("x", "y", "groups", "classes"))
    if "x" not in arrays or "y" not in arrays:
        raise DataError(
            "data-bad-file",
            f"The file {path} holds no array x, or no array y.",
            "Write it with numpy.savez(file, x=..., y=...).",
        )
    names = arrays.get("classes")
    classes = None if names is None else _class_names(names, path)
    return _Part(path, arrays["x"], arrays["y"], arrays.get("groups"), classes, None)


def _class_names(names: Array, path: Path) -> tuple[str, ...]:
    plain = names.dtype.kind == "U" and names.ndim == 1
    long = names.dtype.itemsize > 4 * limits.LABEL_CHARS_MAX or names.size > limits.CLASSES_MAX
    if not plain or long or len(set(names.tolist())) < names.size:
        raise DataError(
            "data-bad-file",
            f"The array classes of {path} has shape {names.shape} and dtype {names.dtype}.",
            "Store a list of different, short strings, or leave it out.",
        )
    return tuple(names.tolist())


def _dataset(part: _Part, name: str, asked: Asked) -> Dataset:
    classes = part.classes or _names(part, asked)
    return Dataset.of(part.x, part.y, name=name, classes=classes, groups=part.groups)


def _names(part: _Part, asked: Asked) -> tuple[str, ...] | None:
    """Return the plan's names of classes where the labels are such names."""
    return asked if isinstance(asked, tuple) and part.y.dtype.kind == "U" else None


def _check_alike(first: _Part, other: _Part) -> None:
    if first.kind != other.kind:
        names = ("rows of x", "rows of y", "kind of y", "classes", "columns")
        at = next(i for i in range(5) if first.kind[i] != other.kind[i])
        raise DataError(
            "data-mismatch",
            f"Clients differ in their {names[at]}: {first.path} has {first.kind[at]}, "
            f"{other.path} has {other.kind[at]}.",
            "Write labels as whole numbers or names, and numbers to predict with a decimal point, "
            "alike in all files."
            if names[at] == "kind of y"
            else "All clients of a folder need the same shapes, columns and classes.",
        )


def _unusable(folder: Path, how: str) -> DataError:
    return DataError(
        "data-missing",
        f"The folder {folder} {how}.",
        "Give each client a sub-folder with train.npz, or each a .csv or .npz file.",
    )
