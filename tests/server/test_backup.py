import errno
import os
import shutil
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from server_cases import record_run

from hansa.clock import monotonic
from hansa.dev import SERVER, Rehearsal
from hansa.errors import HansaError, ServerError
from hansa.identity.keys import write_secret
from hansa.params import Params
from hansa.server import backing_up, doctor
from hansa.server.audit import newest
from hansa.server.backing_up import back_up
from hansa.server.founding import found
from hansa.server.journal import Journal
from hansa.server.opening import check_combiner, opened, refuse_combiner
from hansa.server.settings import ServerSettings
from hansa.site.ledger import LEDGER_FILE, Ledger
from hansa.store.blobs import BlobStore
from hansa.store.files import load_params
from hansa.store.lineage import DiskLineage


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HANSA_HOME", str(tmp_path / "home"))
    return found(tmp_path / "server", ServerSettings(url="https://hansa.example")).folder


def bad_findings(folder) -> list[doctor.Finding]:
    with opened(folder) as server:
        return [f for f in doctor.examine(server) if f.grade == "bad"]


def test_a_backup_is_a_server_with_all_models_members_and_keys(folder, tmp_path):
    with opened(folder) as server:
        models = record_run(server, rounds=3)
        made = back_up(server, tmp_path / "backup")
    assert (made.blobs, made.linked) == (len(models) + 1, True)
    assert bad_findings(made.folder) == []
    for name in ("server.toml", "ca.pem", "ca-key.pem", "tls-key.pem", "receipt-key.pem"):
        assert (made.folder / name).read_bytes() == (folder / name).read_bytes()
    for name in ("ca-key.pem", "tls-key.pem", "receipt-key.pem"):
        assert stat.S_IMODE((made.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700
    with opened(made.folder) as copy:
        assert Journal(copy.database, lambda _: None).rounds_done("study-1") == 3


def test_a_second_backup_brings_the_first_up_to_date(folder, tmp_path):
    with opened(folder) as server:
        record_run(server, rounds=1)
        back_up(server, tmp_path / "backup")
        gone, _ = BlobStore(folder / "blobs", durable=True).put_bytes(b"soon gone")
        back_up(server, tmp_path / "backup")
        assert BlobStore(tmp_path / "backup" / "blobs", durable=True).has(gone)
        BlobStore(folder / "blobs", durable=True).remove(gone)
        record_run(server, rounds=2, number=2)
        made = back_up(server, tmp_path / "backup")
    kept = set(BlobStore(made.folder / "blobs", durable=True).digests())
    assert kept == set(BlobStore(folder / "blobs", durable=True).digests())
    assert bad_findings(made.folder) == []


@pytest.mark.parametrize("step", ["blobs", "lineages", "database"])
@pytest.mark.parametrize("end", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_backup_that_is_cut_off_leaves_the_one_before_whole(
    folder, tmp_path, monkeypatch, step, end
):
    """Study-2 is committed while blobs are copied; the end comes while the writers are held."""
    target, held = tmp_path / "backup", []
    copy_blobs, hold = BlobStore.backup, backing_up._writers_held

    def copying(self, folder):
        count = copy_blobs(self, folder)
        if not held:
            record_run(server, rounds=2, number=2)
        elif step == "blobs":
            raise end
        return count

    def stopping(name, real):
        def stop(*arguments):
            if held and step == name:
                raise end
            return real(*arguments)

        return stop

    with opened(folder) as server:
        record_run(server, rounds=2)
        back_up(server, target)
        before = (target / "hansa.db").read_bytes()
        monkeypatch.setattr(BlobStore, "backup", copying)
        monkeypatch.setattr(backing_up, "_writers_held", lambda path: held.append(1) or hold(path))
        for name, function in (("lineages", "copy_lineages"), ("database", "copy_database")):
            real = getattr(backing_up, function)
            monkeypatch.setattr(backing_up, function, stopping(name, real))
        with pytest.raises((KeyboardInterrupt, OSError)):
            back_up(server, target)
    assert (target / "hansa.db").read_bytes() == before
    assert bad_findings(target) == []
    with opened(target) as copy:
        assert [row.run for row in Journal(copy.database, lambda _: None).runs()] == ["study-1"]


def test_a_model_that_only_the_backup_has_is_not_dropped_from_it(folder, tmp_path):
    with opened(folder) as server:
        models = record_run(server, rounds=2)
        back_up(server, tmp_path / "backup")
        BlobStore(folder / "blobs", durable=True).remove(models[2])
        back_up(server, tmp_path / "backup")
    assert bad_findings(tmp_path / "backup") == []


@pytest.mark.parametrize("name", ["tls-key.pem", "receipt-key.pem"])
def test_a_key_that_cannot_be_copied_leaves_the_one_before(folder, tmp_path, monkeypatch, name):
    with opened(folder) as server:
        back_up(server, tmp_path / "backup")
        before = (tmp_path / "backup" / name).read_bytes()
        (folder / name).write_bytes(before + b"\n")
        with monkeypatch.context() as patch, pytest.raises(ServerError, match="server-disk-full"):
            patch.setattr(backing_up, "write_secret", _full)
            backing_up._copy_keys(folder, tmp_path / "backup")
        assert (tmp_path / "backup" / name).read_bytes() == before
        back_up(server, tmp_path / "backup")
    assert (tmp_path / "backup" / name).read_bytes() == before + b"\n"
    assert not list((tmp_path / "backup").glob(".hansa-*"))


def _full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_backup_that_failed_does_not_count_as_made(folder, tmp_path, monkeypatch):
    def found() -> doctor.Finding:
        with opened(folder) as server:
            return next(f for f in doctor.examine(server) if f.about == "backup")

    with opened(folder) as server:
        record_run(server, rounds=1)
        with monkeypatch.context() as patch, pytest.raises(ServerError, match="server-disk-full"):
            patch.setattr(os, "fsync", _full)
            back_up(server, tmp_path / "backup")
        assert (found().grade, found().told) == ("warn", "none was made yet")
        assert [line["action"] for line in newest(server.database, 1)] == ["server.backup-begun"]
        back_up(server, tmp_path / "backup")
    assert found().grade == "good"


def test_a_combiners_backup_is_a_combiner_with_its_membership_and_ledger(folder, tmp_path):
    upward = folder / "upward"
    upward.mkdir()
    for name in ("member.json", "key.pem", "authority.pem"):
        write_secret(upward / name, name.encode())
    ledger = Ledger(folder / LEDGER_FILE)
    ledger.sent("update", size=8, run="study-1", round=1)
    with opened(folder) as server:
        found = {f.about: f for f in doctor.examine(server)}
        assert found["backup"].command == "hansa combiner backup DIR"
        back_up(server, tmp_path / "backup")
        (upward / "certificate.pem").write_text("renewed")
        ledger.sent("update", size=8, run="study-1", round=2)
        copy = back_up(server, tmp_path / "backup").folder
    for path in upward.iterdir():
        assert (copy / "upward" / path.name).read_bytes() == path.read_bytes()
        assert stat.S_IMODE((copy / "upward" / path.name).stat().st_mode) == 0o600
    assert [entry.round for entry in Ledger(copy / LEDGER_FILE).entries()] == [1, 2]
    check_combiner(copy)
    with pytest.raises(ServerError, match="hansa combiner start"):
        refuse_combiner(copy)


def _no_link(*_):
    raise OSError(18, "Invalid cross-device link")


def test_a_backup_on_another_disk_is_copied_whole(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("hansa.store.files.os.link", _no_link)
    with opened(folder) as server:
        record_run(server, rounds=2)
        made = back_up(server, tmp_path / "backup")
    assert not made.linked
    shutil.rmtree(folder)
    assert bad_findings(made.folder) == []


def _kept(folder: Path) -> dict[str, float]:
    """Return the models of run study-1 below a server's folder, by owner and round."""
    found = (folder / "lineage" / "study-1").glob("*/*.safetensors")
    return {f"{p.parent.name}/{p.name[6:12]}": float(load_params(p).to_dict()["w"]) for p in found}


@pytest.mark.parametrize("links", [True, False])
def test_a_backup_has_the_models_that_plans_keep_as_of_its_last_commit(
    folder, tmp_path, monkeypatch, links
):
    """Round 3 is added and not committed: the backup has the newest two of the rounds up to 2."""
    if not links:
        monkeypatch.setattr("hansa.store.files.os.link", _no_link)

    def add(number: int, *owners: str, newest: int = 2) -> None:
        models = [(o, Params.of({"w": np.array(number + 0.25 * len(o))})) for o in owners]
        DiskLineage(folder / "lineage" / "study-1").add(number, models, newest=newest)

    with opened(folder) as server:
        record_run(server, rounds=2)
        for number in (0, 1, 2):
            add(number, "", "north", newest=2)
        add(1, "west")
        back_up(server, tmp_path / "backup")
        committed = {
            f"{o}/00000{n}": n + 0.25 * len(o[7:])
            for o in ("global", "client-north")
            for n in (1, 2)
        }
        committed |= {"client-west/000001": 2.0}
        assert _kept(tmp_path / "backup") == committed == _kept(folder)
        add(3, "", "north", "west")
        back_up(server, tmp_path / "backup")
    assert _kept(folder).keys() - committed.keys() and committed.keys() - _kept(folder).keys()
    assert _kept(tmp_path / "backup") == committed


def test_a_model_that_came_again_takes_its_place_in_the_next_backup(folder, tmp_path):
    lineage = DiskLineage(folder / "lineage" / "study-1")
    with opened(folder) as server:
        record_run(server, rounds=1)
        for value in (1.5, -8.0):
            lineage.add(1, [("", Params.of({"w": np.array(value)}))], newest=1)
            back_up(server, tmp_path / "backup")
            assert _kept(tmp_path / "backup") == {"global/000001": value}


@pytest.mark.parametrize("what", ["own", "other", "foreign", "started"])
def test_a_folder_that_is_something_else_is_not_touched(folder, tmp_path, monkeypatch, what):
    target = tmp_path / "target"
    if what == "own":
        target = folder
    elif what == "other":
        monkeypatch.setenv("HANSA_HOME", str(tmp_path / "home-2"))
        found(target, ServerSettings(url="https://other.example"))
    elif what == "foreign":
        target.mkdir()
        (target / "thesis.txt").write_text("three years")
    else:
        with opened(folder) as server:
            back_up(server, target)
        (target / "lock").touch()
    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    with opened(folder) as server, pytest.raises(ServerError, match="server-backup"):
        back_up(server, target)
    assert before.items() <= {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}.items()


def test_a_server_that_lacks_a_model_is_told_so_and_not_called_backed_up(folder, tmp_path):
    with opened(folder) as server:
        models = record_run(server, rounds=2)
        BlobStore(folder / "blobs", durable=True).remove(models[2])
        with pytest.raises(ServerError, match="round 2's model of study-1"):
            back_up(server, tmp_path / "backup")
    assert not (tmp_path / "backup" / "server.toml").exists()


def test_no_model_is_missing_however_fast_rounds_are_committed_meanwhile(folder, tmp_path):
    """Commits that each drop the model before: a careless copy would lack what it speaks of."""
    stop = threading.Event()
    committed = 0

    def commit_on(journal: Journal, blobs: BlobStore) -> None:
        nonlocal committed
        while not stop.is_set():
            committed += 1
            digest, _ = blobs.put_bytes(b"model %d" % committed)
            fact = {"kind": "committed", "round": committed + 1, "model": digest, "state": None}
            for stale in journal.commit("study-1", fact, keep=(committed + 1).__eq__):
                blobs.remove(stale)

    with opened(folder) as server, opened(folder) as running:
        record_run(server, rounds=1)
        journal = Journal(running.database, lambda _: None)
        blobs = BlobStore(folder / "blobs", durable=True)
        worker = threading.Thread(target=commit_on, args=(journal, blobs))
        worker.start()
        try:
            for number in range(5):
                made = back_up(server, tmp_path / f"backup-{number}")
                assert bad_findings(made.folder) == []
        finally:
            stop.set()
            worker.join()
    assert committed > 20


def test_a_backup_of_a_run_that_is_going_on_is_started_and_finishes_it(tmp_path):
    """C9: the copy is taken in the middle of a run, and takes the place of the lost server."""
    project = tmp_path / "study"
    sets = ["rounds=150", 'learner.optimizer={name="sgd",lr=0.1}']
    first = Rehearsal(tmp_path / "probe", _made(project), sites=2, sets=sets)
    with first as rehearsal:
        run = rehearsal.submit()
        server = rehearsal.folder / SERVER
        _wait_for_round(3, server)
        assert rehearsal.stop(SERVER) == 0  # in an orderly way: the run stands still, and goes on
        at_stop = _rounds(server)
        rehearsal.start(SERVER)
        _wait_for_round(at_stop + 1, server)
        with opened(server) as serving:
            made = back_up(serving, tmp_path / "backup")
        at_backup = _rounds(made.folder)
        assert bad_findings(made.folder) == []
        assert at_stop < at_backup < 150
        rehearsal.kill(SERVER)
        shutil.rmtree(server)
        shutil.move(made.folder, server)
        rehearsal.start(SERVER)
        assert rehearsal.follow(run) == "finished"
        assert bad_findings(server) == []
        model = run.commits()[-1]["model"]
        assert model == rehearsal.simulate().commits()[-1]["model"]


def _made(project: Path) -> Path:
    from hansa.cli.main import main

    with pytest.raises(SystemExit):
        main(["init", str(project), "--template", "numpy"])
    return project


def _wait_for_round(number: int, folder: Path) -> None:
    until = monotonic() + 30.0
    while _rounds(folder) < number:
        assert monotonic() < until, f"round {number} was not committed"
        threading.Event().wait(0.02)


def _rounds(folder: Path) -> int:
    try:
        with opened(folder) as server:
            runs = Journal(server.database, lambda _: None)
            return max((runs.rounds_done(row.run) for row in runs.runs()), default=0)
    except HansaError:
        return 0


def test_what_comes_while_blobs_are_copied_is_copied_before_the_writers_are_held(
    folder, tmp_path, monkeypatch
):
    """Twenty models come during the first pass; a second one takes them."""
    passes, held = [], []
    real, hold = BlobStore.backup, backing_up._writers_held

    def passing(self, target):
        count = real(self, target)
        passes.append(len(held))
        if len(passes) == 1:
            for number in range(20):
                self.put_bytes(b"new %d" % number)
        return count

    def holding(path):
        held.append(path)
        return hold(path)

    monkeypatch.setattr(BlobStore, "backup", passing)
    monkeypatch.setattr(backing_up, "_writers_held", holding)
    with opened(folder) as server:
        record_run(server, rounds=1)
        made = back_up(server, tmp_path / "backup")
    assert passes == [0, 0, 1]  # two while everybody writes, one while nobody does
    assert made.blobs >= 20
