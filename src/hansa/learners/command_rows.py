"""A client's rows as a file that a command in any language can read."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hansa.errors import LearnerError
from hansa.params import Params, encode


@dataclass(frozen=True)
class DataPath:
    """A client's data that Hansa does not read: the command knows what they are."""

    path: Path

    def __len__(self) -> int:
        """Return 1: how many examples there are is the command's to say."""
        return 1


class Rows:
    """Files with rows, each written once for as long as its rows are in memory.

    Args:
      form: npz, csv or safetensors.
    """

    def __init__(self, form: str) -> None:
        self._form = form
        self._written: dict[tuple[int, int], Path] = {}  # by identity of x and y
        self._count = 0

    def file(self, data: Any, folder: Path) -> Path:
        """Return the file with a client's rows, below a folder.

        Raises:
          LearnerError: learner-data, these are no rows, or they cannot be written.
        """
        if isinstance(data, DataPath):
            return data.path
        x, y = getattr(data, "x", None), getattr(data, "y", None)
        if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
            raise LearnerError(
                "learner-data",
                f"A command learner cannot write {type(data).__name__} to a file.",
                "Give arrays (x, y), or let it read its client's own files: learner.rows = 'path'.",
            )
        if (id(x), id(y)) in self._written:
            return self._written[id(x), id(y)]
        self._count += 1
        path = folder / f"rows-{self._count}.{self._form}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _WRITERS[self._form](path, x, y, getattr(data, "classes", None))
            path.chmod(0o444)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise LearnerError(
                "learner-data",
                f"{len(x):,} rows of {x.nbytes >> 20} MiB cannot be written for a command: "
                f"{error.strerror or error}.",
                "Free some space, or let it read its client's own files: learner.rows = 'path'.",
            ) from None
        self._written[id(x), id(y)] = path
        for array in (x, y):
            weakref.finalize(array, _forget, self._written, (id(x), id(y)), path).atexit = False
        return path


def _forget(written: dict[tuple[int, int], Path], key: tuple[int, int], path: Path) -> None:
    written.pop(key, None)
    path.unlink(missing_ok=True)


def _npz(path: Path, x: np.ndarray, y: np.ndarray, classes: Any) -> None:
    named: dict[str, Any] = {"classes": np.array(classes)} if classes else {}
    np.savez(path, x=x, y=y, **named)


def _safetensors(path: Path, x: np.ndarray, y: np.ndarray, classes: Any) -> None:
    with path.open("wb") as file:
        for part in encode(Params.of({"x": x, "y": y})):
            file.write(part)


def _csv(path: Path, x: np.ndarray, y: np.ndarray, classes: Any) -> None:
    """Write columns x0, x1, ... and y, with digits enough to read the same numbers again."""
    features, targets = x.reshape(len(x), -1), y.reshape(len(y), -1)
    names = [f"x{i}" for i in range(features.shape[1])]
    names += ["y"] if targets.shape[1] == 1 else [f"y{i}" for i in range(targets.shape[1])]
    forms = [_digits(features)] * features.shape[1] + [_digits(targets)] * targets.shape[1]
    table = np.hstack([features.astype(np.float64), targets.astype(np.float64)])
    np.savetxt(path, table, fmt=forms, delimiter=",", header=",".join(names), comments="")


def _digits(values: np.ndarray) -> str:
    if values.dtype.kind in "biu":
        return "%d"
    return "%.9g" if values.dtype.itemsize <= 4 else "%.17g"


_WRITERS: dict[str, Callable[[Path, np.ndarray, np.ndarray, Any], None]] = {
    "npz": _npz,
    "csv": _csv,
    "safetensors": _safetensors,
}
