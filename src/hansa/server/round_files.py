"""Files that only open rounds need: what sites upload, and the messages that they fetch.

An update belongs to the run, round and site it was uploaded for: nobody can name another's, or
learn that it is there, and equal runs never remove each other's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hansa.limits import UPLOADS_PER_TASK_MAX
from hansa.store.addresses import Bytes
from hansa.store.blobs import BlobStore
from hansa.store.faults import disk_faults
from hansa.store.files import sync_folder
from hansa.store.spares import NO_SPARES, Spares

if TYPE_CHECKING:
    from hansa.server.keeping import Lineages
    from hansa.server.unsubmitted import Unsubmitted


class _Place(NamedTuple):
    store: BlobStore
    claimed: set[str]  # digests that the site has sent, or has begun to send


class Updates:
    """What sites upload, below `<run>/<round>/<site>`; thread-safe.

    Not synchronised: a site keeps its update until the round is committed (law L5).  One that
    comes when it is, `harden` makes durable.

    Args:
      folder: of the server; made when the first update comes.
      spares: get the files that are removed, and are written over.
    """

    def __init__(self, folder: Path, spares: Spares = NO_SPARES) -> None:
        self.folder, self._spares = folder, spares
        self._lock = threading.Lock()
        self._places: dict[tuple[str, int], dict[str, _Place]] = {}

    def of(self, run: str, number: int, site: str) -> BlobStore:
        """Return what a site has uploaded for a round."""
        with self._lock:
            return self._place(run, number, site).store

    def claim(
        self, run: str, number: int, *, site: str, digest: str, tasks: int = 1
    ) -> BlobStore | None:
        """Return where a site may upload an update; None when it has sent others enough.

        Args:
          run: the run.
          number: of the round.
          site: who sends it.
          digest: of the update.
          tasks: that the site may have had in the round.
        """
        with self._lock:
            place = self._place(run, number, site)
            if digest not in place.claimed and len(place.claimed) >= UPLOADS_PER_TASK_MAX * tasks:
                return None
            place.claimed.add(digest)
            return place.store

    def harden(self, run: str, number: int, *, site: str, digest: str) -> None:
        """Let an update that is there survive a loss of power, with the folders that lead to it.

        Raises:
          ServerError: server-disk-full or server-disk.
        """
        store = self.of(run, number, site)
        if store.harden(digest):
            with disk_faults(f"the update {digest} of {site}"):
                for folder in (store.folder, *store.folder.parents[:3]):
                    sync_folder(folder.parent)

    def forget(self, run: str, *, up_to: int | None = None) -> None:
        """Remove a run's updates, or those of its rounds up to one.

        An upload that is still on its way then finds its folder gone, and fails.
        """
        with self._lock:
            for key in list(self._places):
                if key[0] == run and (up_to is None or key[1] <= up_to):
                    del self._places[key]
        if up_to is None:
            shutil.rmtree(self.folder / run, ignore_errors=True)
            return
        for number in _entries(self.folder / run):
            if int(number) <= up_to:
                with contextlib.suppress(OSError):  # what is not given goes with its folder
                    for update in (self.folder / run / number).glob("*/*"):
                        if update.is_file() and update.suffix != ".tmp":  # which still grows
                            self._spares.give(update)
                shutil.rmtree(self.folder / run / number, ignore_errors=True)

    def remove(self, run: str, number: int, digests: set[str]) -> None:
        """Remove some updates of a round that others may still be uploaded for."""
        with self._lock:
            stores = [place.store for place in self._places.get((run, number), {}).values()]
        for store in stores:
            for digest in digests.intersection(store.digests()):
                store.remove(digest)

    def sweep(self, runs: set[str], wanted: set[str]) -> None:
        """Remove what a crash has left, before anything is uploaded.

        Args:
          runs: that go on.
          wanted: digests of the updates that count in their open rounds.
        """
        for run in _entries(self.folder):
            if run not in runs:
                shutil.rmtree(self.folder / run, ignore_errors=True)
        for store in self.stores():
            store.sweep_partials()
            for digest in set(store.digests()) - wanted:
                store.remove(digest)

    def stores(self) -> Iterator[BlobStore]:
        """Give the store of every run, round and site."""
        for run in _entries(self.folder):
            for number in _entries(self.folder / run):
                for site in _entries(self.folder / run / number):
                    yield BlobStore(self.folder / run / number / site, durable=False)

    def _place(self, run: str, number: int, site: str) -> _Place:
        places = self._places.setdefault((run, number), {})
        if site not in places:
            folder = self.folder / run / str(number) / site
            store = BlobStore(folder, durable=False, spares=self._spares)
            places[site] = _Place(store, store.begun())
        return places[site]


class Messages:
    """Messages of open rounds, in one store from which sites fetch; thread-safe.

    Equal messages of several runs are one file, which stays until no run needs it.

    Args:
      store: emptied when the server starts, for messages are made again.
    """

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._needed: dict[str, set[str]] = {}  # runs by digest

    def put(self, run: str, digest: str, parts: Sequence[Bytes]) -> None:
        """Store a message that a run needs.

        Raises:
          ServerError: server-disk-full or server-disk.
        """
        with self._lock:  # from here on, nobody else's end removes it
            self._needed.setdefault(digest, set()).add(run)
        self.store.put_bytes(parts)

    def drop(self, run: str, digests: Sequence[str]) -> None:
        """Forget messages that a run no longer needs."""
        with self._lock:
            for digest in digests:
                runs = self._needed.get(digest, set())
                runs.discard(run)
                if not runs:
                    self._needed.pop(digest, None)
                    self.store.remove(digest)

    def forget(self, run: str) -> None:
        """Forget all messages of a run that has ended."""
        with self._lock:
            mine = [digest for digest, runs in self._needed.items() if run in runs]
        self.drop(run, mine)


class Stores(NamedTuple):
    """Where a server's runs keep their files."""

    blobs: BlobStore  # models and packages, durable
    messages: Messages  # of open rounds; made again after a crash
    updates: Updates  # of open rounds; sites send them again after a crash
    spill: Path  # a folder for each run: updates of rules that are not sums
    spares: Spares  # files of rounds that are over
    trail: threading.Lock  # held while it is recorded which models are needed, and while some go
    lineages: Lineages | None = None  # of models that no run needs, and whose plan wants them
    unsubmitted: Unsubmitted | None = None  # what somebody has been told is there

    def let_go(self, digest: str) -> None:
        """Remove a model that no run needs any longer, unless a submission may count on it."""
        (self.blobs.remove if self.unsubmitted is None else self.unsubmitted.let_go)(digest)

    def forget(self, run: str) -> None:
        """Remove what only a run that has ended would need."""
        self.updates.forget(run)
        self.messages.forget(run)
        shutil.rmtree(self.spill / run, ignore_errors=True)
        self.spares.clear()

    def sweep(self, runs: set[str], wanted: set[str]) -> None:
        """Remove what a crash has left; see `Updates.sweep`."""
        self.blobs.sweep_partials()
        self.messages.store.sweep_partials()
        for digest in list(self.messages.store.digests()):
            self.messages.store.remove(digest)
        self.updates.sweep(runs, wanted)
        shutil.rmtree(self.spill, ignore_errors=True)  # written again from the updates
        self.spares.clear()


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
