"""Updates that are not yet part of a committed model: kept until they are (law L5).

A server may die at any instant and ask again; what it gets is the very same file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec

from hansa.protocol.messages import TaskKey, TaskResult
from hansa.store.addresses import digest_of_file
from hansa.store.spares import NO_SPARES, Spares

TensorFacts = tuple[str, str, list[int]]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a task, beside its update file."""

    result: TaskResult
    message: str = ""  # digest of the server's message that it was made from
    tensors: list[TensorFacts] = []
    told: str = ""  # what the server said besides, in words


class Place(NamedTuple):
    """Where a task's files lie."""

    update: Path
    facts: Path


class Outbox:
    """A folder of updates by run and round.

    Args:
      folder: made if need be.
      spares: get the updates that are removed while their run goes on.
    """

    def __init__(self, folder: Path, spares: Spares = NO_SPARES) -> None:
        self._folder, self._spares = folder, spares
        self._whole: set[Path] = set()  # notes of updates that no loss of power can have touched
        folder.mkdir(parents=True, exist_ok=True)

    def place(self, key: TaskKey) -> Place:
        """Return where a task's update is written and its facts are kept."""
        folder = self._folder / key.run
        folder.mkdir(exist_ok=True)
        stem = f"{key.round:06d}-{key.phase}"
        return Place(folder / f"{stem}.safetensors", folder / f"{stem}.json")

    def keep(self, key: TaskKey, kept: Kept) -> None:
        """Note a finished task; a killed process leaves the whole note or none."""
        facts = self.place(key).facts
        temporary = facts.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(kept))
        os.replace(temporary, facts)
        self._whole.add(facts)

    def kept(self, key: TaskKey) -> Kept | None:
        """Return a finished task, if its note and its update are whole."""
        place = self.place(key)
        try:
            kept = msgspec.json.decode(place.facts.read_bytes(), type=Kept)
            update = kept.result.update
            if update is None:
                return kept
            if place.facts in self._whole:
                whole = place.update.stat().st_size == update.size
            else:
                whole = digest_of_file(place.update) == (update.digest, update.size)
        except (OSError, msgspec.MsgspecError):
            return None
        if whole:
            self._whole.add(place.facts)
        return kept if whole else None

    def discard(self, key: TaskKey) -> None:
        """Remove a task's update, which the server has refused."""
        for path in reversed(self.place(key)):  # the note first: without it the rest is nothing
            path.unlink(missing_ok=True)
            self._whole.discard(path)

    def forget(self, run: str, *, up_to: int) -> None:
        """Remove what is part of a committed model, or was never counted."""
        for path in (self._folder / run).glob("*-*.*"):
            number = path.name.partition("-")[0]
            if number.isdecimal() and int(number) <= up_to:
                with contextlib.suppress(OSError):
                    self._spares.give(path)
                    self._whole.discard(path)

    def runs(self) -> list[str]:
        """Return the runs of which anything is kept."""
        return [path.name for path in self._folder.iterdir() if path.is_dir()]

    def forget_run(self, run: str) -> None:
        """Remove all of a run that has ended."""
        shutil.rmtree(self._folder / run, ignore_errors=True)
        self._whole = {place for place in [*self._whole] if place.parent.name != run}
        self._spares.clear()
