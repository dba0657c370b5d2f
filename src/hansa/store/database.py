"""One SQLite database, one thread that writes to it, and a commit for all who wait.

A commit must reach the disk before anybody is told of it, and reaching the disk takes
milliseconds.  So writes that arrive while a commit is under way share the next one, each in a
savepoint of its own: hundreds of acknowledgements a second, all durable.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from hansa.errors import ServerError
from hansa.limits import GROUP_COMMIT_MAX
from hansa.store.faults import disk_failed, disk_full
from hansa.store.files import sync_folder
from hansa.store.tables import SCHEMA_VERSION, metadata

T = TypeVar("T")

_BUSY_MS = 20_000
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class _Write(NamedTuple):
    do: Callable[[Connection], Any]
    done: Future[Any]


class Database:
    """Reads from any thread, and writes through one; made by `open_database`."""

    def __init__(self, path: Path, *, check: bool = True) -> None:
        self.path = path
        self.broken: ServerError | None = None
        self._if_broken: list[Callable[[], object]] = []
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._state = threading.Lock()  # of `broken` and `_closed`, against the queue
        self._closed = False
        self._reader = _engine(path, begin="BEGIN")
        self._writer = _engine(path, begin="BEGIN IMMEDIATE")
        try:
            _prepare(self._writer, path)
            if check:
                _look_through(self._reader, path)
        except BaseException:
            self._dispose()
            raise
        self._thread = threading.Thread(target=self._work, name="hansa-database", daemon=True)
        self._thread.start()

    def on_broken(self, callback: Callable[[], object]) -> None:
        """Have a function called once the disk has failed, from the thread that writes."""
        with self._state:
            self._if_broken.append(callback)
            broken = self.broken is not None
        if broken:
            callback()

    @property
    def engine(self) -> Engine:
        """The engine that writes, for event hooks of tests."""
        return self._writer

    def read(self, fn: Callable[[Connection], T]) -> T:
        """Call a function with a connection that sees one state, and changes nothing.

        Raises:
          ServerError: server-disk, the database cannot be read.
        """
        try:
            with self._reader.connect() as connection, connection.begin():
                return fn(connection)
        except (DBAPIError, sqlite3.Error) as error:
            raise _refusal(error, self.path) or error from error

    def write(self, fn: Callable[[Connection], T]) -> T:
        """Call a function in the thread that writes; return once its changes are durable.

        What the function raises is raised here, and undoes what it has changed and nothing else.
        It must not commit, and should be quick: others wait.

        Raises:
          ServerError: server-disk-full, nothing was changed; server-disk, the disk failed now or
            earlier, and nothing is written any more.
        """
        return self.submit(fn).result()

    def submit(self, fn: Callable[[Connection], T]) -> Future[T]:
        """Do as `write`, without waiting: `await asyncio.wrap_future(database.submit(fn))`."""
        done: Future[T] = Future()
        with self._state:
            if self.broken is not None or self._closed:
                done.set_exception(self.broken or _closed(self.path))
            else:
                self._queue.put(_Write(fn, done))
        return done

    def close(self) -> None:
        """Finish the writes that wait, and close the files; safe to call twice."""
        with self._state:
            first, self._closed = not self._closed, True
            if first:
                self._queue.put(None)
        self._thread.join()
        if first:
            self._dispose()

    def _dispose(self) -> None:
        self._reader.dispose()
        self._writer.dispose()

    def _work(self) -> None:
        """Commit in groups until the end is in the queue."""
        with self._writer.connect() as connection:
            open_ = True
            while open_:
                group, open_ = self._next_group()
                if self.broken is not None:
                    for write in group:
                        write.done.set_exception(self.broken)
                elif group:
                    self._commit(connection, group)

    def _next_group(self) -> tuple[list[_Write], bool]:
        """Wait for a write, and take those that wait with it; False: it was the last group."""
        group: list[_Write] = []
        item = self._queue.get()
        while item is not None:
            if item.done.set_running_or_notify_cancel():
                group.append(item)
            if len(group) >= GROUP_COMMIT_MAX:
                return group, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, connection: Connection, group: list[_Write]) -> None:
        """Do the writes of a group in one transaction, and tell each caller what came of it."""
        answers: list[tuple[Future[Any], Any]] = []
        refused: list[tuple[Future[Any], BaseException]] = []
        try:
            with connection.begin() as transaction:
                for write in group:
                    # One that is alone is undone with its transaction.
                    savepoint = connection.begin_nested() if len(group) > 1 else None
                    try:
                        answer = write.do(connection)
                        if savepoint is not None:
                            savepoint.commit()
                    except BaseException as error:
                        if not _in_transaction(connection):
                            raise  # SQLite has undone the whole group
                        (savepoint or transaction).rollback()
                        refused.append((write.done, error))
                    else:
                        answers.append((write.done, answer))
        except BaseException as error:  # noqa: BLE001 - every caller waits for an answer
            self._fail(connection, group, error)
            return
        for done, answer in answers:
            done.set_result(answer)
        for done, refusal in refused:
            done.set_exception(self._translated(refusal))

    def _translated(self, error: BaseException) -> BaseException:
        return _refusal(error, self.path) or error

    def _fail(self, connection: Connection, group: list[_Write], error: BaseException) -> None:
        """Refuse a group whose transaction is undone, and all later ones unless space is short."""
        refusal = self._translated(error)
        full = isinstance(refusal, ServerError) and refusal.code == "server-disk-full"
        if not full and not _is_busy(error):
            # A failed fsync may have dropped pages, so that a second one would lie.
            if not isinstance(refusal, ServerError):
                refusal = disk_failed(f"changes to {self.path}", str(error))
            with self._state:
                self.broken = refusal
        with contextlib.suppress(DBAPIError):
            connection.rollback()
        for write in group:
            write.done.set_exception(refusal)
        if self.broken is not None:
            for callback in self._if_broken:
                callback()


def open_database(path: str | os.PathLike[str], *, check: bool = True) -> Database:
    """Open a server's database, made if it is not there.

    Args:
      path: of the file, or `sqlite:///` and the path.
      check: read all of it, to find damage; others write meanwhile.

    Raises:
      ServerError: server-database, it is damaged or of a newer release; server-disk; or
        server-disk-full.
    """
    text = os.fspath(path)
    return Database(Path(text.removeprefix("sqlite:///")), check=check)


def backup(database: Database, folder: str | os.PathLike[str]) -> Path:
    """Copy the database as it is at one moment, while it is written to.

    All blobs that it speaks of must be in the folder before it, so that they are there whenever
    it is; see `hansa.server.backing_up`.

    Returns:
      the copy, `folder/hansa.db`, durable.

    Raises:
      ServerError: server-disk-full or server-disk.
    """
    target = Path(folder) / "hansa.db"
    temporary = target.with_name(f".hansa-{os.urandom(8).hex()}.tmp")
    try:
        source = sqlite3.connect(f"file:{database.path}?mode=ro", uri=True)
        copy = sqlite3.connect(temporary, isolation_level=None)
        with contextlib.closing(source), contextlib.closing(copy):
            copy.execute("PRAGMA journal_mode = DELETE")
            source.backup(copy)
        _sync_file(temporary)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except sqlite3.Error as error:
        raise _of_sqlite(error, target) or error from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return target


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _engine(path: Path, *, begin: str) -> Engine:
    """Return an engine whose transactions begin as told, not when the driver thinks fit."""
    readers = begin == "BEGIN"
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool if readers else NullPool,
        connect_args={"check_same_thread": False, "timeout": _BUSY_MS / 1000},
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        if readers:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.execute(begin)  # nothing of it is for SQLAlchemy to know

    return engine


def _prepare(engine: Engine, path: Path) -> None:
    """Check the format of an existing database, or make the tables of a new one, durably."""
    fresh = not path.exists()
    try:
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
            version = raw.cursor().execute("PRAGMA user_version").fetchone()[0]
        finally:
            raw.close()
        if version == SCHEMA_VERSION:  # as ever but once: nobody who writes has to wait
            return
        with engine.connect() as connection, connection.begin():
            version = connection.exec_driver_sql("PRAGMA user_version").scalar()
            if version not in (0, SCHEMA_VERSION):
                raise _newer(path, version)
            if version == 0:
                metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except (DBAPIError, sqlite3.Error) as error:
        raise _refusal(error, path) or error from error
    if fresh:
        path.chmod(0o600)
        sync_folder(path.parent)


def _look_through(engine: Engine, path: Path) -> None:
    """Refuse a damaged database; nobody who writes to it has to wait for that."""
    try:
        with engine.connect() as connection, connection.begin():
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    except (DBAPIError, sqlite3.Error) as error:
        raise _refusal(error, path) or error from error
    if found != "ok":
        raise _damaged(path, str(found))


def _in_transaction(connection: Connection) -> bool:
    raw: Any = connection.connection.driver_connection
    return bool(raw is not None and raw.in_transaction)


def _code(error: BaseException) -> int:
    """Return SQLite's primary code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_busy(error: BaseException) -> bool:
    return _code(getattr(error, "orig", None) or error) in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def _refusal(error: BaseException, path: Path) -> ServerError | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return _of_sqlite(cause, path) if isinstance(cause, sqlite3.Error) else None


def _of_sqlite(error: sqlite3.Error, path: Path) -> ServerError | None:
    """Return the error for a fault of the disk or file; None: it is a fault of the statement."""
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return disk_full(f"changes to {path}")
    if code in _DAMAGED:
        return _damaged(path, str(error))
    faults = (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    )
    return disk_failed(f"changes to {path}", str(error)) if code in faults else None


def _damaged(path: Path, reason: str) -> ServerError:
    return ServerError(
        "server-database",
        f"{path} is damaged ({reason}); nothing was changed.",
        "Restore it from a backup; keep the damaged file until that has worked.",
    )


def _newer(path: Path, version: object) -> ServerError:
    return ServerError(
        "server-database",
        f"{path} has the format {version} of a newer release; this one writes {SCHEMA_VERSION}.",
        "Start the release that made it, or a newer one.",
    )


def _closed(path: Path) -> ServerError:
    return ServerError(
        "server-disk",
        f"{path} is closed; nothing was changed.",
        "The server is stopping; ask again when it is back.",
    )
