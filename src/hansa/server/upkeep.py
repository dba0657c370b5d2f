"""Which files a server's database speaks of, and which files are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, select

from hansa.clock import wall
from hansa.limits import DOCTOR_ORPHAN_S
from hansa.protocol.messages import Submission
from hansa.server.journal import HELD, STATE
from hansa.store import tables
from hansa.store.blobs import BlobStore
from hansa.store.database import Database


class Wanted(NamedTuple):
    """A blob that must be there."""

    run: str
    what: str  # such as "round 3's model"
    digest: str


def wanted_blobs(database: Database) -> list[Wanted]:
    """Return packages of all runs, the models that runs keep, and the state of the last round.

    Raises:
      ServerError: as `Database.read`.
    """
    return database.read(lambda connection: list(_wanted(connection)))


def _wanted(connection: Connection) -> Iterator[Wanted]:
    runs, trail = tables.runs, tables.trail
    for run, text in connection.execute(select(runs.c.run, runs.c.submission)):
        submission = msgspec.json.decode(text, type=Submission)
        yield Wanted(run, "the package", submission.package.digest)
    rows = connection.execute(select(trail).order_by(trail.c.run, trail.c.round))
    for row in rows.all():
        what = "the state of its algorithm" if row.round == STATE else f"round {row.round}'s model"
        what = "a client's latest model" if row.round <= HELD else what
        yield Wanted(row.run, what, row.digest)


def missing_models(database: Database, blobs: BlobStore) -> list[Wanted]:
    """Return what must be there and is not.

    Raises:
      ServerError: as `Database.read`.
    """
    return [wanted for wanted in wanted_blobs(database) if not blobs.has(wanted.digest)]


def left_over(store: BlobStore, wanted: set[str]) -> list[Path]:
    """Return files of a store that nothing has referred to for a day."""
    before = wall() - DOCTOR_ORPHAN_S
    found = []
    for digest in store.digests():
        if digest in wanted:
            continue
        path = store.path(digest)
        try:
            if path.stat().st_mtime < before:
                found.append(path)
        except FileNotFoundError:
            continue  # removed meanwhile
    return found
