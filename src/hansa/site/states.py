"""What this site keeps of itself between a run's rounds, such as SCAFFOLD's control variate.

    states/<run>/..                   the states, as `ClientStates` keeps them
    states/<run>/uncounted/<round>    digest of the update that came with a state, until its receipt
    states/<run>/tasks/..             states of named tasks, as `TaskStates` keeps them
    parts/<run>/..                    the last of those, once the run is over; for the owner

A state belongs to an update.  If the round closes without that update, the state has never been:
the next round must not begin from it.  So a state is provisional until the server's receipt.
A state of a named task is another matter: the next question says by its digest which one it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from hansa.store.client_states import ClientStates
from hansa.store.files import sync_folder, write_durably


class OwnStates:
    """The states of one site in all its runs.

    Args:
      folder: of the site.
      name: of the site.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder / "states", name
        self._parts = folder / "parts"

    def folder(self, run: str) -> Path:
        """Return the folder of a run's states, which is there."""
        place = self._folder / run
        place.mkdir(parents=True, exist_ok=True)
        return place

    def keep(self, run: str, round: int, file: Path, *, update: str) -> None:
        """Keep a state provisionally, with the digest of the update that it belongs to."""
        place = self._mark(run, round)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_durably(place, [update.encode()])  # first: a state without a mark counts
        self._states(run).keep(self._name, round, file)

    def keep_of_task(self, run: str, round: int, file: Path, *, begun: str) -> None:
        """Keep the state that a named task has left, and the one that it began from."""
        self._states(run).of_tasks().keep(self._name, round, file, begun=begun)

    def counted(self, run: str, round: int) -> None:
        """A round's update has its receipt: the state holds."""
        place = self._mark(run, round)
        if place.exists():
            place.unlink()
            sync_folder(place.parent)

    def uncounted(self, run: str, round: int) -> None:
        """Go back to the state before a round whose update did not count."""
        self._states(run).drop(self._name, round)
        self._mark(run, round).unlink(missing_ok=True)

    def provisional(self, run: str, *, before: int) -> dict[int, str]:
        """Return the earlier rounds whose update has no receipt here, with its digest."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for place in (self._folder / run / "uncounted").iterdir():
                if place.name.isdecimal() and int(place.name) < before:
                    found[int(place.name)] = place.read_text("ascii", "replace")
        return found

    def forget(self, run: str) -> None:
        """Remove all of a run, but for this site's part of a split model: nobody else has it."""
        for part in self._states(run).of_tasks().newest(self._name):
            place = self._parts / run
            place.mkdir(parents=True, exist_ok=True)
            os.replace(part, place / part.name)
        shutil.rmtree(self._folder / run, ignore_errors=True)

    def runs(self) -> list[str]:
        """Return the runs of which anything is kept."""
        with contextlib.suppress(FileNotFoundError):
            return [path.name for path in self._folder.iterdir()]
        return []

    def _states(self, run: str) -> ClientStates:
        return ClientStates(self._folder / run)

    def _mark(self, run: str, round: int) -> Path:
        return self._folder / run / "uncounted" / f"{round:06d}"
