"""A copy of a whole server, made while it runs; the copy is a server's folder that can be started.

First the blobs are linked or copied, which may take long and disturbs nobody.  Then the writers of
the database are held for a moment, in which the blobs that are new since then are copied, and the
database after them: so all that the copied database speaks of is there.  Wherever it is cut off, an
earlier copy keeps its old database and all that one speaks of.  Models that plans keep besides are
cut to the rounds that the copied database has.  Updates and messages of rounds that are
going on are left out; sites send them again (law L5).

A combiner's copy also has its membership of the server above, and its ledger.
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
from hansa.server.opening import BACKED_UP, BACKUP_BEGUN, DATABASE_FILE, OPERATOR, SECRET, Opened
from hansa.server.settings import SETTINGS_FILE, UPWARD, UPWARD_LEDGER
from hansa.server.upkeep import missing_models, wanted_blobs
from hansa.store.blobs import BlobStore
from hansa.store.database import Database, open_database
from hansa.store.database import backup as copy_database
from hansa.store.faults import disk_faults
from hansa.store.files import sync_folder, write_durably
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
    where, detail = str(target.resolve()), "with the federation's keys"
    write_audit(server.database, OPERATOR, BACKUP_BEGUN, object=where, detail=detail)
    _copy_keys(server.folder, target)
    if (server.folder / UPWARD).exists():
        _copy_upward(server.folder, target)
    store = BlobStore(server.folder / "blobs", durable=True)
    _copy_most(store, target / "blobs")
    models, copies = server.folder / LINEAGES, target / LINEAGES
    copy_lineages(models, copies)
    with _writers_held(server.database.path):
        store.backup(target / "blobs")
        present = set(store.digests())
        copy_lineages(models, copies)
        copy_database(server.database, target)
    copy = open_database(target / DATABASE_FILE)
    try:
        _drop_others(target / "blobs", present | {w.digest for w in wanted_blobs(copy)})
        _check_whole(copy, target)
        cut_lineages(models, copies, Journal(copy, lambda _: None).last_rounds())
    finally:
        copy.close()
    text = (server.folder / SETTINGS_FILE).read_bytes()
    with disk_faults(f"a backup in {target}"):
        write_durably(target / SETTINGS_FILE, [text])
    write_audit(server.database, OPERATOR, BACKED_UP, object=where, detail=detail)
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
            _copy_secret(source / name, target / name)


def _copy_upward(source: Path, target: Path) -> None:
    """Copy what makes a server a combiner: its membership of the server above, and its ledger.

    What waits to be sent is left out: its sites send again what it is made of (law L5).
    """
    with disk_faults(f"a backup in {target}"):
        (target / UPWARD).mkdir(mode=0o700, exist_ok=True)
        for path in sorted((source / UPWARD).iterdir()):
            if path.is_file():
                _copy_secret(path, target / UPWARD / path.name)
        ledger = source / UPWARD_LEDGER
        if ledger.exists():  # lines are only added: what is there of it now is a ledger too
            with ledger.open("rb") as lines:
                write_durably(target / UPWARD_LEDGER, lines)


def _copy_secret(source: Path, target: Path) -> None:
    """Copy a file that only this user may read; a crash leaves the copy before it, or this one."""
    content = source.read_bytes()
    if target.exists() and target.read_bytes() == content:
        return
    temporary = target.with_name(f".hansa-{os.urandom(8).hex()}.tmp")
    try:
        write_secret(temporary, content)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


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


def _drop_others(folder: Path, needed: set[str]) -> None:
    """Remove blobs of earlier backups that nobody needs any more."""
    names = {digest.removeprefix("blake3:") for digest in needed}
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
