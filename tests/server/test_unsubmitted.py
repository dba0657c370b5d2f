"""What is uploaded and not submitted: how much of it there may be, and how long it stays."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from in_process import InProcess, Member, Reply, digest_of
from league import D, League, refused

from hansa.limits import CHUNK_BYTES
from hansa.protocol.messages import BlobRef
from hansa.server import unsubmitted
from hansa.server.claims import claims_in

DAY_S = 86_400.0
SMALL = [bytes([n]) * 4000 for n in range(1, 6)]


def put(server: InProcess, who: Member, content: bytes) -> Reply:
    return server.ask(who, "PUT", f"/v1/blobs/{digest_of(content)}", body=content)


def put_chunk(server: InProcess, who: Member, content: bytes, n: int) -> Reply:
    piece = content[n * CHUNK_BYTES : (n + 1) * CHUNK_BYTES]
    target = f"/v1/blobs/{digest_of(content)}/chunks/{n}?size={len(content)}"
    return server.ask(who, "PUT", target, body=piece)


def begun(league: League, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, bytes]:
    """Return two blobs of two chunks, the first chunk sent, with room for one of them alone."""
    first, second = (bytes([n]) * (CHUNK_BYTES + 1) for n in (7, 8))
    monkeypatch.setattr(unsubmitted, "UNSUBMITTED_BYTES_MAX", len(first) + 5000)
    assert put_chunk(league.server, league.ada, first, 0).status == 200
    return first, second


def grow_old(server: InProcess, content: bytes, seconds: float = 2 * DAY_S) -> None:
    then = time.time() - seconds
    os.utime(server.state.blobs.path(digest_of(content)), (then, then))


def there(server: InProcess, *contents: bytes) -> list[bool]:
    return [server.state.blobs.has(digest_of(content)) for content in contents]


def marks(server: InProcess) -> list[str]:
    return sorted(path.name for path in (server.folder / "unsubmitted").iterdir())


def submission(league: League, *, large: int = 0, value: float = 1.0):
    model = np.full(large, value, np.float32) if large else np.array([value], np.float32)
    return league.server.submission(league.ada, model=model)


def test_what_nobody_submits_goes_while_the_server_runs(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hansa.server.app.UNSUBMITTED_SWEEP_S", 0.02)
    server = league.server
    server.restart()  # so that its watch knows how often
    run = server.submit(league.ada)
    known = server.state.journal.run(run)
    assert known is not None
    for content in SMALL[:2]:
        assert put(server, league.ada, content).status == 200
    for ref in (known.submission.package, known.submission.seed_model):
        os.utime(server.state.blobs.path(ref.digest), (0, 0))
    grow_old(server, SMALL[0])
    server.until(lambda: not any(there(server, SMALL[0])), "it is swept")
    assert there(server, SMALL[1]) == [True]
    assert server.state.blobs.has(known.submission.package.digest)
    assert server.state.blobs.has(known.submission.seed_model.digest)
    assert [name.split(".")[0] for name in marks(server)] == [digest_of(SMALL[1])[7:]]


def test_a_submitter_is_stopped_before_the_disk_is_full_and_goes_on_after_submitting(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, ben = league.server, league.server.join("ben", "submitter")
    sent, package, start = submission(league)
    monkeypatch.setattr(unsubmitted, "UNSUBMITTED_BYTES_MAX", 8000 + len(package) + len(start))
    server.upload(league.ada, package, start, *SMALL[:2])
    answer = put(server, league.ada, SMALL[2])
    assert refused(answer) == (409, "upload-too-much") and "ada" in answer.message
    large = digest_of(b"large")
    asked = server.ask(league.ada, "GET", f"/v1/blobs/{large}/chunks?size=9000000")
    assert refused(asked) == (409, "upload-too-much")  # before a byte of it is sent
    assert put(server, league.ada, SMALL[0]).status == 200  # which is there
    assert put(server, ben, SMALL[2]).status == 200  # another's share is another's
    server.restart()
    assert refused(put(server, league.ada, SMALL[3])) == (409, "upload-too-much")
    assert server.ask(league.ada, "POST", "/v1/runs", sent).status == 200
    assert put(server, league.ada, b"-").status == 200
    rows = server.ask(server.join("root", "admin"), "GET", "/v1/audit").read(dict)["audit"]
    told = [(r["who"], r["outcome"]) for r in rows if r["action"] == "upload"]
    assert set(told) == {("ada", "upload-too-much")}


def test_what_is_announced_counts_before_it_has_come(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = league.server
    first, second = begun(league, monkeypatch)
    assert refused(put_chunk(server, league.ada, second, 0)) == (409, "upload-too-much")
    assert refused(put(server, league.ada, SMALL[0] * 2)) == (409, "upload-too-much")
    assert put_chunk(server, league.ada, first, 1).status == 200
    assert there(server, first) == [True]
    assert len(marks(server)) == 1


def test_a_size_that_lies_does_not_count_as_little(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, ben = league.server, league.server.join("ben", "submitter")
    monkeypatch.setattr(unsubmitted, "UNSUBMITTED_BYTES_MAX", 6000)
    assert put(server, league.ada, SMALL[0]).status == 200
    target = f"/v1/blobs/{digest_of(SMALL[0])}/chunks?size=1"
    assert server.ask(ben, "GET", target).status == 200
    assert refused(put(server, ben, SMALL[1])) == (409, "upload-too-much")


def test_very_many_small_ones_are_too_many(league: League, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsubmitted, "UNSUBMITTED_MAX", 2)
    answers = [put(league.server, league.ada, content[:1]) for content in SMALL[:3]]
    assert [answer.status for answer in answers] == [200, 200, 409]


def test_nobody_takes_more_than_half_of_what_the_disk_has_left(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(free=16_500)
    monkeypatch.setattr(unsubmitted.shutil, "disk_usage", lambda _: disk)
    for n, content in enumerate(SMALL):  # 16,500 / 2 has room for two of 4,000 bytes
        answer = put(league.server, league.ada, content)
        assert answer.status == (200 if n < 2 else 409), n
        disk.free -= 4000 if n < 2 else 0


def test_an_upload_that_fails_counts_no_longer(league: League) -> None:
    server = league.server
    target = f"/v1/blobs/{digest_of(SMALL[0])}"
    bad = server.ask(league.ada, "PUT", target, body=SMALL[1])
    assert bad.status == 422
    asked = server.ask(league.ada, "GET", f"{target}/chunks?size=9000000")
    assert asked.status == 200  # nothing of it is there
    assert marks(server) == []


def test_an_upload_that_was_given_up_makes_room_where_there_is_none(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = league.server
    first, second = begun(league, monkeypatch)
    part = server.state.blobs.part(digest_of(first), len(first), owner="ada")
    for minutes, status in ((50, 409), (70, 200)):
        then = time.time() - 60 * minutes
        os.utime(part, (then, then))
        assert put_chunk(server, league.ada, second, 0).status == status
    assert not part.exists()
    assert put_chunk(server, league.ada, second, 1).status == 200
    assert there(server, second) == [True]


@pytest.mark.parametrize("moment", ["before", "within"])
def test_what_a_submitter_has_just_been_told_is_there_is_not_swept(
    league: League, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The word comes before the sweep, or between its look and what it removes."""
    server = league.server
    sent, package, start = submission(league)
    server.upload(league.ada, package, start)
    for content in (package, start):
        grow_old(server, content)
    look, looks = unsubmitted.left_over, []

    def upload_again(*arguments):
        looks.append(look(*arguments))
        if len(looks) == 2:  # what this one finds is removed
            server.upload(league.ada, package, start)
        return looks[-1]

    if moment == "before":
        server.upload(league.ada, package, start)
    else:
        server.state.unsubmitted._at_it.clear()  # or they would be spared already
        monkeypatch.setattr(unsubmitted, "left_over", upload_again)
    server.state.sweep_unsubmitted()
    assert moment == "before" or len(looks[1]) == 2
    assert there(server, package, start) == [True, True]
    assert server.ask(league.ada, "POST", "/v1/runs", sent).status == 200


def test_sweeps_without_pause_take_nothing_from_a_submission(league: League) -> None:
    """Each blob is old and claimed by nobody when its submitter begins; a thread sweeps on."""
    server, over, swept = league.server, threading.Event(), []

    def sweep() -> None:
        while not over.is_set():
            swept.append(server.state.unsubmitted.sweep(server.state.trail))

    sweeping = threading.Thread(target=sweep)
    sweeping.start()
    try:
        for n in range(25):
            sent, package, start = submission(league, value=float(n + 2))
            server.state.blobs.put_bytes(start)
            grow_old(server, start)
            server.upload(league.ada, package, start)
            answer = server.ask(league.ada, "POST", "/v1/runs", sent)
            assert answer.status == 200, (n, answer)
            assert there(server, package, start) == [True, True]
    finally:
        over.set()
        sweeping.join()
    assert len(swept) > 25


def test_a_model_that_a_run_lets_go_stays_for_whoever_was_told_of_it(league: League) -> None:
    """Round 1's model would go with round 2's commit; a submission begins with it meanwhile."""
    run, server = league.begin(rounds=3, keep={"every": 0, "lineage": 1}), league.server
    for name in D:
        assert league.send(name, run, 1).status == 200
    server.until(lambda: len(server.events(run, "committed")) == 2, "round 1")
    first = next(e["model"] for e in server.events(run, "committed") if e["round"] == 1)
    content = server.state.blobs.path(first).read_bytes()
    assert put(server, league.ada, content).status == 200
    for name in D:
        assert league.send(name, run, 2).status == 200
    server.until(lambda: len(server.events(run, "committed")) == 3, "round 2")
    assert league.send("north", run, 3).status == 200  # so what round 2 let go is gone
    assert there(server, content) == [True]
    os.utime(server.state.blobs.path(first), (0, 0))
    server.state.sweep_unsubmitted()  # nobody has come for it
    assert there(server, content) == [False]


@pytest.mark.parametrize("way", ["whole", "chunks"])
def test_a_large_model_is_submitted_as_before(league: League, way: str) -> None:
    server = league.server
    sent, package, start = submission(league, large=5_000_000)
    assert len(start) > 2 * CHUNK_BYTES
    if way == "chunks":
        for n in (2, 0, 1):
            assert put_chunk(server, league.ada, start, n).status == 200
            server.state.sweep_unsubmitted()
    server.upload(league.ada, package, start)
    assert len(marks(server)) == 2
    assert server.ask(league.ada, "POST", "/v1/runs", sent).status == 200
    assert marks(server) == []
    ref = BlobRef(digest=digest_of(start), size=len(start))
    assert server.state.blobs.intact(ref.digest)


def test_an_old_upload_in_chunks_goes_and_a_newer_one_is_gone_on_with(league: League) -> None:
    server, week = league.server, 7 * DAY_S
    contents = [bytes([n]) * (CHUNK_BYTES + 1) for n in (7, 8)]
    for content, seconds in zip(contents, (week + 60, week - 60), strict=True):
        assert put_chunk(server, league.ada, content, 0).status == 200
        part = server.state.blobs.part(digest_of(content), len(content), owner="ada")
        os.utime(part, (time.time() - seconds,) * 2)
    server.state.sweep_unsubmitted()
    left = {path.suffix for path in (server.folder / "blobs" / "partial").iterdir()}
    assert left == {".part", ".have"} and len(marks(server)) == 1
    for content, whole in zip(contents, (False, True), strict=True):
        assert put_chunk(server, league.ada, content, 1).status == 200
        assert there(server, content) == [whole]


def test_marks_that_are_none_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / f"{'0' * 64}.12.a.b").touch()
    assert claims_in(tmp_path) == [(f"blake3:{'0' * 64}", 12, "a.b")]
    assert claims_in(tmp_path / "none") == []
