import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from server_cases import record_run

from hansa.clock import wall
from hansa.errors import ServerError
from hansa.limits import DOCTOR_FREE_BYTES, DOCTOR_TLS_DAYS
from hansa.server import doctor
from hansa.server.audit import write_audit
from hansa.server.founding import found
from hansa.server.journal import Journal
from hansa.server.opening import BACKED_UP, opened
from hansa.server.settings import ServerSettings
from hansa.server.state import held
from hansa.store.blobs import BlobStore

DAY_S = 86_400.0


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HANSA_HOME", str(tmp_path / "home"))
    return found(tmp_path / "server", ServerSettings(url="https://hansa.example")).folder


def graded(folder, **options) -> dict[str, tuple[str, str]]:
    """Return the worst finding of each subject: its grade, and what was said."""
    with opened(folder) as server:
        found = doctor.examine(server, **options)
    assert [doctor.GRADES.index(f.grade) for f in found] == sorted(
        doctor.GRADES.index(f.grade) for f in found
    )
    assert all(f.command for f in found if f.grade == "warn")
    worst: dict[str, tuple[str, str]] = {}
    for finding in found:
        worst.setdefault(finding.about, (finding.grade, f"{finding.told} | {finding.command}"))
    return worst


def test_a_new_server_has_nothing_bad_and_wants_a_backup(folder):
    found = graded(folder)
    assert "bad" not in {grade for grade, _ in found.values()}
    assert found["backup"][0] == "warn" and "hansa server backup" in found["backup"][1]
    assert found["server"][0] == "warn"
    assert found["models"] == ("good", "0 packages and models are there, byte for byte; "
                               "0 are missing | ")  # fmt: skip


def test_a_server_that_is_served_is_said_to_run(folder):
    with held(folder):
        assert graded(folder)["server"][0] == "good"


def test_a_clock_that_is_behind_what_was_written_is_bad(folder):
    assert graded(folder, at=wall() - 3_600)["clock"][0] == "bad"
    assert graded(folder, at=wall() - 10)["clock"][0] == "good"
    assert graded(folder, at=wall() - 40 * DAY_S)["clock"][0] == "bad"


@pytest.mark.parametrize(
    ("days", "grade"), [(1, "good"), (91 - DOCTOR_TLS_DAYS, "warn"), (91, "bad")]
)
def test_a_tls_certificate_near_its_end_is_told_of(folder, days, grade):
    assert graded(folder, at=wall() + days * DAY_S)["TLS"][0] == grade


def test_a_tls_certificate_of_another_authority_is_bad(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HANSA_HOME", str(tmp_path / "other-home"))
    other = found(tmp_path / "other", ServerSettings(url="https://hansa.example")).folder
    (folder / "tls.pem").write_bytes((other / "tls.pem").read_bytes())
    assert graded(folder)["TLS"][0] == "bad"
    (folder / "tls.pem").write_text("nothing")
    assert graded(folder)["TLS"][0] == "bad"
    (folder / "tls.pem").unlink()
    assert graded(folder)["TLS"][0] == "bad"


def test_the_end_of_the_authority_is_seen_a_year_ahead(folder):
    assert graded(folder, at=wall() + 18.5 * 365 * DAY_S)["authority"][0] == "good"
    assert graded(folder, at=wall() + 19.5 * 365 * DAY_S)["authority"][0] == "bad"


@pytest.mark.parametrize(
    ("free", "grade"),
    [
        (DOCTOR_FREE_BYTES, "good"),
        (DOCTOR_FREE_BYTES - 1, "warn"),
        (DOCTOR_FREE_BYTES // 10 - 1, "bad"),
    ],
)
def test_a_disk_that_fills_is_told_of(folder, monkeypatch, free, grade):
    use = SimpleNamespace(total=2**40, used=2**40 - free, free=free)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: use)
    assert graded(folder)["disk"][0] == grade


def test_a_key_that_others_can_read_is_bad_and_its_cure_is_named(folder):
    (folder / "ca-key.pem").chmod(0o640)
    grade, told = graded(folder)["keys"]
    assert grade == "bad" and f"chmod 600 {folder / 'ca-key.pem'}" in told
    (folder / "ca-key.pem").chmod(0o600)
    (folder / "receipt-key.pem").unlink()
    assert graded(folder)["keys"][0] == "bad"


def test_a_damaged_database_is_bad(folder):
    with opened(folder) as server:
        record_run(server, rounds=40)
    path = folder / "hansa.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'models_by_digest'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("rb+") as file:
        file.seek((page - 1) * size + 12)
        file.write(b"\xff" * 64)
    try:
        found = graded(folder)
    except ServerError as error:
        assert error.code == "server-database"
    else:
        assert found["database"][0] == "bad"


def test_a_missing_or_damaged_model_is_bad_and_named(folder):
    with opened(folder) as server:
        models = record_run(server, rounds=3)
    assert graded(folder)["models"][0] == "good"
    path = BlobStore(folder / "blobs", durable=True).path(models[1])
    content = path.read_bytes()
    path.unlink()
    grade, told = graded(folder, quick=True)["models"]
    assert grade == "bad" and "round 1's model of study-1 is missing" in told and "cp " in told
    path.write_bytes(content[:-1] + b"?")
    assert graded(folder, quick=True)["models"][0] == "good"
    grade, told = graded(folder)["models"]
    assert grade == "bad" and "is damaged" in told


def test_left_over_files_are_told_of_after_a_day_and_removed_when_asked(folder):
    with opened(folder) as server:
        models = record_run(server, rounds=2)
    blobs = BlobStore(folder / "blobs", durable=True)
    updates = BlobStore(folder / "updates" / "study-1" / "3" / "north", durable=False)
    stray, _ = blobs.put_bytes(b"stray")
    update, _ = updates.put_bytes(b"update")
    assert graded(folder)["blobs"][0] == "good"  # an upload of this minute
    for store, digest in ((blobs, stray), (updates, update), *((blobs, m) for m in models)):
        os.utime(store.path(digest), (1.0, 1.0))
    found = graded(folder)
    assert (found["blobs"][0], found["updates"][0]) == ("warn", "warn")
    assert "--clean" in found["blobs"][1]
    with opened(folder) as server:
        with held(folder), pytest.raises(ServerError, match="server-busy"):
            doctor.clean_up(server)
        assert blobs.has(stray)
        assert doctor.clean_up(server) == (2, len(b"stray") + len(b"update"))
    found = graded(folder)
    assert (found["blobs"][0], found["updates"][0], found["models"][0]) == ("good",) * 3
    assert not blobs.has(stray) and all(blobs.has(m) for m in models)


def test_an_old_backup_is_bad(folder):
    with opened(folder) as server:
        write_audit(server.database, "operator", BACKED_UP, object="/backups")
    assert graded(folder)["backup"][0] == "good"
    assert graded(folder, at=wall() + 7 * DAY_S)["backup"][0] == "good"
    assert graded(folder, at=wall() + 9 * DAY_S)["backup"][0] == "bad"


def test_failed_and_waiting_runs_are_told_of(folder):
    with opened(folder) as server:
        record_run(server, rounds=1)
        assert graded(folder)["runs"][0] == "warn"  # it waits
        journal = Journal(server.database, lambda _: None)
        journal.end("study-1", "failed", "nobody came", code="run-too-few")
    grade, told = graded(folder)["runs"]
    assert grade == "warn" and "nobody came" in told and "hansa server runs" in told
    assert graded(folder, at=wall() + 8 * DAY_S)["runs"][0] == "good"


def test_one_check_that_cannot_be_done_does_not_hide_the_others(folder):
    with opened(folder) as server:
        (folder / "ca.pem").unlink()
        found = doctor.examine(server)
    bad = {f.about for f in found if f.grade == "bad"}
    assert {"clock", "certificates"} <= bad
    assert {"disk", "keys", "models"} <= {f.about for f in found}


def test_who_has_uploaded_the_most_without_submitting_it_is_told(folder):
    assert graded(folder)["uploads"] == ("good", "0 B are uploaded and not submitted | ")
    marks = folder / "unsubmitted"
    marks.mkdir()
    for n, (size, owner) in enumerate([(1000, "ada"), (3000, "ben"), (2500, "ada")]):
        (marks / f"{n:064}.{size}.{owner}").touch()
    told = graded(folder)["uploads"][1]
    assert told == "6.5 kB are uploaded and not submitted; most by ada, 3.5 kB | "
