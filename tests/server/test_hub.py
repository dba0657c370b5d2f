"""Goal: polls and presence: what a site is told, when it counts as lost, and that nobody waits.

Method: the hub of a server in this process, through the route of polls where a site would use it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from in_process import Site, in_process, key_of
from league import League, refused

from hansa.limits import HANDLER_THREADS, SITES_PER_HEARTBEAT_SECOND
from hansa.protocol.messages import Poll, PollAnswer, TaskResult
from hansa.rounds.round import ClientStatus
from hansa.server import hub as hub_module
from hansa.server import members
from hansa.server.hub import Hub
from hansa.server.sums import RoundSum
from hansa.store.faults import disk_full


@pytest.fixture
def league(tmp_path: Path) -> Iterator[League]:
    with in_process(tmp_path, heartbeat_s=1.0) as server:
        yield League(server)


def test_an_idle_poll_lasts_one_heartbeat(league: League) -> None:
    began = time.monotonic()
    answer = league.north.ask("POST", "/v1/poll", Poll()).read(PollAnswer)
    assert 0.9 <= time.monotonic() - began < 10
    assert answer == PollAnswer(heartbeat_s=1.0)


def test_a_site_is_lost_after_two_heartbeats_and_there_again_when_it_is_heard(
    league: League,
) -> None:
    hub = league.server.state.hub
    league.north.poll()
    assert hub.online()["north"].online
    began = time.monotonic()
    league.server.until(lambda: not hub.online()["north"].online, "north counts as lost")
    assert 1.7 <= time.monotonic() - began < 10
    league.north.poll()
    assert hub.online()["north"].online


def test_a_site_that_comes_back_while_its_loss_is_told_takes_part(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: it polls when the exchange has been found and has not been told yet."""
    server, hub = league.server, league.server.state.hub
    run = league.begin(cohort={"minimum": 2})
    task = league.west.task(run)
    exchange = hub.exchange(run, 1, "train")
    assert exchange is not None
    lost = exchange.lost

    def late(client: str) -> None:
        monkeypatch.undo()
        league.west.poll([run], [task.key])
        assert hub.online()["west"].online
        lost(client)

    monkeypatch.setattr(exchange, "lost", late)
    with hub._lock:
        hub._presence["west"] = hub._presence["west"]._replace(heard=float("-inf"))
    hub.overdue()
    assert exchange.state.clients["west"] is ClientStatus.WAITING
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    assert exchange.waits_for("west")
    assert league.send("west", run).status == 200
    assert server.ended(run).state == "finished"


def test_a_site_is_there_again_for_each_of_its_rounds_though_the_disk_fails_at_one(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = league.server.state.hub
    runs = [league.begin("north", "south", name=name) for name in ("one", "two")]
    for run in runs:
        league.north.task(run)
    first, second = (hub.exchange(run, 1, "train") for run in runs)
    assert first is not None and second is not None
    league.server.lose("north")

    def full(client: str) -> None:
        raise disk_full("a word")

    monkeypatch.setattr(first, "returned", full)
    assert league.north.ask("POST", "/v1/poll", Poll(wait=False)).status == 200
    assert second.state.clients["north"] is ClientStatus.WAITING


def test_the_watch_over_sites_goes_on_after_a_disk_was_full(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two exchanges are told of a loss that cannot be written; later losses are noticed too."""
    hub, tried = league.server.state.hub, []
    runs = [league.begin("north", "south", name=name) for name in ("one", "two")]
    for run in runs:
        league.north.task(run)

    def full(*_: object, **__: object) -> None:
        tried.append(1)
        raise disk_full("a note")

    with monkeypatch.context() as patch:
        patch.setattr(league.server.state.journal, "record", full)
        league.server.until(lambda: len(tried) >= 4, "every loss is told to every exchange")
    league.west.poll()
    assert hub.online()["west"].online
    league.server.until(lambda: not hub.online()["west"].online, "west counts as lost")


def test_the_watch_over_revocations_goes_on_after_the_system_had_no_room(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def full(*_: object) -> None:
        tried.append(1)
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(members, "revoked", full)
        league.server.until(lambda: len(tried) >= 2, "it looks again")
    time.sleep(1.2)  # it knows again who was revoked before
    forgotten: list[str] = []
    monkeypatch.setattr(league.server.state.hub, "forget", forgotten.append)
    members.revoke(league.server.state.database, "south", by="another process")
    league.server.until(lambda: forgotten == ["south"], "the hub is told")


def test_offers_that_do_not_fit_into_one_answer_come_with_the_next(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [league.server.submit(league.ada) for _ in range(3)]
    league.server.until(lambda: len(league.north.poll().offers) == 3)
    one = len(msgspec.json.encode(league.north.poll().offers[0]))
    monkeypatch.setattr(hub_module, "OFFERS_BYTES_MAX", 2 * one + one // 2)
    first = [offer.run for offer in league.north.poll().offers]
    assert len(first) == 2
    rest = [offer.run for offer in league.north.poll(first).offers]
    assert sorted(first + rest) == sorted(runs)
    monkeypatch.setattr(hub_module, "OFFERS_BYTES_MAX", 1)
    assert len(league.north.poll().offers) == 1  # one is always given


def test_the_heartbeat_grows_with_the_number_of_sites() -> None:
    hub = Hub(5.0)
    assert hub.heartbeat_s == 5.0
    for number in range(10 * SITES_PER_HEARTBEAT_SECOND):
        hub.heard(f"site-{number}")
    assert hub.heartbeat_s == 10.0


def test_names_that_a_combiner_has_once_said_do_not_add_up_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "COMBINER_SITES_MAX", 3)
    hub = Hub(5.0)
    for number in range(20):
        names = [f"site-{number}-{i}" for i in range(3)]
        assert hub.relayed("tier", names, members=[], version="1") == []
    assert sorted(hub.clients()) == names and hub.behind("tier") == {*names}
    hub.relayed("tier", names[:1], members=[], version="1")
    assert sorted(hub.clients()) == names  # so few may come back


def test_a_site_is_offered_each_run_until_it_knows_it_and_told_when_it_is_over(
    league: League,
) -> None:
    run = league.server.submit(league.ada)
    league.server.until(lambda: league.north.poll().offers, "the run is offered")
    (offer,) = league.north.poll().offers
    assert (offer.run, offer.submitter, offer.tensors) == (run, "ada", [("w", "F32", [3])])
    assert league.north.poll([run]).offers == []
    assert league.north.poll([run]).ended == []
    league.stop(run)
    assert league.north.poll([run]).ended == [run]
    assert league.north.poll().offers == []


def test_what_nobody_wants_is_cancelled_and_what_counts_is_not(league: League) -> None:
    """A task in hand: kept while it is open, cancelled once its round closed without it."""
    run = league.begin("north", "south", cohort={"grace_s": 0.01})
    keys = {name: league.sites[name].task(run).key for name in ("north", "south")}
    assert league.north.poll([run], holding=[keys["north"]]).cancelled == []
    assert league.north.poll([run], holding=[keys["north"]]).tasks == []
    assert league.send("north", run).status == 200
    assert league.north.poll([run], holding=[keys["north"]]).cancelled == []
    league.server.ended(run)
    assert league.south.poll([run], holding=[keys["south"]]).cancelled == [keys["south"]]
    never = key_of("study-77", 5)
    assert league.south.poll(holding=[never]).cancelled == [never]


def test_a_late_answer_is_refused_for_good_however_many_exchanges_the_round_has_had(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What will be opened again is put off until then; split learning closes hundreds a round."""
    monkeypatch.setattr(hub_module, "CLOSED_EXCHANGES_KEPT", 0)
    cohort = {"minimum": 2, "grace_s": 0.01}
    run = league.begin("north", "south", "west", cohort=cohort, evaluate={"clients": 3})
    key = league.south.task(run).key
    for name in ("north", "west"):
        assert league.send(name, run).status == 200
    league.north.task(run, 1, "evaluate")
    late = league.south.report(key, TaskResult(state="failed", code="site-failed", reason="late"))
    assert refused(late) == (409, "update-late")
    assert league.south.poll([run], holding=[key]).cancelled == [key]


def test_a_draining_server_gives_no_work_and_ends_no_run_at_its_sites(league: League) -> None:
    run = league.begin("north")
    key = league.north.task(run).key
    league.server.state.hub.drain()
    answer = league.north.poll([run, "gone-1"], holding=[])
    assert (answer.offers, answer.tasks, answer.ended) == ([], [], [])
    assert answer.again_s == 1.0
    assert key_of(run) == key


def test_a_revocation_ends_a_poll_that_waits(tmp_path: Path) -> None:
    """A5: within a second, though the heartbeat is half a minute."""
    with in_process(tmp_path, heartbeat_s=30.0) as server:
        league = League(server)
        root = server.join("root", "admin")
        answers: list[tuple[int, str]] = []
        league.north.poll()
        thread = threading.Thread(
            target=lambda: answers.append(refused(league.north.ask("POST", "/v1/poll", Poll())))
        )
        thread.start()
        server.until(lambda: server.state.hub._polls._of.get("north"), "it waits")
        began = time.monotonic()
        assert server.ask(root, "POST", "/v1/members/north/revoke", {}).status == 200
        thread.join(10)
        assert time.monotonic() - began < 5
        assert answers == [(401, "identity-member")]


def test_a_poll_with_names_that_are_none_is_refused(league: League) -> None:
    for body in (
        b'{"runs":["../x"]}',
        b'{"holding":[{"run":"a","round":0,"phase":"train"}]}',
        b'{"holding":[{"run":"a","round":1,"phase":"predict"}]}',
        b'{"version":"' + b"x" * 41 + b'"}',
    ):
        answer = league.north.ask("POST", "/v1/poll", body=body)
        assert refused(answer) == (422, "request-message"), body


def test_a_poll_is_answered_while_a_run_leaves_whose_exchange_is_still_open(
    league: League,
) -> None:
    """A run is over for the hub a moment before its thread has closed what it had opened."""
    run = league.begin("north", "south")
    league.north.task(run)
    hub = league.server.state.hub
    active = hub._runs.pop(run)
    try:
        assert [task.key.run for task in league.south.poll([run]).tasks] == [run]
    finally:
        hub.activate(active)
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"


def test_a_round_does_not_wait_for_a_site_that_was_revoked(league: League) -> None:
    """Its minimum cannot be reached any more, and its deadline is an hour away."""
    root = league.server.join("root", "admin")
    run = league.begin(cohort={"minimum": 3})
    league.west.task(run)
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    assert league.server.ask(root, "POST", "/v1/members/west/revoke", {}).status == 200
    ended = league.server.ended(run)
    assert ended.state == "failed" and "west is no member any more" in ended.reason


def test_a_revocation_does_not_wait_behind_results_that_are_folded(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: more results than threads have come, and none is done before the revocation is."""
    server, folded = league.server, threading.Event()
    root = server.join("root", "admin")
    sites = [Site(server, f"s{i:02d}") for i in range(HANDLER_THREADS + 4)]
    run = server.begin(league.ada, dict.fromkeys(sites, 1))
    keys = {site: site.task(run).key for site in sites}
    admitted, coming = RoundSum.admitted, threading.Semaphore(0)

    def slow(self: RoundSum, *given: object, **named: object) -> object:
        coming.release()
        assert folded.wait(60)
        return admitted(self, *given, **named)

    monkeypatch.setattr(RoundSum, "admitted", slow)
    sent = [threading.Thread(target=s.send, args=(keys[s], [1.0, 2.0, 3.0], 1.0)) for s in sites]
    for thread in sent:
        thread.start()
    assert coming.acquire(timeout=20)
    time.sleep(0.5)  # the others wait behind it
    began = time.monotonic()
    answer = server.ask(root, "POST", "/v1/members/s00/revoke", {})
    assert answer.status == 200 and time.monotonic() - began < 5
    folded.set()
    for thread in sent:
        thread.join(30)
