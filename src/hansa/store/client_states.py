"""What clients keep between their rounds, such as SCAFFOLD's control variates.

One file per client and round, so that a round which is run again after a crash starts from the
states that were committed, not from those that the first attempt left behind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from blake3 import blake3

from hansa.algorithms import Vectors
from hansa.errors import SiteError
from hansa.limits import READ_AHEAD_BYTES
from hansa.params import Params, encode
from hansa.store.addresses import digest_of_file
from hansa.store.files import load_params, sync_folder, write_durably
from hansa.store.task_states import TaskStates


class StoredVector:
    """A 1-D vector in a file, which is open only while some of it is read.

    A memory map would keep a file descriptor for each of a thousand clients, and systems allow no
    more.  Short slices are served from a piece that is read ahead.

    Args:
      path: file, which must not change.
      dtype: of a value.
      size: number of values.
      offset: byte at which they begin.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], size: int, *, offset: int) -> None:
        self.path, self._offset = path, offset
        self.dtype, self.size, self.shape = dtype, size, (size,)
        self._start, self._ahead = 0, np.empty(0, dtype)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, where: slice) -> np.ndarray[Any, np.dtype[Any]]:
        start, stop, step = where.indices(self.size)
        if step != 1:
            return self._read(0, self.size)[where]
        ahead = READ_AHEAD_BYTES // self.dtype.itemsize
        if stop - start > ahead:
            return self._read(start, stop)
        if not self._start <= start <= stop <= self._start + len(self._ahead):
            self._start, self._ahead = start, self._read(start, min(start + ahead, self.size))
        return self._ahead[start - self._start : max(start, stop) - self._start]

    def __array__(
        self, dtype: Any = None, copy: bool | None = None
    ) -> np.ndarray[Any, np.dtype[Any]]:
        if copy is False:
            raise ValueError("A vector in a file becomes an array only as a copy.")
        return self._read(0, self.size).astype(dtype or self.dtype, copy=False)

    def _read(self, start: int, stop: int) -> np.ndarray[Any, np.dtype[Any]]:
        offset = self._offset + start * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, count=max(0, stop - start), offset=offset)


class ClientStates:
    """Client states in a folder; a client that never took part has none.

    Args:
      folder: below the run folder; made when the first state is saved.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, client: str, *, before: int) -> Vectors | None:
        """Return the state that a client had when round `before` began."""
        rounds = [r for r in self._rounds(client) if r < before]
        if not rounds:
            return None
        path = self._path(client, max(rounds))
        _check_whole(path)
        params = load_params(path)
        return Vectors(params.copy().to_dict())

    def save(self, client: str, number: int, state: Vectors) -> None:
        """Keep a client's state of a round; forget those that no resumption can ask for."""
        if state:
            self._forget(client, number)
            _write(self._path(client, number), Params.of(dict(state)))

    def keep(self, client: str, number: int, file: Path) -> None:
        """Take a file with a client's state of a round into the folder, durably and checked.

        Its digest lies beside it from before it is there, and `load` looks at it: no one else has
        this state, and a damaged one would go into an update unnoticed.
        """
        load_params(file)  # refuses one that could not be read back
        self._forget(client, number)
        path = self._path(client, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of an earlier attempt, whose digest is another
        with open(file, "r+b") as written:
            os.fsync(written.fileno())
        write_durably(_digest_path(path), [digest_of_file(file)[0].encode()])
        os.replace(file, path)
        sync_folder(path.parent)

    def drop(self, client: str, number: int) -> None:
        """Forget a state of a round in which the client's update did not count."""
        _remove(self._path(client, number))

    def spill(
        self, client: str, number: int, vectors: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        """Write vectors to disk and return them to be read from there; `clear` removes them."""
        _write(self._spill_path(client, number), Params.of(dict(vectors)))
        return self.spilled(client, number)

    def spilled(self, client: str, number: int) -> Mapping[str, np.ndarray]:
        """Return what `spill` wrote, here or in another process."""
        path = self._spill_path(client, number)
        params = load_params(path)
        body = params.nbytes - params.layout.nbytes
        stored = {
            name: StoredVector(path, params[name].dtype, params[name].size, offset=body + start)
            for name, _, _, start, _ in params.layout.specs
        }
        # Rules over all updates ask for size, dtype, slices and np.array(...) only.
        return cast(Mapping[str, np.ndarray], stored)

    def clear(self) -> None:
        """Remove what `spill` wrote, once the round is over."""
        for path in (self._folder / "updates").glob("*.safetensors"):
            path.unlink(missing_ok=True)

    def of_tasks(self) -> TaskStates:
        """Return what clients keep between named tasks, which is beside these."""
        return TaskStates(self._folder / "tasks")

    def _spill_path(self, client: str, number: int) -> Path:
        return self._folder / "updates" / f"{number}-{file_name(client)}.safetensors"

    def _forget(self, client: str, number: int) -> None:
        """Remove the states of earlier rounds, but for the last of them."""
        kept = [r for r in self._rounds(client) if r < number]
        for old in sorted(kept)[:-1]:
            _remove(self._path(client, old))

    def _path(self, client: str, number: int) -> Path:
        name = file_name(client)
        return self._folder / name[:2] / f"{name}.{number}.safetensors"

    def _rounds(self, client: str) -> list[int]:
        name = file_name(client)
        try:
            found = os.listdir(self._folder / name[:2])
        except FileNotFoundError:
            return []
        return [int(f.split(".")[1]) for f in found if f.startswith(name) and f.endswith("rs")]


def file_name(client: str) -> str:
    """Return a name that is safe on every file system, whatever the client is called."""
    return blake3(client.encode()).hexdigest()[:24]


def _digest_path(state: Path) -> Path:
    return state.with_suffix(".digest")


def _remove(state: Path) -> None:
    state.unlink(missing_ok=True)
    _digest_path(state).unlink(missing_ok=True)


def _check_whole(state: Path) -> None:
    """Compare a state with its digest, where `keep` has left one.

    Raises:
      SiteError: site-damaged.
    """
    try:
        expected = _digest_path(state).read_text("ascii", "replace")
    except FileNotFoundError:
        return
    if digest_of_file(state)[0] != expected:
        raise SiteError(
            "site-damaged",
            f"What is kept here between rounds, {state.name}, is not as it was written.",
            "Restore the site's folder states/ from a backup; or deny the run and submit it anew.",
        )


def _write(path: Path, params: Params) -> None:
    """Write so that a killed process leaves the whole file or none.

    There is no fsync here: the folder serves one simulation on one machine, and a state that a
    power cut damages is refused by its header when it is read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header, body = encode(params)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(header)
        file.write(body)
    os.replace(temporary, path)
