"""Load a dataset by name or by path; nothing is ever downloaded."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np

from hansa.data.dataset import Array, Dataset
from hansa.data.folders import SUFFIXES, Asked, load_file, load_folder
from hansa.data.mnist import load_mnist, load_mnist5k
from hansa.errors import DataError

SHIPPED_FOLDER = Path(__file__).parent / "files"
SHIPPED = ("breast_cancer", "digits")
NAMES = (*SHIPPED, "mnist", "mnist5k")
"""The datasets that have a name; everything else is a path."""


def load(
    name: str | Path,
    *,
    folder: Path | None = None,
    target: str | None = None,
    group: str | None = None,
    classes: Asked = None,
) -> Dataset:
    """Load a dataset: one of `NAMES`, a .csv or .npz file, or a folder of clients' files.

    Named datasets have float32 x.  digits: [1797, 64] from 0 to 1; breast_cancer: [569, 30],
    each column with mean 0 and standard deviation 1; mnist5k and mnist: [n, 28, 28] from 0 to 1,
    training images only.

    Args:
      name: the name, or a path; a name wins over a folder, so write "./digits" for that.
      folder: where to look first; a relative path is relative to it.
      target: the column of a .csv file to predict.
      group: the column of a .csv file with natural keys.
      classes: what a plan says of them: how many, or names, by whose order text is numbered.

    Raises:
      DataError: there is no such dataset, it is not installed, or its files cannot be used.

    >>> load("digits").x.shape
    (1797, 64)

    """
    if name in NAMES:
        _refuse_columns(str(name), target=target, group=group)
        return _named(str(name), folder)
    path = _path(name, folder)
    if not path.is_dir():
        return load_file(path, target=target, group=group, asked=classes)
    if group is not None:
        _refuse_columns(f"The folder {path}", target=None, group=group)
    found = load_folder(path, target=target, asked=classes)
    assert found is not None  # a folder without train parts was refused
    return found


def load_test(
    name: str | Path, *, folder: Path | None = None, classes: Asked = None
) -> Dataset | None:
    """Load the held-out rows that come with a dataset, or None where there are none.

    These are MNIST's official test images, and the valid.npz parts of a folder that `write_split`
    made.  For other datasets, hold rows out with `Dataset.holdout`.

    Raises:
      DataError: as `load`.

    """
    if name == "mnist":
        return load_mnist(folder, part="t10k")
    if name in NAMES:
        return None
    path = _path(name, folder)
    return load_folder(path, part="valid", asked=classes) if path.is_dir() else None


def _named(name: str, folder: Path | None) -> Dataset:
    if name == "mnist":
        return load_mnist(folder)
    if name == "mnist5k":
        return load_mnist5k(folder)
    data = load_file(SHIPPED_FOLDER / f"{name}.npz")
    return data._replace(x=_scaled(name, data.x).astype(np.float32))


def _scaled(name: str, x: Array) -> Array:
    """Bring features to a size that gradient descent can use."""
    if name == "digits":
        return np.asarray(x / 16)  # pixels from 0 to 16
    return np.asarray((x - x.mean(axis=0)) / x.std(axis=0))


def _path(name: str | Path, folder: Path | None) -> Path:
    path = Path(name) if folder is None else folder / name
    if path.is_dir() or (path.is_file() and path.suffix.lower() in SUFFIXES):
        return path
    if path.is_file():
        raise DataError(
            "data-bad-file",
            f"The file {path} has a suffix that Hansa does not read.",
            f"Convert it to one of: {', '.join(SUFFIXES)}.",
        )
    if path.suffix.lower() in SUFFIXES or len(Path(name).parts) > 1:
        raise DataError(
            "data-missing",
            f"There is no file or folder {path}.",
            f"Relative paths start at {Path.cwd() if folder is None else folder}.",
        )
    near = difflib.get_close_matches(str(name).lower(), NAMES, n=1)
    raise DataError(
        "data-unknown-name",
        f"There is no dataset {str(name)!r}, and no file or folder of that name.",
        f"Did you mean {near[0]!r}?" if near else f"Names: {', '.join(NAMES)}; or give a path.",
    )


def _refuse_columns(what: str, *, target: str | None, group: str | None) -> None:
    if target is not None or group is not None:
        raise DataError(
            "data-option",
            f"{what} lets nobody choose columns, but target = {target!r}, group = {group!r}.",
            "Leave them out; they choose columns of a .csv file.",
        )
