"""Goal: whose files are whose: runs, rounds and sites at once, equal to the last byte.

Method: a whole server in this process; a second run, or a second site, does what would spoil the
first one's files.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from in_process import SEED, Site, digest_of, done, joined, key_of, update_bytes
from league import D, League, N, expected, refused

from hansa.limits import SPARE_BYTES_MIN, UPLOADS_PER_TASK_MAX
from hansa.params import Params
from hansa.server import submissions
from hansa.server.round_files import Messages, Updates
from hansa.store.blobs import BlobStore
from hansa.store.client_states import ClientStates
from hansa.store.spares import Spares


def beside(league: League, **plan: Any) -> str:
    """Submit another run, in which all sites take part."""
    run = league.server.submit(league.ada, **plan)
    for name, site in league.sites.items():
        site.ready(run, N[name])
    return run


def until_empty(league: League) -> None:
    league.server.until(lambda: not league.updates(), "no update is left", 10.0)


def median(values: list[list[float]]) -> np.ndarray:
    return (SEED + np.median(values, axis=0).astype(np.float32)).astype(np.float32)


def test_two_runs_at_once_that_keep_all_updates_do_not_mix_them(league: League) -> None:
    """Review 1: north's update of one run's round 1 was read in the other's."""
    first = league.begin(aggregator="median")
    second = beside(league, aggregator="median", seed=5)
    others = {"north": [100.0, 1.0, 9.0], "south": [-7.0, 50.0, 3.0], "west": [8.0, 2.0, 75.0]}
    for name in ("north", "south"):
        assert league.send(name, first).status == 200
    for name, site in league.sites.items():
        key = site.task(second).key
        assert site.send(key, others[name], N[name]).status == 200
    assert league.server.ended(second).state == "finished"  # and its files are removed
    assert league.send("west", first).status == 200
    assert league.server.ended(first).state == "finished"
    assert np.array_equal(league.server.model(second, 1), median(list(others.values())))
    assert np.array_equal(league.server.model(first, 1), median(list(D.values())))


def test_a_site_uploads_no_more_than_a_task_needs(league: League) -> None:
    run = league.begin()
    league.west.task(run)
    answers = [league.west.put(update_bytes([float(n), 1.0, 1.0])) for n in range(20)]
    assert [a.status for a in answers[:UPLOADS_PER_TASK_MAX]] == [200] * UPLOADS_PER_TASK_MAX
    assert {refused(a) for a in answers[UPLOADS_PER_TASK_MAX:]} == {(409, "upload-unwanted")}
    assert len(league.updates()) == UPLOADS_PER_TASK_MAX
    assert league.west.put(update_bytes([0.0, 1.0, 1.0])).status == 200  # a repetition
    assert refused(league.west.put(b"x", key_of(run, 2))) == (409, "upload-unwanted")
    assert refused(league.west.put(b"x", key_of("../" + run))) == (409, "upload-unwanted")


def test_updates_that_did_not_count_go_with_their_round(league: League) -> None:
    run = league.begin(rounds=3, cohort={"minimum": 1, "count": 2, "over": 1.5})
    for number in (1, 2, 3):
        keys = {name: site.task(run, number).key for name, site in league.sites.items()}
        content = {name: update_bytes(np.array(D[name]) * number) for name in D}
        for name, site in league.sites.items():
            assert site.put(content[name]).status == 200
        assert len(league.updates()) == len(D)
        answers = [s.report(keys[n], done(content[n], N[n])) for n, s in league.sites.items()]
        assert sorted(a.status for a in answers) == [200, 200, 409]  # the last one was spare
        until_empty(league)
    assert league.server.ended(run).state == "finished"


def test_a_run_removes_no_update_of_an_equal_run(league: League) -> None:
    first, second = league.begin(), beside(league)
    contents = {name: update_bytes(D[name]) for name in D}
    for name, site in league.sites.items():
        assert site.put(contents[name], site.task(second).key).status == 200
        assert league.send(name, first).status == 200
    assert league.server.ended(first).state == "finished"
    league.server.until(lambda: len(league.updates()) == len(D), "the first run's are removed")
    for name, site in league.sites.items():
        assert site.report(key_of(second), done(contents[name], N[name])).status == 200
    assert league.server.ended(second).state == "finished"
    assert np.array_equal(league.server.model(second, 1), expected(*D))


def test_a_site_learns_nothing_of_anothers_upload_and_cannot_report_it(league: League) -> None:
    run = league.begin()
    content = update_bytes(D["west"])
    for site in (league.west, league.north):
        site.task(run)
    assert league.west.put(content).status == 200
    asked = league.north.place(content, more="/chunks")
    assert refused(league.north.ask("GET", asked)) == (404, "blob-missing")
    answer = league.north.report(key_of(run), done(content, N["north"]))
    assert refused(answer) == (409, "update-missing")
    assert league.west.report(key_of(run), done(content, N["west"])).status == 200


def test_a_chunk_of_anything_does_not_stand_for_anothers_upload(league: League) -> None:
    """A chunk was believed when the whole was there, whoever had sent it."""
    run = league.begin()
    content = update_bytes(D["west"])
    for site in (league.west, league.north):
        site.task(run)
    assert league.west.put(content).status == 200
    chunk = f"{league.north.place(content, more='/chunks/0')}&size={len(content)}"
    junk = bytes(len(content))
    assert refused(league.north.ask("PUT", chunk, body=junk)) == (422, "blob-digest")
    answer = league.north.report(key_of(run), done(content, N["north"]))
    assert refused(answer) == (409, "update-missing")


def test_what_still_comes_in_when_its_round_is_over_is_not_kept_to_be_written_over(
    tmp_path: Path,
) -> None:
    """Review: it was booked with the bytes that it had then, and its writer could not remove it."""
    spares = Spares(tmp_path / "spare")
    updates, content = Updates(tmp_path / "updates", spares), bytes(2 * SPARE_BYTES_MIN)
    store = updates.of("study-1", 1, "north")
    with store.writer(f"blake3:{'0' * 64}", len(content)) as writer:
        writer.write(content[:-1])
        updates.forget("study-1", up_to=1)
        writer.write(content[-1:])
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_round_leaves_none_of_the_updates_that_its_rule_has_looked_at(league: League) -> None:
    run = league.begin(rounds=2, aggregator="median")
    for name in D:
        assert league.send(name, run).status == 200
    league.north.task(run, 2)
    assert (spilled := league.server.state.folder / "spill" / run / "updates").exists()
    assert not [*spilled.iterdir()]


def test_the_end_of_a_run_leaves_none_of_its_files(league: League) -> None:
    run = league.begin(rounds=2, aggregator="median", evaluate={"clients": 1})
    for name in D:
        assert league.send(name, run).status == 200
    state = league.server.state
    spill = state.folder / "spill" / run
    asked: list[Site] = []
    league.server.until(
        lambda: asked.extend(s for s in league.sites.values() if s.poll([run]).tasks) or asked
    )
    assert spill.exists() and list(state.messages.digests())
    assert league.stop(run).status == 200
    league.server.until(lambda: not spill.exists(), "the spilled updates are removed")
    league.server.until(lambda: not list(state.messages.digests()), "messages are removed")
    until_empty(league)
    assert not (state.updates.folder / run).exists()


def test_a_restart_removes_what_ended_runs_and_refused_submissions_have_left(
    league: League,
) -> None:
    state = league.server.state
    Updates(state.folder / "updates").of("study-7", 3, "north").put_bytes(b"update")
    ClientStates(state.folder / "spill" / "study-7").spill("north", 3, {"delta": SEED})
    fresh, old = state.blobs.put_bytes(b"a package")[0], state.blobs.put_bytes(b"refused")[0]
    os.utime(state.blobs.path(old), (1.0, 1.0))
    league.server.restart()
    state = league.server.state
    assert not (state.folder / "updates" / "study-7").exists()
    assert not (state.folder / "spill" / "study-7").exists()
    assert state.blobs.has(fresh) and not state.blobs.has(old)


def test_a_message_stays_until_no_run_needs_it(tmp_path: Path) -> None:
    messages = Messages(BlobStore(tmp_path, durable=False))
    digest = digest_of(b"message")
    for run in ("a-1", "b-1"):
        messages.put(run, digest, [b"mess", b"age"])
    messages.drop("a-1", [digest])
    assert messages.store.has(digest)
    messages.forget("b-1")
    assert not messages.store.has(digest)


def test_a_message_that_equals_another_runs_model_does_not_go_with_that(league: League) -> None:
    model = joined(Params.of({"w": expected(*D)}))
    digest, _ = league.server.state.blobs.put_bytes(model)  # as another run has committed it
    run = league.begin(evaluate={"clients": 3})
    for name in D:
        assert league.send(name, run).status == 200
    task = league.north.task(run, phase="evaluate")
    assert task.message.digest == digest
    league.server.state.blobs.remove(digest)
    assert np.array_equal(league.north.received(task)["w"], expected(*D))


def test_a_full_disk_beside_the_sum_is_told_as_one_and_the_run_goes_on(league: League) -> None:
    run = league.begin(aggregator="median")
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch.object(ClientStates, "spill", side_effect=full):
        assert refused(league.send("north", run)) == (507, "server-disk-full")
    key, content = key_of(run, 1), update_bytes(D["north"])

    def again() -> bool:  # as a site does; whether it counts already is a matter of moments
        league.north.put(content, key)
        return league.north.report(key, done(content, N["north"])).status == 200

    league.server.until(again, "north is counted")
    for name in ("south", "west"):
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), median(list(D.values())))


def test_nobody_waits_while_a_package_is_read_or_a_model_written(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[str, bool]] = []

    def noted(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def work(*args: Any, **named: Any) -> Any:
            held.append((what, league.server.state.trail.locked()))
            return real(*args, **named)

        return work

    monkeypatch.setattr(submissions, "read_archive", noted("read", submissions.read_archive))
    monkeypatch.setattr(submissions, "load_params", noted("load", submissions.load_params))
    monkeypatch.setattr(BlobStore, "put_bytes", noted("write", BlobStore.put_bytes))
    run = league.begin()
    for name in D:
        league.send(name, run)
    assert league.server.ended(run).state == "finished"
    assert {what for what, _ in held} == {"read", "load", "write"}
    assert not any(locked for _, locked in held)
