"""Models that are kept beside those a run needs: the newest few of each owner, in one place.

An owner is a client by its name, or "" for the run itself, whose models are the global ones.  What
a run needs in order to go on (the last model, the best, the seed) is never only here: whatever this
place loses or drops, no run stops for it.

    memory   in the simulation's process, and gone with it
    disk     files below a folder
    redis    `hansa.store.redis_lineage`
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from hansa.params import Params, encode
from hansa.store.faults import disk_faults
from hansa.store.files import link_or_copy_whole, load_params, write_durably

_FILE = re.compile(r"round-([0-9]{6,18})\.safetensors", re.ASCII)

Owned = tuple[str, Params]
"""An owner's model."""


class Lineage(Protocol):
    """A place where models are kept by owner and round."""

    def add(self, number: int, models: Iterable[Owned], *, newest: int) -> None:
        """Keep models of a round, and drop what is older than each owner's newest.

        Added again, as after a crash, a model takes the place of the one that was there.

        Args:
          number: of the round.
          models: at most one for each owner; may be a generator, so that few are in memory.
          newest: models of each owner that stay, this one among them; 0: all.

        Raises:
          StoreError: the place cannot be used.
          OSError: the disk refused.
        """

    def get(self, owner: str, number: int) -> Params | None:
        """Return a model; None if it is not here."""

    def numbers(self, owner: str) -> list[int]:
        """Return the rounds whose models of an owner are here, oldest first."""


class MemoryLineage:
    """Models in this process."""

    def __init__(self) -> None:
        self._models: dict[str, dict[int, Params]] = {}

    def add(self, number: int, models: Iterable[Owned], *, newest: int) -> None:
        """Keep copies; see `Lineage`."""
        for owner, model in models:
            mine = self._models.setdefault(owner, {})
            mine[number] = model.copy()
            for old in stale(mine, newest):
                del mine[old]

    def get(self, owner: str, number: int) -> Params | None:
        """Return a model; None if it is not here."""
        return self._models.get(owner, {}).get(number)

    def numbers(self, owner: str) -> list[int]:
        """Return the rounds, oldest first."""
        return sorted(self._models.get(owner, {}))


class DiskLineage:
    """Models as files: OWNER/round-000003.safetensors.

    Args:
      folder: made when the first model comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, number: int, models: Iterable[Owned], *, newest: int) -> None:
        """Write files; see `Lineage`."""
        for owner, model in models:
            folder = self._owned(owner)
            folder.mkdir(parents=True, exist_ok=True)
            write_durably(_path(folder, number), encode(model))
            for old in stale(self.numbers(owner), newest):
                _path(folder, old).unlink(missing_ok=True)

    def get(self, owner: str, number: int) -> Params | None:
        """Return a model; None if it is not here."""
        path = _path(self._owned(owner), number)
        return load_params(path) if path.is_file() else None

    def numbers(self, owner: str) -> list[int]:
        """Return the rounds, oldest first."""
        return _numbers(self._owned(owner))

    def _owned(self, owner: str) -> Path:
        return self._folder / (_folder_name(owner) if owner else "global")


def stale(numbers: Iterable[int], newest: int) -> list[int]:
    """Return the rounds that are not among the newest; none with 0, which keeps all.

    >>> stale([4, 2, 9, 7], 2), stale([4, 2], 0)
    ([2, 4], [])
    """
    return sorted(numbers)[:-newest] if newest else []


def copy_lineages(source: Path, target: Path) -> None:
    """Link or copy the models of all runs, RUN/OWNER/..., that another folder has not yet.

    Raises:
      ServerError: server-disk-full or server-disk.
    """
    with disk_faults(f"a backup in {target}"):
        for path in _models(source):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
                if not (copy.exists() and _looks_same(path, copy)):
                    link_or_copy_whole(path, copy)


def cut_lineages(source: Path, target: Path, last: Mapping[str, int]) -> None:
    """Leave in a copy what its runs had at their last commits, as many models as now.

    A round's models are there before its commit, and may have displaced older ones already.

    Args:
      source: what was copied.
      target: the copy, of this moment and before.
      last: committed round of each run.
    """
    with disk_faults(f"a backup in {target}"):
        for folder in {path.parent for path in _models(target)}:
            run, owner = folder.relative_to(target).parts
            newest = len(_numbers(source / run / owner))
            mine = _numbers(folder)
            known = [n for n in mine if n <= last.get(run, -1)]
            for number in {*mine} - {*known[-newest:]} if newest else mine:
                _path(folder, number).unlink(missing_ok=True)


def _models(folder: Path) -> list[Path]:
    found = folder.glob("*/*/round-*")
    return sorted(path for path in found if _FILE.fullmatch(path.name))


def _looks_same(path: Path, copy: Path) -> bool:
    one, other = path.stat(), copy.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _numbers(folder: Path) -> list[int]:
    found = map(_FILE.fullmatch, (p.name for p in folder.glob("round-*")))
    return sorted(int(match[1]) for match in found if match)


def _path(folder: Path, number: int) -> Path:
    return folder / f"round-{number:06d}.safetensors"


def _folder_name(owner: str) -> str:
    """Return a name that is safe on every file system and still tells the owner.

    >>> _folder_name("north"), _folder_name("../x").startswith("client-___x-")
    ('client-north', True)
    """
    safe = re.sub(r"[^A-Za-z0-9-]", "_", owner)[:40]
    exact = safe == owner == owner.lower()  # some file systems do not tell case
    return f"client-{safe}" if exact else f"client-{safe}-{blake3(owner.encode()).hexdigest()[:12]}"
