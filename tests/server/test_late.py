"""Goal: cohort.late = "discount": what an update that comes in the next round weighs, exactly.

Method: closed forms with signed, unequal, dyadic numbers; a restart in between must not change a
bit.  With "refuse", the default, see test_exchange.
"""

from __future__ import annotations

import errno
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from in_process import SEED, Reply, Site, done, key_of, update_bytes
from league import D, League, N, expected, refused

from hansa.protocol.messages import Receipt
from hansa.server import round_files
from hansa.server.federation import DeployedFederation
from hansa.server.journal import Journal

HURRY = {"minimum": 2, "grace_s": 1.0, "late": "discount", "late_discount": 0.25}


def late_mean(late: str, factor: float, seed: np.ndarray, *names: str) -> np.ndarray:
    weights = {name: float(N[name]) for name in names}
    total = sum(weights.values()) + N[late] * factor
    whole = sum(weights[n] * np.array(D[n]) for n in names) + N[late] * factor * np.array(D[late])
    return (seed + (whole / total).astype(np.float32)).astype(np.float32)


def first_round_without_west(league: League, **plan: object) -> tuple[str, bytes]:
    """Open a run; north and south answer round 1, west has only uploaded when it closes."""
    run = league.begin(cohort=HURRY | dict(plan.pop("cohort", {})), **plan)  # type: ignore[call-overload]
    league.west.task(run)
    content = update_bytes(D["west"])
    assert league.west.put(content).status == 200
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    league.north.task(run, 2)
    return run, content


def report(site: Site, run: str, number: int, content: bytes) -> Reply:
    return site.report(key_of(run, number), done(content, N[site.name]))


def close(league: League, run: str, number: int) -> None:
    """Let north and south answer; west has nothing to say in this round."""
    league.west.fail(league.west.task(run, number).key)
    for name in ("north", "south"):
        assert league.send(name, run, number).status == 200


def test_an_update_one_round_late_counts_with_less_weight_once(league: League) -> None:
    run, content = first_round_without_west(league, rounds=2)
    first = report(league.west, run, 1, content)
    receipt = first.read(Receipt)
    assert (receipt.round, receipt.client, receipt.phase) == (1, "west", "train")
    for _ in range(3):
        assert report(league.west, run, 1, content).body == first.body
    other = update_bytes([9.0, 9.0, 9.0])
    league.west.put(other)
    assert refused(report(league.west, run, 1, other)) == (409, "update-conflict")
    close(league, run, 2)
    assert league.server.ended(run).state == "finished"
    two = late_mean("west", 0.25, expected("north", "south"), "north", "south")
    assert np.array_equal(league.server.model(run, 2), two)
    assert [r.round for r in league.west.receipts()] == [1]


def test_a_late_update_that_is_sent_again_before_its_receipt_is_durable_gets_that_receipt(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second was told that it did not count, and the site rolled back what counted."""
    run, content = first_round_without_west(league, rounds=2)
    real, entered, durable = Journal.count, threading.Event(), threading.Event()

    def slow(
        self: Journal, receipt: Receipt, fact: dict[str, Any], *, weight: float
    ) -> Future[Receipt]:
        entered.set()
        return disk.submit(
            lambda: durable.wait(20) and real(self, receipt, fact, weight=weight).result()
        )

    monkeypatch.setattr(Journal, "count", slow)
    with ThreadPoolExecutor(1) as disk, ThreadPoolExecutor(2) as senders:
        first = senders.submit(report, league.west, run, 1, content)
        assert entered.wait(20)
        again = senders.submit(report, league.west, run, 1, content)
        with pytest.raises(TimeoutError):
            again.result(0.3)
        other = update_bytes([9.0, 9.0, 9.0])
        league.west.put(other)
        refusal = report(league.west, run, 1, other)
        assert refused(refusal) == (409, "update-late") and b"round 1 (train)" in refusal.body
        durable.set()
        assert (first.result(20).status, again.result(20).body) == (200, first.result(20).body)
    monkeypatch.undo()
    close(league, run, 2)
    assert league.server.ended(run).state == "finished"
    two = late_mean("west", 0.25, expected("north", "south"), "north", "south")
    assert np.array_equal(league.server.model(run, 2), two)
    assert [r.round for r in league.west.receipts()] == [1]


def test_a_site_may_be_late_for_one_round_and_in_time_for_the_next(league: League) -> None:
    run, content = first_round_without_west(league, rounds=2)
    assert report(league.west, run, 1, content).status == 200
    for name in D:
        assert league.send(name, run, 2).status == 200
    assert league.server.ended(run).state == "finished"
    total = 1 + 3 + 4 + 4 * 0.25
    whole = 1.0 * np.array(D["north"]) + 3.0 * np.array(D["south"]) + 5.0 * np.array(D["west"])
    two = expected("north", "south") + (whole / total).astype(np.float32)
    assert np.array_equal(league.server.model(run, 2), two)
    assert [r.round for r in league.west.receipts()] == [1, 2]


def test_a_late_update_survives_a_restart_with_the_same_bytes(league: League) -> None:
    run, content = first_round_without_west(league, rounds=2)
    first = report(league.west, run, 1, content).read(Receipt)
    league.server.restart()
    for site in league.sites.values():
        site.poll([run])
    assert report(league.west, run, 1, content).read(Receipt) == first
    close(league, run, 2)
    assert league.server.ended(run).state == "finished"
    two = late_mean("west", 0.25, expected("north", "south"), "north", "south")
    assert np.array_equal(league.server.model(run, 2), two)


def test_a_late_update_survives_a_loss_of_power(league: League) -> None:
    """What was not synchronised is gone, and west has dropped what was of a committed round."""
    run, content = first_round_without_west(league, rounds=2)
    assert report(league.west, run, 1, content).status == 200
    league.server.leave()
    for path in (league.server.folder / "updates").rglob("*~"):
        path.unlink()
    league.server.start()
    for site in league.sites.values():
        site.poll([run])
    close(league, run, 2)
    assert league.server.ended(run).state == "finished"
    two = late_mean("west", 0.25, expected("north", "south"), "north", "south")
    assert np.array_equal(league.server.model(run, 2), two)


def test_a_late_update_that_cannot_be_kept_is_not_counted_and_may_come_again(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, content = first_round_without_west(league, rounds=2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(round_files, "sync_folder", full)
        assert refused(report(league.west, run, 1, content)) == (507, "server-disk-full")
    assert league.west.receipts() == []
    assert report(league.west, run, 1, content).status == 200
    close(league, run, 2)
    assert league.server.ended(run).state == "finished"
    two = late_mean("west", 0.25, expected("north", "south"), "north", "south")
    assert np.array_equal(league.server.model(run, 2), two)


def test_nothing_counts_that_is_later_than_the_plan_allows(league: League) -> None:
    """D8: two rounds late where one is allowed; and exactly two where two are."""
    run, content = first_round_without_west(league, rounds=3)
    close(league, run, 2)
    league.north.task(run, 3)
    assert refused(report(league.west, run, 1, content)) == (409, "update-late")
    close(league, run, 3)
    assert league.server.ended(run).state == "finished"
    model = SEED
    for _ in range(3):
        model = expected("north", "south", seed=model)
    assert np.array_equal(league.server.model(run, 3), model)
    assert league.west.receipts() == []


def test_two_rounds_late_is_discounted_twice(league: League) -> None:
    run, content = first_round_without_west(league, rounds=3, cohort={"late_rounds": 2})
    close(league, run, 2)
    league.north.task(run, 3)
    assert league.west.put(content, key_of(run)).status == 200
    assert report(league.west, run, 1, content).status == 200
    close(league, run, 3)
    assert league.server.ended(run).state == "finished"
    before = expected("north", "south", seed=expected("north", "south"))
    three = late_mean("west", 0.25**2, before, "north", "south")
    assert np.array_equal(league.server.model(run, 3), three)


def test_a_late_update_of_a_site_that_was_not_asked_does_not_count(league: League) -> None:
    run = league.begin(rounds=2, cohort=HURRY | {"count": 2}, seed=3)
    (opened,) = league.server.until(lambda: league.server.events(run, "opened"))
    (spare,) = set(D) - set(opened["cohort"])
    for name in opened["cohort"]:
        assert league.send(name, run).status == 200
    league.server.until(lambda: len(league.server.events(run, "opened")) == 2)
    content = update_bytes(D[spare])
    league.sites[spare].put(content, key_of(run))
    answer = report(league.sites[spare], run, 1, content)
    assert refused(answer) == (409, "update-late")


def test_a_late_update_that_cannot_be_summed_is_refused_and_the_round_goes_on(
    league: League,
) -> None:
    run, _ = first_round_without_west(league, rounds=2)
    bad = update_bytes([1.0, float("nan"), 0.0])
    league.west.put(bad, key_of(run))
    assert refused(report(league.west, run, 1, bad)) == (422, "update-not-finite")
    close(league, run, 2)
    assert league.server.ended(run).state == "finished"
    two = expected("north", "south", seed=expected("north", "south"))
    assert np.array_equal(league.server.model(run, 2), two)


def test_a_site_that_failed_in_its_round_cannot_be_late_for_it(league: League) -> None:
    """A failure is a settled word; what comes after it was not trained in that round's name."""
    run = league.begin(rounds=2, cohort=HURRY)
    assert league.west.fail(league.west.task(run).key).status == 200
    for name in ("north", "south"):
        league.send(name, run)
    league.north.task(run, 2)
    content = update_bytes(D["west"])
    league.west.put(content)
    assert report(league.west, run, 1, content).status == 409
    assert league.west.receipts() == []


class Held:
    """The disk, which keeps a receipt waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, client: str) -> None:
        self.entered, self.durable, self._client = threading.Event(), threading.Event(), client
        self._real, self._disk = Journal.count, ThreadPoolExecutor(1)
        held = self

        def count(self: Journal, receipt: Receipt, *facts: Any, weight: float) -> Future[Receipt]:
            return held.count(self, receipt, *facts, weight=weight)

        monkeypatch.setattr(Journal, "count", count)

    def count(
        self, journal: Journal, receipt: Receipt, *facts: Any, weight: float
    ) -> Future[Receipt]:
        if receipt.client != self._client or self.entered.is_set():
            return self._real(journal, receipt, *facts, weight=weight)
        self.entered.set()

        def later() -> Receipt:
            assert self.durable.wait(20)
            return self._real(journal, receipt, *facts, weight=weight).result()

        return self._disk.submit(later)


def test_a_late_update_that_is_sent_again_after_the_next_round_has_closed_is_not_turned_down(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It got a 409 and counted all the same: the site took it for not counted."""
    run, content = first_round_without_west(league, rounds=2)
    disk = Held(monkeypatch, "west")
    with ThreadPoolExecutor(1) as sender:
        first = sender.submit(report, league.west, run, 1, content)
        assert disk.entered.wait(20)
        close(league, run, 2)
        league.server.until(lambda: league.server.state.hub.exchange(run, 2, "train") is None)
        again = report(league.west, run, 1, content)
        assert (again.status, again.code) == (503, "round-not-open")
        disk.durable.set()
        assert first.result(20).status == 200
    assert report(league.west, run, 1, content).status == 200
    assert league.server.ended(run).state == "finished"


def test_what_counted_in_its_round_does_not_count_again_as_late(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second sending had looked for a receipt before there was one (law L4)."""
    run = league.begin(rounds=2, cohort={"minimum": 2, "late": "discount", "late_discount": 0.25})
    key, content = league.west.task(run).key, update_bytes(D["west"])
    assert league.west.put(content, key).status == 200
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    disk, real = Held(monkeypatch, "west"), Journal.receipt
    looked, go = threading.Event(), threading.Event()

    def receipt(self: Journal, *where: Any, **named: Any) -> Receipt | None:
        found = real(self, *where, **named)
        if named["client"] == "west" and not looked.is_set():
            looked.set()
            assert go.wait(20)
        return found

    with ThreadPoolExecutor(2) as senders:
        first = senders.submit(report, league.west, run, 1, content)
        assert disk.entered.wait(20)
        league.server.until(lambda: league.server.state.hub.exchange(run, 1, "train") is None)
        monkeypatch.setattr(Journal, "receipt", receipt)
        again = senders.submit(report, league.west, run, 1, content)
        assert looked.wait(20)
        disk.durable.set()
        assert first.result(20).status == 200
        league.north.task(run, 2)
        go.set()
        assert again.result(20).status in (200, 503)
    for name in D:
        assert league.send(name, run, 2).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 2), expected(*D, seed=expected(*D)))


def test_a_late_site_works_on_and_keeps_its_update_between_the_close_and_the_commit(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], DeployedFederation.commit

    async def commit(self: DeployedFederation, *what: Any) -> Any:
        seen.append(league.west.poll([run], [key]))
        return await real(self, *what)

    monkeypatch.setattr(DeployedFederation, "commit", commit)
    run = league.begin(rounds=2, cohort=HURRY)
    key = league.west.task(run).key
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    league.north.task(run, 2)
    assert seen[0].cancelled == []
    said = league.west.poll([run], [key])
    assert said.cancelled == [] and [c.round for c in said.committed] == [0]
    league.stop(run)
