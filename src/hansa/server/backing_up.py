"""A copy of a whole server, made while it runs; the copy is a server's folder that can be started.

First the blobs are linked or copied, which may take long and disturbs nobody.  Then the writers of
the database are held for a moment, in which the database and the blobs that are new since then are
copied: so all that the copied database speaks of is there.  Models that plans keep besides are cut
to the rounds that the copied database has.  Updates and messages of rounds that are
going on are left out; sites send them again (law L5).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hansa.errors import ServerError
from hansa.identity.keys import write_secret
from hansa.limits import BACKUP_HOLD_S, BACKUP_NEW_MAX, BACKUP_PASSES_MAX
from hansa.server.audit import write_audit
from hansa.server.journal import Journal
from hansa.server.keeping import LINEAGES
from hansa.server.opening import BACKED_UP, DATABASE_FILE, OPERATOR, SECRET, Opened
from hansa.server.settings import SETTINGS_FILE
from hansa.server.upkeep import missing_models
from hansa.store.blobs import BlobStore
from hansa.store.database import Database, open_database
from hansa.store.database import backup as copy_database
from hansa.store.faults import disk_faults
from hansa.store.files import write_durably
from hansa.store.lineage import copy_lineages, cut_lineages

PUBLIC = ("ca.pem", "tls.pem")


class BackedUp(NamedTuple):
    """A finished backup."""

    folder: Path
    blobs: int
    bytes: int  # of blobs
    linked: bool  # blobs share their bytes with the server's: the same disk


def back_up(server: Opened, target: Path) -> BackedUp:
    """Copy a server into a folder, or bring the copy in that folder up to date.

    Args:
      server: it may be running.
      target: empty, absent, or an earlier backup of this server.

    Raises:
      ServerError: server-backup, the folder holds something else; server-disk-full, server-disk.
    """
    _check_target(server, target)
    with disk_faults(f"a backup in {target}"):
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.chmod(0o700)  # it holds the federation's keys
    detail = "with the federation's keys"
    write_audit(server.database, OPERATOR, BACKED_UP, object=str(target.resolve()), detail=detail)
    _copy_keys(server.folder, target)
    store = BlobStore(server.folder / "blobs", durable=True)
    _copy_most(store, target / "blobs")
    models, copies = server.folder / LINEAGES, target / LINEAGES
    copy_lineages(models, copies)
    with _writers_held(server.database.path):
        copy_database(server.database, target)
        store.backup(target / "blobs")
        present = set(store.digests())
        copy_lineages(models, copies)
    _drop_others(target / "blobs", present)
    copy = open_database(target / DATABASE_FILE)
    try:
        _check_whole(copy, target)
        cut_lineages(models, copies, Journal(copy, lambda _: None).last_rounds())
    finally:
        copy.close()
    text = (server.folder / SETTINGS_FILE).read_bytes()
    with disk_faults(f"a backup in {target}"):
        write_durably(target / SETTINGS_FILE, [text])
    return _measured(server.folder, target)


def _copy_most(store: BlobStore, target: Path) -> None:
    """Copy blobs until few are new, so that the writers are not held for long."""
    for _ in range(BACKUP_PASSES_MAX):
        store.backup(target)
        copied = {path.name for path in target.iterdir()}
        lacking = sum(d.removeprefix("blake3:") not in copied for d in store.digests())
        if lacking <= BACKUP_NEW_MAX:
            return


def _check_target(server: Opened, target: Path) -> None:
    if target.resolve() == server.folder.resolve():
        raise _no_backup(f"{target.resolve()} is the server's own folder")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    authority = target / "ca.pem"
    if not authority.is_file() or authority.read_text("utf-8") != server.authority.pem:
        raise _no_backup(f"{target.resolve()} holds something that is no backup of this server")
    if (target / "lock").exists():
        raise _no_backup(f"{target.resolve()} has been started as a server of its own")


def _copy_keys(source: Path, target: Path) -> None:
    """Copy certificates and keys; keys only for this user to read."""
    with disk_faults(f"a backup in {target}"):
        for name in PUBLIC:
            write_durably(target / name, [(source / name).read_bytes()])
        for name in SECRET:
            content, copy = (source / name).read_bytes(), target / name
            if not copy.exists() or copy.read_bytes() != content:
                copy.unlink(missing_ok=True)  # it is a copy; the key itself is not touched
                write_secret(copy, content)


@contextlib.contextmanager
def _writers_held(path: Path) -> Iterator[None]:
    """Let nobody commit for a moment; the running server's writers wait that long."""
    lock = sqlite3.connect(path, isolation_level=None, timeout=BACKUP_HOLD_S)
    try:
        lock.execute("BEGIN IMMEDIATE")
        yield
        lock.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise ServerError(
            "server-disk",
            f"The database {path} could not be held for the backup: {error}.",
            "Try again; if it goes on, look at it with: hansa server doctor",
        ) from error
    finally:
        lock.close()


def _drop_others(folder: Path, present: set[str]) -> None:
    """Remove blobs of earlier backups that the server has no more."""
    names = {digest.removeprefix("blake3:") for digest in present}
    for path in folder.iterdir():
        if path.is_file() and path.name not in names:
            path.unlink()


def _check_whole(copy: Database, target: Path) -> None:
    """Refuse a copy whose models are not all there: the server lacked them too."""
    gone = missing_models(copy, BlobStore(target / "blobs", durable=True))
    if gone:
        first = f"{gone[0].what} of {gone[0].run}, {gone[0].digest[:19]}"
        raise ServerError(
            "server-backup",
            f"The copy in {target} is not whole: {len(gone)} files are missing, such as {first}. "
            "What could be copied is there.",
            "The server lacks them as well; look at it with: hansa server doctor",
        )


def _measured(source: Path, target: Path) -> BackedUp:
    count = size = shared = 0
    for path in (target / "blobs").iterdir():
        if path.is_file():
            facts = path.stat()
            count, size = count + 1, size + facts.st_size
            original = source / "blobs" / path.name
            with contextlib.suppress(OSError):
                shared += os.path.samestat(facts, original.stat())
    return BackedUp(target, count, size, shared > 0)


def _no_backup(what: str) -> ServerError:
    return ServerError(
        "server-backup",
        f"No backup was made: {what}. Nothing was changed.",
        "Name a new or empty folder, or the folder of an earlier backup.",
    )
