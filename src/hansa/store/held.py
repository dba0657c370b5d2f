"""Vectors of single clients that a run needs for longer than a round, one file each.

A commit says which stay.  What was written for a round that was never committed is written again
by whoever repeats it, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hansa.params import Params
from hansa.store.client_states import file_name
from hansa.store.files import load_params, save_params

Vector = np.ndarray[Any, np.dtype[Any]]


class Held:
    """A folder of vectors by client and number.

    Args:
      folder: of one run; made when the first are held.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, client: str, number: int, vectors: Mapping[str, Vector]) -> None:
        """Write vectors durably.

        Raises:
          OSError: as the system reports it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        save_params(self._path(client, number), Params.of(dict(vectors)))

    def get(self, client: str, number: int) -> Mapping[str, Vector]:
        """Return vectors that were put, read from their file.

        Raises:
          ParamsError: the file is missing or damaged.
        """
        return load_params(self._path(client, number)).to_dict()

    def keep(self, wanted: Collection[tuple[str, int]]) -> None:
        """Remove all but these."""
        names = {self._path(client, number).name for client, number in wanted}
        for path in self._folder.glob("*.safetensors"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    def _path(self, client: str, number: int) -> Path:
        return self._folder / f"{file_name(client)}.{number}.safetensors"
