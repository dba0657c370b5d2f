import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from hansa.clock import monotonic
from hansa.errors import ServerError
from hansa.store.blobs import BlobStore
from hansa.store.database import backup, open_database
from hansa.store.tables import SCHEMA_VERSION, audit, members


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "hansa.db"


@pytest.fixture
def database(path):
    with contextlib.closing(open_database(path)) as database:
        yield database


def note(connection: sa.Connection, who: str) -> None:
    connection.execute(audit.insert().values(at="now", who=who, action="a", outcome="ok"))


def who(connection: sa.Connection) -> list[str]:
    return list(connection.scalars(sa.select(audit.c.who).order_by(audit.c.id)))


def refused(code: str):
    return pytest.raises(ServerError, match=rf"\[{code}\]$")


def test_what_was_written_is_there_after_the_end(database, path):
    assert database.write(lambda c: c.execute(sa.select(sa.literal(7))).scalar()) == 7
    database.write(lambda c: note(c, "ada"))
    assert database.read(who) == ["ada"]
    database.close()
    database.close()
    with contextlib.closing(open_database(f"sqlite:///{path}")) as again:
        assert again.read(who) == ["ada"]
    assert path.stat().st_mode & 0o077 == 0
    with refused("server-disk"):
        database.write(lambda c: note(c, "late"))


def test_every_transaction_is_synchronised_in_full(database):
    def settings(connection: sa.Connection) -> tuple:
        ask = ("journal_mode", "synchronous", "foreign_keys", "user_version")
        return tuple(connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ask)

    assert database.write(settings) == ("wal", 2, 1, SCHEMA_VERSION)
    assert database.read(settings) == ("wal", 2, 1, SCHEMA_VERSION)


def test_readers_cannot_write_and_see_one_state(database):
    with refused("server-disk"):
        database.read(lambda c: note(c, "eve"))

    def twice(connection: sa.Connection) -> tuple[list[str], list[str]]:
        before = who(connection)
        database.write(lambda c: note(c, "ada"))
        return before, who(connection)

    assert database.read(twice) == ([], [])
    assert database.read(who) == ["ada"]


def test_fifty_threads_share_commits(database):
    commits = []
    sa.event.listen(database.engine, "commit", lambda _: commits.append(1))
    names = [[f"{thread}-{i}" for i in range(10)] for thread in range(50)]

    def work(mine: list[str]) -> None:
        for name in mine:
            database.write(lambda c, name=name: note(c, name))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = database.read(who)
    assert sorted(written) == sorted(name for mine in names for name in mine)
    for mine in names:  # each thread's in its order
        assert [name for name in written if name in mine] == mine
    assert len(commits) <= 500 // 4


def in_one_group(database, functions: list) -> list:
    """Submit functions while the thread that writes is held, so that they share a commit."""
    held, holding = threading.Event(), threading.Event()
    database.submit(lambda _: (holding.set(), held.wait(10)))
    assert holding.wait(10)
    futures = [database.submit(fn) for fn in functions]
    held.set()
    return [future.exception(10) or future.result() for future in futures]


def failing(connection: sa.Connection) -> None:
    note(connection, "half")
    raise ZeroDivisionError


def conflicting(connection: sa.Connection) -> None:
    note(connection, "half")
    row = {"name": "x", "kind": "site", "role": "site", "public_key": "k", "joined_at": "now"}
    connection.execute(members.insert().values(**row, fingerprint="1"))
    connection.execute(members.insert().values(**row, fingerprint="2"))


def test_an_error_undoes_its_own_changes_and_nobody_elses(database):
    good = [lambda c, i=i: note(c, f"good{i}") for i in range(3)]
    answers = in_one_group(database, [good[0], failing, good[1], conflicting, good[2]])
    assert isinstance(answers[1], ZeroDivisionError)
    assert isinstance(answers[3], sa.exc.IntegrityError)
    assert answers[0::2] == [None] * 3
    assert database.read(who) == ["good0", "good1", "good2"]
    assert database.read(lambda c: c.execute(sa.select(members)).all()) == []


def test_a_full_disk_refuses_the_group_and_is_over_once_there_is_space(database):
    def limit(pages: int):
        return lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar()

    database.write(lambda c: note(c, "before"))
    database.write(limit(1))  # no more than there are
    answers = in_one_group(database, [lambda c: note(c, "small"), lambda c: note(c, "x" * 200_000)])
    assert [getattr(answer, "code", None) for answer in answers].count("server-disk-full") >= 1
    there = database.read(who)
    for name, answer in zip(("small", "x" * 200_000), answers, strict=True):
        assert (name in there) == (answer is None)
    database.write(limit(2**30))
    database.write(lambda c: note(c, "after"))
    assert database.read(who)[-1] == "after" and database.broken is None


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE])
def test_a_failed_fsync_ends_all_writing_and_is_never_tried_again(database, code):
    """Promise C7."""
    told, tried = [], []
    database.on_broken(lambda: told.append(1))
    database.write(lambda c: note(c, "before"))

    def broken(_: object) -> None:
        tried.append(1)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        raise error

    real, database.engine.dialect.do_commit = database.engine.dialect.do_commit, broken
    answers = in_one_group(database, [lambda c, i=i: note(c, f"lost{i}") for i in range(3)])
    assert [answer.code for answer in answers] == ["server-disk"] * 3
    database.engine.dialect.do_commit = real
    for _ in range(3):
        with refused("server-disk"):
            database.write(lambda c: note(c, "later"))
    # The first commit was that of the function that held the thread.
    assert told == [1] and len(tried) <= 2
    assert database.broken is not None and database.read(who) == ["before"]


KILLED = """
import sys, threading
from hansa.store.database import open_database
from hansa.store.tables import audit
database = open_database(sys.argv[1])
lock = threading.Lock()
def work(thread):
    for i in range(10**6):
        name = f"{thread}-{i}"
        row = dict(at="now", action="a", outcome="ok")
        def both(connection):
            connection.execute(audit.insert().values(who=name, **row))
            connection.execute(audit.insert().values(who=name + "'", **row))
        database.write(both)
        with lock:
            print(name, flush=True)
for thread in range(8):
    threading.Thread(target=work, args=(thread,)).start()
"""


def test_what_was_acknowledged_survives_kill_9_and_nothing_is_half_there(path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    acknowledged = [process.stdout.readline().strip() for _ in range(400)]
    process.kill()
    acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert process.wait(10) == -signal.SIGKILL
    process.stdout.close()
    with contextlib.closing(open_database(path)) as database:
        there = set(database.read(who))
    assert set(acknowledged) <= there
    assert {name for name in there if name[-1] != "'"} == {n[:-1] for n in there if n[-1] == "'"}


def torn(path: Path) -> tuple[bytes, bytes, list[int]]:
    """Return a database file, its log, and the log's length after each of four transactions."""
    open_database(path).close()  # the tables are in the file now, and the log is empty
    with contextlib.closing(open_database(path)) as database:
        lengths = []
        log = path.with_name("hansa.db-wal")
        for i in range(4):
            database.write(lambda c, i=i: (note(c, f"{i}a" * 400), note(c, f"{i}b" * 400)))
            lengths.append(log.stat().st_size)
        return path.read_bytes(), log.read_bytes(), lengths


def transactions(folder: Path, main: bytes, log: bytes) -> int | None:
    """Return how many transactions a damaged copy has, each whole; None: it is refused."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "hansa.db").write_bytes(main)
    (folder / "hansa.db-wal").write_bytes(log)
    try:
        database = open_database(folder / "hansa.db")
    except ServerError as error:
        assert error.code == "server-database"
        return None
    with contextlib.closing(database):
        found = [name[:2] for name in database.read(who)]
        database.write(lambda c: note(c, "goes on"))
    count = len(found) // 2
    assert found == [f"{i}{part}" for i in range(count) for part in "ab"], "a mixture"
    return count


def test_a_torn_log_gives_the_state_before_or_after_and_never_a_mixture(path, tmp_path):
    """Promise C4; positions are sampled, all of them take minutes."""
    main, log, lengths = torn(path)
    assert transactions(tmp_path / "copy", main, log) == 4
    last = range(lengths[2], lengths[3])
    for cut in [*last[:40:8], *last[:: len(last) // 40], last[-1]]:
        assert transactions(tmp_path / "copy", main, log[:cut]) == 3
    for flip in [*last[:40:4], *last[:: len(last) // 60], last[-1]]:
        bad = bytearray(log[: lengths[3]])
        bad[flip] ^= 0x41
        assert transactions(tmp_path / "copy", main, bytes(bad)) in (None, 3)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000, b"SQLite format 3\0" + b"\0" * 5000])
def test_a_file_that_is_no_database_is_refused_or_begun(path, content):
    path.write_bytes(content)
    if not content:
        open_database(path).close()
        return
    with refused("server-database"):
        open_database(path)
    assert path.read_bytes() == content


def test_a_database_of_a_newer_release_is_refused(database, path):
    database.write(lambda c: c.exec_driver_sql("PRAGMA user_version = 99"))
    database.close()
    with refused("server-database"):
        open_database(path)


def test_a_folder_that_is_not_there_is_an_error_with_a_sentence(tmp_path):
    with refused("server-disk"):
        open_database(tmp_path / "absent" / "hansa.db")


def test_a_backup_while_writing_is_one_state_and_its_blobs_are_there(database, tmp_path):
    blobs = BlobStore(tmp_path / "blobs", durable=True)
    stop = threading.Event()

    def work() -> None:
        i = 0
        while not stop.is_set():
            digest, _ = blobs.put_bytes(b"%d" % i)
            database.write(lambda c, d=digest: (note(c, d), note(c, d)))
            i += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for i in range(3):
            folder = tmp_path / f"backup{i}"
            folder.mkdir()
            assert backup(database, folder) == folder / "hansa.db"
            blobs.backup(folder / "blobs")
    finally:
        stop.set()
        thread.join()
    for i in range(3):
        folder = tmp_path / f"backup{i}"
        assert sorted(p.name for p in folder.iterdir()) == ["blobs", "hansa.db"]
        restored = BlobStore(folder / "blobs", durable=True)
        with contextlib.closing(open_database(folder / "hansa.db")) as copy:
            found = copy.read(who)
        assert found[0::2] == found[1::2] and all(restored.intact(digest) for digest in found)


@pytest.mark.parametrize("check", [True, False])
def test_opening_a_database_waits_for_nobody_who_writes_to_it(database, path, check):
    database.write(lambda c: note(c, "ada"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        began = monotonic()
        with contextlib.closing(open_database(path, check=check)) as again:
            assert again.read(who) == ["ada"]
        assert monotonic() - began < 5  # a writer that is waited for is waited for 20 s
        writer.execute("ROLLBACK")
