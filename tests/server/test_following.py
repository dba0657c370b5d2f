"""A round is committed while the next one begins: nothing is told or counted too early."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import done, in_process, key_of, update_bytes
from league import D, League, N, expected

from hansa.errors import AggregationError, ServerError
from hansa.server.federation import DeployedFederation
from hansa.server.following import Following
from hansa.server.journal import Journal
from hansa.server.run_models import RunModels
from hansa.store.faults import disk_full


@pytest.fixture
def league(tmp_path: Path) -> Iterator[League]:
    with in_process(tmp_path, heartbeat_s=2.0) as server:
        yield League(server)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A disk that no model reaches before the event is set."""
    go = threading.Event()
    real = RunModels._make_durable

    def wait(self: RunModels, *facts: Any) -> None:
        assert go.wait(20)
        real(self, *facts)

    monkeypatch.setattr(RunModels, "_make_durable", wait)
    return go


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What a disk has refused, which is full once."""
    real, refused = RunModels._make_durable, list[int]()

    def once(self: RunModels, *facts: Any) -> None:
        if not refused:
            refused.append(1)
            raise disk_full("a model")
        real(self, *facts)

    monkeypatch.setattr(RunModels, "_make_durable", once)
    return refused


def committed(league: League, run: str) -> list[int]:
    return [event["round"] for event in league.server.events(run, "committed")]


def settled(league: League, run: str) -> list[int]:
    """Return the rounds of whose updates a site hears that it may forget them."""
    found = league.north.poll([run]).committed
    return [said.round for said in found if said.run == run]


def test_steps_are_done_in_order_and_none_after_one_that_failed() -> None:
    following, done, go = Following("test"), list[int](), threading.Event()
    following.settle()  # nothing to wait for
    following.then(go.wait)
    for n in range(5):
        following.then(lambda n=n: done.append(n))
    assert not done
    go.set()
    following.settle()
    assert done == [0, 1, 2, 3, 4]
    following.then(lambda: 1 // 0)
    last = following.then(lambda: done.append(5))
    with pytest.raises(ZeroDivisionError):
        following.settle()
    assert isinstance(last.exception(), ZeroDivisionError) and done[-1] == 4
    with pytest.raises(ZeroDivisionError):
        following.close()


def test_a_round_begins_with_a_model_that_is_not_durable_yet_and_nothing_counts_before(
    league: League, slow_disk: threading.Event
) -> None:
    run = league.begin(rounds=2)
    for name in D:
        league.send(name, run)
    task = league.north.task(run, 2)
    (x,) = league.north.received(task).values()
    assert np.array_equal(x, expected(*D))
    assert committed(league, run) == [0] and settled(league, run) in ([], [0])
    assert [e["round"] for e in league.server.events(run, "opened")] == [1]
    with ThreadPoolExecutor(1) as other:
        given = other.submit(league.north.send, task.key, D["north"], N["north"])
        league.server.until(lambda: len(league.updates()) == 4, "the update is here")
        assert not given.done() and not [
            e for e in league.server.events(run, "result") if e["round"] == 2
        ]
        slow_disk.set()
        assert given.result().status == 200
    assert committed(league, run) == [0, 1]
    league.send("south", run, 2)
    league.send("west", run, 2)
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 2), expected(*D, seed=expected(*D)))
    league.server.until(lambda: run not in league.server.state.runs._threads, "its thread ends")
    assert not list(league.server.state.blobs.folder.glob("*~"))


def test_a_commit_that_the_disk_refuses_is_made_again_from_the_same_updates(
    league: League, failed: list[int]
) -> None:
    run = league.begin(rounds=2)
    for name in D:
        league.send(name, run)
    league.server.until(lambda: committed(league, run) == [0, 1], "round 1 is committed")
    for name in D:
        assert league.send(name, run, 2).status == 200
    assert league.server.ended(run).state == "finished" and failed
    assert np.array_equal(league.server.model(run, 2), expected(*D, seed=expected(*D)))


def test_a_run_does_not_end_before_its_last_commit_is_durable(
    league: League, failed: list[int]
) -> None:
    run = league.begin(rounds=1)
    for name in D:
        league.send(name, run)
    assert league.server.ended(run).state == "finished" and failed
    assert committed(league, run) == [0, 1]


def test_a_run_that_is_stopped_before_a_commit_is_durable_does_not_have_that_round(
    league: League, slow_disk: threading.Event
) -> None:
    run = league.begin(rounds=2)
    for name in D:
        league.send(name, run)
    league.north.task(run, 2)
    assert league.stop(run).status == 200
    slow_disk.set()
    assert league.server.ended(run).state == "stopped"
    league.server.until(lambda: run not in league.server.state.runs._threads, "its thread ends")
    assert committed(league, run) == [0]


def test_a_result_that_is_folded_and_could_not_be_recorded_is_in_no_commit(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = Journal.count, list[str]()

    def once(self: Journal, receipt: Any, *facts: Any, weight: float) -> Any:
        if receipt.client == "west" and not failed:
            failed.append("west")
            refused: Future[Any] = Future()

            def refuse() -> None:
                with contextlib.suppress(AssertionError):  # a wrong commit comes at once
                    league.server.until(lambda: 1 in committed(league, run), seconds=0.5)
                refused.set_exception(disk_full("a result"))

            threading.Thread(target=refuse).start()
            return refused
        return real(self, receipt, *facts, weight=weight)

    monkeypatch.setattr(Journal, "count", once)
    run = league.begin(rounds=1)
    league.send("north", run)
    league.send("south", run)
    lost = league.send("west", run)
    assert (lost.status, lost.code) == (507, "server-disk-full") and committed(league, run) == [0]

    def again() -> bool:
        return league.west.send(key_of(run, 1), D["west"], N["west"]).status == 200

    league.server.until(again, "west is counted after all")
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected(*D))
    accepted = [e["client"] for e in league.server.events(run, "result")]
    assert sorted(accepted) == sorted(D)  # each once


def test_the_beginning_of_a_round_is_not_recorded_if_the_commit_before_it_was_not(
    league: League,
) -> None:
    following, refused = Following("test"), disk_full("a model")

    def refuse() -> None:
        raise refused

    following.then(refuse)
    begun = following.then(lambda: league.server.state.journal.begin("none", {}))
    with pytest.raises(ServerError, match="server-disk-full"):
        begun.result()
    with pytest.raises(ServerError, match="server-disk-full"):
        following.close()


def test_a_result_that_is_not_durable_yet_is_never_said_to_be_late(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that hears it is too late forgets what it has learned, and it counts all the same."""
    real, go = Journal.count, threading.Event()

    def wait(self: Journal, receipt: Any, *facts: Any, weight: float) -> Any:
        if receipt.client != "west":
            return real(self, receipt, *facts, weight=weight)
        given: Future[Any] = Future()

        def later() -> None:
            assert go.wait(20)
            given.set_result(real(self, receipt, *facts, weight=weight).result())

        threading.Thread(target=later).start()
        return given

    monkeypatch.setattr(Journal, "count", wait)
    run = league.begin(rounds=1)
    league.send("north", run)
    league.send("south", run)
    key = league.west.task(run, 1).key
    with ThreadPoolExecutor(1) as other:
        first = other.submit(league.west.send, key, D["west"], N["west"])
        hub = league.server.state.hub
        league.server.until(lambda: hub.exchange(run, 1, "train") is None, "it is folded")
        result = done(update_bytes(D["west"]), N["west"])
        again = league.west.report(key, result)
        go.set()
        assert (again.status, again.code) == (503, "round-not-open")
        assert first.result().status == 200
    assert league.server.ended(run).state == "finished"
    assert league.west.report(key, result).status == 200  # the same receipt


def test_a_run_does_not_fail_with_a_commit_that_is_not_durable(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the workflow raises after a refused commit comes again once that is made."""
    real, failed, seen = RunModels._make_durable, list[int](), threading.Event()

    def once(self: RunModels, *facts: Any) -> None:
        if not failed:
            failed.append(1)
            assert seen.wait(20)
            raise disk_full("a model")
        real(self, *facts)

    def begun(self: Any, number: int, *_: Any, **__: Any) -> Any:
        if number == 2:
            seen.set()
            raise AggregationError("aggregation-too-few", "Nobody answered.", "Ask more.")
        return exchange(self, number, *_, **__)

    exchange = DeployedFederation._exchange
    monkeypatch.setattr(DeployedFederation, "_exchange", begun)
    monkeypatch.setattr(RunModels, "_make_durable", once)
    run = league.begin(rounds=2)
    for name in D:
        league.send(name, run)
    assert league.server.ended(run).state == "failed"
    assert committed(league, run) == [0, 1]


def test_a_refused_commit_is_noticed_while_a_run_waits_for_sites(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = RunModels._make_durable, list[int]()

    def once(self: RunModels, *facts: Any) -> None:
        if not failed:
            league.server.until(lambda: league.server.facts(run).state == "waiting", "it waits")
            failed.append(1)
            raise disk_full("a model")
        real(self, *facts)

    monkeypatch.setattr(RunModels, "_make_durable", once)
    run = league.begin(rounds=2, cohort={"minimum": 3})
    for name in ("north", "south"):
        league.send(name, run)
    key = league.west.task(run, 1).key
    real_roster = DeployedFederation.roster

    def roster(self: DeployedFederation, number: int) -> Any:
        if number == 2 and not failed:
            league.server.lose("west")
        return real_roster(self, number)

    monkeypatch.setattr(DeployedFederation, "roster", roster)
    league.west.send(key, D["west"], N["west"])
    league.server.until(lambda: committed(league, run) == [0, 1], "round 1 is committed")


def test_a_model_that_another_run_has_removed_and_placed_again_is_durable_when_it_is_committed(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its synchronisation and the commit an equal run may do both."""
    blobs = league.server.state.blobs
    real, path = blobs.harden, list[Any]()

    def harden(digest: str) -> bool:
        found = real(digest)
        if not path and blobs.path(digest).stat().st_size:
            content = blobs.path(digest).read_bytes()
            blobs.remove(digest)
            blobs.put_bytes(content, durable=False)
            path.append(blobs.folder / digest.removeprefix("blake3:"))
        return found

    monkeypatch.setattr(blobs, "harden", harden)
    run = league.begin(rounds=1)
    for name in D:
        league.send(name, run)
    assert league.server.ended(run).state == "finished"
    assert path and path[0].exists()


def test_a_result_that_was_computed_with_has_its_receipt_though_the_run_fails_by_it(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is folded before it may be recorded, and then the disk takes its time."""
    began, counted = Journal.begin, Journal.count

    def late_begin(self: Journal, *given: Any) -> Any:
        time.sleep(0.2)
        return began(self, *given)

    def late_count(self: Journal, *given: Any, **named: Any) -> Any:
        time.sleep(0.2)
        return counted(self, *given, **named)

    monkeypatch.setattr(Journal, "begin", late_begin)
    monkeypatch.setattr(Journal, "count", late_count)
    run = league.begin("north", algorithm={"name": "fed_avg", "lr": 1e38})
    assert league.send("north", run).status == 200
    assert league.server.ended(run).state == "failed"
    assert [e["client"] for e in league.server.events(run, "result")] == ["north"]
