"""From declearn's split of a data set to one of Hansa's.

    data_iid/client_0/train_data.npy  train_target.npy  valid_data.npy  valid_target.npy
    data/client_0/train.npz  valid.npz

A folder that `hansa split` has written is taken as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hansa.compat.declearn.optimizers import refused
from hansa.data import Dataset
from hansa.data.folders import load_folder
from hansa.data.groups import natural_order
from hansa.data.split import save_part
from hansa.limits import CLASSES_MAX, DATA_BYTES_MAX

_SPLIT = "declearn-split or hansa split makes such folders; --data names one."


class Rows(NamedTuple):
    """Every client's rows."""

    folder: Path
    renamed: dict[str, str]  # folders whose names no site may have, and the names they get
    train: dict[str, Dataset]
    valid: dict[str, Dataset]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one example."""
        return next(iter(self.train.values())).x.shape[1:]

    @property
    def classes(self) -> int:
        """Return how many classes there are; 0 where targets are numbers."""
        return len(next(iter(self.train.values())).classes or ())

    def save(self, folder: Path) -> None:
        """Write them as `hansa split` would."""
        for part, clients in (("train", self.train), ("valid", self.valid)):
            for client, rows in clients.items():
                (folder / client).mkdir(parents=True, exist_ok=True)
                save_part(folder / client / f"{part}.npz", rows)


def read_rows(
    folder: Path, names: Sequence[str] | None, parts: Mapping[str, str], classes: int | None
) -> Rows:
    """Read the rows of clients.

    Args:
      folder: with a folder for each client.
      names: of the clients; None takes all.
      parts: how the files train_data, train_target, valid_data and valid_target begin.
      classes: how many there are at least; 0 where targets are numbers, None where either may be.

    Raises:
      PlanError: import-refused, something is not there or cannot be used.
      DataError: rows and targets do not fit together.
    """
    found = sorted(
        (p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."), key=natural_order
    )
    for name in names or ():
        if name not in found:
            raise refused(f"{folder} has no folder {name!r}.", _SPLIT)
    chosen = list(dict.fromkeys(names or found))
    if not chosen:
        raise refused(f"{folder} has no folder of a client.", _SPLIT)
    sites = _site_names(chosen)
    if (folder / chosen[0] / "train.npz").is_file():
        return _own(folder, sites)
    size, arrays = 0, {}
    for name in chosen:
        for part, begins in parts.items():
            arrays[name, part] = _array(folder / name, begins, part)
            size += arrays[name, part].nbytes
            if size > DATA_BYTES_MAX:
                raise refused(f"{folder} holds more than {DATA_BYTES_MAX:,} bytes.",
                              "Name fewer clients in [data] client_names.")  # fmt: skip
    named = _checked(arrays, classes)
    made: dict[str, dict[str, Dataset]] = {"train": {}, "valid": {}}
    for part, clients in made.items():
        for name in chosen:
            x, y = arrays[name, f"{part}_data"], arrays[name, f"{part}_target"]
            y = y if named or y.dtype.kind == "f" else y.astype(np.float64)
            clients[sites[name]] = Dataset.of(x, y, name=name, classes=named)
    return Rows(folder, _renamed(sites), made["train"], made["valid"])


def _site_names(folders: list[str]) -> dict[str, str]:
    """Return the name of each client as a site's: small letters, digits, dots and lines."""
    sites: dict[str, str] = {}
    for folder in folders:
        name = re.sub(r"[^a-z0-9._-]+", "-", folder.lower()).strip("._-")[:64]
        if not name or name in sites.values():
            raise refused(f"The client {folder} has no name of its own that a site may have.",
                          "Rename its folder: small letters, digits, - and _.")  # fmt: skip
        sites[folder] = name
    return sites


def _renamed(sites: Mapping[str, str]) -> dict[str, str]:
    return {folder: name for folder, name in sites.items() if folder != name}


def _checked(
    arrays: Mapping[tuple[str, str], np.ndarray], classes: int | None
) -> tuple[str, ...] | None:
    """Return the names of all classes, where targets are labels; refuse what cannot be trained on.

    Raises:
      PlanError: import-refused.
    """
    targets = [array for (_, part), array in arrays.items() if part.endswith("target")]
    shapes: dict[tuple[int, ...], str] = {}
    for (name, part), array in arrays.items():
        if part == "train_data" and array.shape[:1] in ((), (0,)):
            raise refused(f"{name} has no rows in {part}.", "Leave it out of client_names.")
        if part.endswith("data"):
            shapes.setdefault(array.shape[1:], name)
        elif array.dtype.kind not in "biuf":
            raise refused(f"Targets of {name} are no numbers, but {array.dtype}.",
                          "Number classes from 0 up.")  # fmt: skip
        elif classes is not None and (several := math.prod(array.shape[1:])) > 1:
            raise refused(f"{name} has {several} targets for each row, and metrics take one.",
                          "Leave [experiment] metrics out: the loss is measured.")  # fmt: skip
    if not any(len(y) for (_, part), y in arrays.items() if part == "valid_target"):
        raise refused("No client has rows in valid_data.", _SPLIT)
    if len(shapes) > 1:
        (one, its), (other, others) = [*shapes.items()][:2]
        raise refused(f"{its} has rows of shape {one}, and {others} has {other}.",
                      "All clients need the same.")  # fmt: skip
    if classes == 0 or any(y.dtype.kind == "f" for y in targets):
        return None
    labels = np.unique(np.concatenate([y.ravel() for y in targets])).astype(np.int64)
    count = max(classes or 0, int(labels[-1]) + 1)
    one_each = all(y.ndim == 1 for y in targets)
    if labels[0] < 0 or (classes is None and one_each and len(labels) < count):
        some = ", ".join(map(str, labels[:5])) + (" ..." if len(labels) > 5 else "")
        raise refused(
            f"Targets are the labels {some}, and not 0 and up.",
            "Number classes from 0 up without a gap, or name all in multi-classif's labels; where "
            "they are numbers to predict, ask for a metric such as mse.",
        )
    if count > CLASSES_MAX:
        raise refused(f"Targets are labels of {count:,} classes; up to {CLASSES_MAX:,} are read.",
                      "Store numbers to predict as floats.")  # fmt: skip
    return tuple(map(str, range(count)))


def _own(folder: Path, sites: Mapping[str, str]) -> Rows:
    made: dict[str, dict[str, Dataset]] = {"train": {}, "valid": {}}
    for part, clients in made.items():
        rows = load_folder(folder, part=part)
        if rows is None:
            continue
        for name, site in sites.items():
            at = np.flatnonzero(np.asarray(rows.groups) == name)
            if len(at):
                clients[site] = rows.take(at)
    return Rows(folder, _renamed(sites), made["train"], made["valid"])


def _array(folder: Path, begins: str, part: str) -> np.ndarray:
    """Read the one file of a client that begins so."""
    files = sorted(p for p in folder.glob(f"{begins}*") if p.is_file())
    if len(files) != 1:
        raise refused(f"{folder} has {len(files)} files {begins}.*, and not one.", _SPLIT)
    path = files[0]
    if path.stat().st_size > DATA_BYTES_MAX:
        raise refused(f"{path} has more than {DATA_BYTES_MAX:,} bytes.", "Split it further.")
    try:
        if path.suffix == ".npy":
            array: np.ndarray = np.load(path, allow_pickle=False)
        elif path.suffix == ".csv":
            array = _table(path)
            if part.endswith("target") and array.shape[1] == 1:
                array = array[:, 0]
        else:
            raise refused(f"{path.name} is of a kind that is not read.", "Write .npy or .csv.")
    except (OSError, ValueError, EOFError) as error:
        why = str(error).rstrip(".")
        raise refused(f"{path} cannot be read: {why}.", "Write it as .npy.") from None
    return array


def _table(path: Path) -> np.ndarray:
    """Read a table with a line of names, whole numbers as such, as declearn does."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    if not lines:
        raise ValueError("it has no row below the names")
    try:
        return np.loadtxt(lines, np.int64, delimiter=",", ndmin=2)
    except ValueError:
        return np.loadtxt(lines, delimiter=",", ndmin=2)
