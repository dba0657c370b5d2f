"""After a restart, and when sites withdraw: nothing is lost, and nothing is waited for in vain."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from blake3 import blake3
from in_process import done, in_process, key_of, update_bytes
from league import D, League, N, expected

from hansa.protocol.messages import PollAnswer, Receipt, RunDetails, Standing, TaskResult
from hansa.server.exchange import Exchange
from hansa.server.federation import DeployedFederation
from hansa.server.run_models import RunModels
from hansa.server.sums import RoundSum


@pytest.fixture
def league(tmp_path: Path) -> Iterator[League]:
    with in_process(tmp_path, heartbeat_s=2.0) as server:
        yield League(server)


@pytest.fixture
def slow_resume(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A restart after which no run is resumed before the event is set."""
    go = threading.Event()
    real = DeployedFederation.resume

    def resume(self: DeployedFederation) -> Any:
        go.wait(20)
        return real(self)

    monkeypatch.setattr(DeployedFederation, "resume", resume)
    go.set()
    return go


def test_a_result_that_comes_before_its_round_is_open_again_is_asked_for_later(
    league: League, slow_resume: threading.Event
) -> None:
    run = league.begin(rounds=1)
    key, content = league.west.task(run).key, update_bytes(D["west"])
    league.west.put(content)
    league.server.leave()
    slow_resume.clear()
    league.server.start()
    early = league.west.report(key, done(content, N["west"]))
    assert (early.status, early.code) == (503, "round-not-open")
    # With a time to wait in it, every restart would last that much longer.
    assert "retry-after" not in early.headers
    slow_resume.set()

    def counted() -> bool:
        league.west.put(content)  # what was not counted before the restart is sent again
        return league.west.report(key, done(content, N["west"])).status == 200

    league.server.until(counted, "the round is open")
    for name in ("north", "south"):
        league.send(name, run)
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected(*D))


def test_a_restart_does_not_cancel_training_that_is_under_way(
    league: League, slow_resume: threading.Event
) -> None:
    run = league.begin(rounds=1)
    key = league.west.task(run).key
    league.server.leave()
    slow_resume.clear()
    league.server.start()
    assert not league.west.poll([run], [key]).cancelled
    slow_resume.set()
    seen: list[PollAnswer] = []
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        seen.append(league.west.poll([run], [key]))
    assert not any(answer.cancelled or answer.ended for answer in seen)


def test_a_site_that_withdraws_is_not_waited_for(league: League) -> None:
    run = league.begin(rounds=1, cohort={"minimum": 2, "deadline_s": 60.0})
    league.west.task(run)
    for name in ("north", "south"):
        league.send(name, run)
    began = time.monotonic()
    refused = Standing(state="refused", reason="the owner has denied it")
    assert league.west.ask("POST", f"/v1/runs/{run}/standing", refused).status == 200
    assert league.server.ended(run).state == "finished"
    assert time.monotonic() - began < 10
    (problem,) = league.server.events(run, "problem")
    assert (problem["client"], problem["message"]) == ("west", "the owner has denied it")


ASKS = Standing(state="waiting", reason="the approval was for 1 round")
READY = Standing(state="ready", examples=N["west"])


def stands(league: League, run: str, standing: Standing) -> None:
    assert league.west.ask("POST", f"/v1/runs/{run}/standing", standing).status == 200


def told(league: League, run: str) -> tuple[str, str]:
    facts = league.server.ask(league.ada, "GET", f"/v1/runs/{run}").read(RunDetails).facts
    return facts.state, facts.reason


@pytest.mark.parametrize("restarts", [0, 1])
def test_a_round_waits_for_the_owner_of_a_site_that_it_needs(league: League, restarts: int) -> None:
    """It failed, and the run with it: an approval that ran out ended everybody's work."""
    run = league.begin(rounds=1, cohort={"minimum": 3, "deadline_s": 60.0})
    key = league.west.task(run).key
    stands(league, run, ASKS)
    for name in ("north", "south"):
        league.send(name, run)
    for _ in range(restarts):
        league.restart(run)
    said = league.west.poll([run], [key])
    assert (said.cancelled, said.tasks) == ([key], []), "it is not asked meanwhile"
    league.west.poll([run])  # is heard of, which does not mean that its owner has decided
    assert told(league, run) == ("running", "round 1 waits: west must approve it")
    stands(league, run, READY)
    assert told(league, run) == ("running", "")
    assert league.send("west", run).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected(*D))
    assert not league.server.events(run, "problem")


def test_a_site_that_is_not_needed_is_not_waited_for_while_its_owner_decides(
    league: League,
) -> None:
    run = league.begin(rounds=1, cohort={"minimum": 2, "deadline_s": 60.0})
    key = league.west.task(run).key
    stands(league, run, ASKS)
    stands(league, run, READY)
    said = league.west.poll([run], [key])
    assert (said.cancelled, said.tasks) == ([key], []), "it is asked again in the next round"
    for name in ("north", "south"):
        league.send(name, run)
    assert league.server.ended(run).state == "finished"
    (problem,) = league.server.events(run, "problem")
    assert (problem["client"], problem["message"]) == ("west", ASKS.reason)


def test_an_owner_who_refuses_in_the_end_is_not_waited_for_any_longer(league: League) -> None:
    run = league.begin(rounds=1, cohort={"mandatory": ["west"], "deadline_s": 60.0})
    league.west.task(run)
    stands(league, run, ASKS)
    for name in ("north", "south"):
        league.send(name, run)
    assert league.server.facts(run).state == "running"
    stands(league, run, Standing(state="refused", reason="No."))
    ended = league.server.ended(run)
    assert ended.state == "failed" and "west: No" in ended.reason


def test_an_owner_who_never_decides_is_named_when_the_time_is_over(league: League) -> None:
    run = league.begin(rounds=1, cohort={"minimum": 3, "deadline_s": 2.0})
    league.west.task(run)
    stands(league, run, ASKS)
    for name in ("north", "south"):
        league.send(name, run)
    ended = league.server.ended(run)
    assert ended.state == "failed" and f"west: {ASKS.reason}" in ended.reason


def test_a_site_whose_owner_must_decide_when_an_exchange_opens_is_not_asked(
    league: League,
) -> None:
    """Its word came between the training and the evaluation of a round."""
    run = league.begin(rounds=1, cohort={"minimum": 3}, evaluate={"clients": 3})
    assert league.send("west", run).status == 200
    stands(league, run, ASKS)
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    for name in ("north", "south"):
        site = league.sites[name]
        key = site.task(run, 1, "evaluate").key
        measured = TaskResult(state="done", metrics={"loss": (1.0, 2.0)})
        assert site.report(key, measured).status == 200
    assert league.server.ended(run).state == "finished"
    (problem,) = league.server.events(run, "problem")
    assert (problem["client"], problem["message"]) == ("west", ASKS.reason)
    assert not league.west.poll([run]).tasks


def test_a_revoked_site_is_told_as_that_in_every_exchange_and_not_as_silent(
    league: League,
) -> None:
    server, run = league.server, league.begin(rounds=1, evaluate={"clients": 3})
    league.west.task(run)
    root = server.join("root", "admin")
    assert server.ask(root, "POST", "/v1/members/west/revoke", {}).status == 200
    for name in ("north", "south"):
        league.send(name, run)
    for name in ("north", "south"):
        site = league.sites[name]
        measured = TaskResult(state="done", metrics={"loss": (1.0, 2.0)})
        assert site.report(site.task(run, 1, "evaluate").key, measured).status == 200
    assert server.ended(run).state == "finished"
    told = {(e["client"], e["phase"], e["message"]) for e in server.events(run, "problem")}
    gone = "west is no member any more: it was revoked"
    assert told == {("west", "train", gone), ("west", "evaluate", gone)}
    assert server.state.journal.standings(run)["west"].state == "refused"


def test_a_result_whose_body_ends_after_a_revocation_does_not_count(league: League) -> None:
    server, run = league.server, league.begin(rounds=1, cohort={"minimum": 2})
    league.west.task(run)
    content = update_bytes(D["west"])
    league.west.put(content)
    body = msgspec.json.encode(done(content, N["west"]))
    length = str(len(body)).encode()
    target = f"/v1/runs/{run}/rounds/1/train/result"
    proof = server._provers["west"].header("POST", target, blake3(body).hexdigest())
    begun, go, answers = threading.Event(), threading.Event(), list[dict[str, Any]]()

    async def call() -> None:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "https",
            "method": "POST", "path": target, "raw_path": target.encode(), "query_string": b"",
            "root_path": "", "client": ("192.0.2.1", 5), "server": ("localhost", 8443),
            "headers": [(b"content-length", length), (b"hansa-proof", proof.encode())],
        }  # fmt: skip
        parts = [body[:5], body[5:]]

        async def receive() -> dict[str, Any]:
            while len(parts) == 1 and not go.is_set():
                begun.set()
                await asyncio.sleep(0.02)
            piece = parts.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(parts)}

        async def send(message: Any) -> None:
            answers.append(message)

        await server.app(scope, receive, send)

    sending = threading.Thread(target=lambda: server._do(call()))
    sending.start()
    assert begun.wait(10)  # it is admitted, and its body is under way
    root = server.join("root", "admin")
    assert server.ask(root, "POST", "/v1/members/west/revoke", {}).status == 200
    go.set()
    sending.join()
    assert answers[0]["status"] == 401
    for name in ("north", "south"):
        league.send(name, run)
    assert server.ended(run).state == "finished"
    accepted = [e["client"] for e in server.events(run, "result") if e["state"] == "accepted"]
    assert sorted(accepted) == ["north", "south"]


def test_a_late_update_leaves_no_ghost_in_the_cohort_after_a_crash(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round with a discounted late update is closed, and its commit fails once."""
    hurry = {"minimum": 2, "grace_s": 1.0, "late": "discount", "late_discount": 0.25}
    run = league.begin(rounds=2, cohort=hurry)
    content = update_bytes(D["west"])
    league.west.task(run)
    league.west.put(content)
    for name in ("north", "south"):
        league.send(name, run)
    league.north.task(run, 2)
    late = league.west.report(key_of(run, 1), done(content, N["west"]))
    assert late.status == 200
    real, failed = RunModels.record, list[int]()

    def record(self: RunModels, commit: Any, *more: Any, **named: Any) -> Any:
        if commit.round == 2 and not failed:
            failed.append(2)
            raise OSError(5, "the disk")
        return real(self, commit, *more, **named)

    monkeypatch.setattr(RunModels, "record", record)
    for name in ("north", "south"):
        league.send(name, run, 2)
    assert league.server.ended(run).state == "finished"
    assert failed
    assert all("@" not in name for name in league.server.state.hub.online())
    closed = [e["accepted"] for e in league.server.events(run, "closed")]
    assert all("@" not in name for accepted in closed for name in accepted)


def power_cut(league: League) -> None:
    """Restart the server without the updates: none had been synchronised."""
    league.server.leave()
    for path in (league.server.folder / "updates").rglob("*"):
        if path.is_file():
            path.unlink()
    league.server.start()


@pytest.mark.parametrize("again", ["", "A"])
def test_an_update_in_place_of_a_lost_one_counts_after_another_crash(
    league: League, again: str
) -> None:
    """North has the receipt of its second update, and is away from then on.

    The first one's file counts for nothing any more, even if it has been uploaded again.
    """
    run = league.begin(rounds=1, cohort={"minimum": 2})
    first = league.north.send(league.north.task(run).key, [9.0, 9.0, 9.0], N["north"])
    power_cut(league)
    task = league.north.task(run)
    assert task.attempt == 2
    second = league.north.send(task.key, D["north"], N["north"])
    assert first.read(Receipt).digest != second.read(Receipt).digest
    if again:
        store = league.server.state.updates.of(run, 1, "north")
        store.put_bytes(update_bytes([9.0, 9.0, 9.0]))
    league.server.restart()
    for name in ("south", "west"):
        league.send(name, run)
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected(*D))
    assert [r.digest for r in league.north.receipts()] == [second.read(Receipt).digest]
    assert not league.server.events(run, "problem")


def test_an_update_that_is_lost_twice_is_asked_for_again(league: League) -> None:
    run = league.begin(rounds=1, cohort={"minimum": 3})
    for values in ([9.0, 9.0, 9.0], [7.0, 7.0, 7.0]):
        assert league.north.send(league.north.task(run).key, values, N["north"]).status == 200
        power_cut(league)
        assert league.north.task(run).attempt == 2
    for name in D:
        league.send(name, run)
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected(*D))


def test_a_site_that_cannot_give_a_lost_update_again_does_not_hold_the_round(
    league: League,
) -> None:
    run = league.begin(rounds=1, cohort={"minimum": 1, "deadline_s": 60.0})
    league.send("west", run)
    power_cut(league)
    again = league.west.task(run)
    assert again.attempt == 2
    assert league.west.fail(again.key, "its disk is gone").status == 200
    for name in ("north", "south"):
        league.send(name, run)
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected("north", "south"))
    assert "west" in [p["client"] for p in league.server.events(run, "problem")]


def test_nobody_gets_a_receipt_from_an_exchange_that_is_broken(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened again from what was recorded, and would not know of it."""
    run = league.begin(rounds=1, cohort={"minimum": 2})
    keys = {name: league.sites[name].task(run).key for name in D}
    broken = league.server.state.hub.exchange(run, 1, "train")
    contents = {name: update_bytes(D[name]) for name in D}
    for name in D:
        assert league.sites[name].put(contents[name], keys[name]).status == 200
    looked, fold = Exchange._looked_at, RoundSum.fold
    held, go = threading.Event(), threading.Event()

    def look(self: Exchange, client: str, result: Any) -> Any:
        if client == "west" and self is broken:
            held.set()
            assert go.wait(20)
        return looked(self, client, result)

    def full(self: RoundSum, contribution: Any) -> None:
        if contribution.client == "north":
            raise OSError(errno.ENOSPC, "No space left on device")
        fold(self, contribution)

    monkeypatch.setattr(Exchange, "_looked_at", look)
    with ThreadPoolExecutor(1) as sender:
        result = done(contents["west"], N["west"])
        west = sender.submit(league.west.report, keys["west"], result)
        assert held.wait(20)
        with monkeypatch.context() as disk:
            disk.setattr(RoundSum, "fold", full)
            league.north.report(keys["north"], done(contents["north"], N["north"]))
        hub = league.server.state.hub
        league.server.until(lambda: hub.exchange(run, 1, "train") not in (None, broken))
        go.set()
        assert (west.result(20).status, west.result().code) == (503, "round-not-open")
    for name in D:
        result = done(contents[name], N[name])
        league.server.until(
            lambda name=name, result=result: (
                league.sites[name].report(keys[name], result).status == 200
            )
        )
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected(*D))
