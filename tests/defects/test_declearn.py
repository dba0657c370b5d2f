"""What happens in declearn 2.9 and must not happen here.

Method: a server in this process, sites by hand; see docs/explain/defects.md for the list.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
from in_process import in_process
from league import D, League, expected

from hansa.protocol.messages import Poll, PollAnswer, TaskResult

COHORT = """
from hansa.plan import read_plan
from hansa.workflows.synchronous import choose
plan = read_plan({"seed": 7, "cohort": {"count": 3}}).plan
print([choose(plan, [f"site-{i}" for i in range(9)], n)[0] for n in range(1, 6)])
"""


def test_one_lost_client_does_not_abort_the_others(league: League) -> None:
    """Killed with TLS: the server waited for ever; without: it aborted, and the others crashed."""
    run = league.begin(rounds=2)
    league.west.task(run)
    league.server.lose("west")
    for number in (1, 2):
        for name in ("north", "south"):
            assert league.send(name, run, number).status == 200
    assert league.server.ended(run).state == "finished"
    assert sorted(league.server.events(run, "opened")[1]["cohort"]) == ["north", "south"]


def test_a_client_that_comes_back_takes_part_again_at_once(league: League) -> None:
    """Registration is closed, said declearn, ten times, a minute apart."""
    run = league.begin(rounds=3)
    league.west.task(run)
    league.server.lose("west")
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    league.server.until(lambda: len(league.server.events(run, "opened")) == 2)
    league.west.poll()
    for name, number in (("north", 2), ("south", 2), ("north", 3), ("south", 3), ("west", 3)):
        assert league.send(name, run, number).status == 200
    assert league.server.ended(run).state == "finished"
    cohorts = [sorted(e["cohort"]) for e in league.server.events(run, "opened")]
    assert cohorts == [sorted(D), ["north", "south"], sorted(D)]


def test_a_server_that_ends_does_not_wait_for_polls(league: League) -> None:
    """Shutdown waited for handlers that poll without end."""
    answers: list[PollAnswer] = []

    def poll() -> None:
        answers.append(league.north.ask("POST", "/v1/poll", Poll()).read(PollAnswer))

    league.north.poll()
    thread = threading.Thread(target=poll)
    thread.start()
    league.server.until(lambda: league.server.state.hub._polls._of.get("north"), "it waits")
    began = time.monotonic()
    league.server.state.hub.drain()
    thread.join(5)
    assert time.monotonic() - began < 2
    assert (answers[0].again_s, answers[0].tasks) == (1.0, [])


def test_one_clients_error_does_not_cancel_the_run(league: League) -> None:
    run = league.begin(rounds=2)
    for number in (1, 2):
        league.west.fail(league.west.task(run, number).key, "RuntimeError: out of memory")
        for name in ("north", "south"):
            assert league.send(name, run, number).status == 200
    assert league.server.ended(run).state == "finished"
    two = expected("north", "south", seed=expected("north", "south"))
    assert np.array_equal(league.server.model(run, 2), two)


def test_a_run_that_evaluates_every_second_round_stops_by_its_patience(league: League) -> None:
    """Early stopping with frequency 2: an IndexError in round 1."""
    stop = {"metric": "accuracy", "patience": 1}
    run = league.begin("north", rounds=9, evaluate={"every": 2, "clients": 1}, stop=stop)
    for number in range(1, 5):
        assert league.send("north", run, number).status == 200
        if number % 2 == 0:
            task = league.north.task(run, number, "evaluate")
            result = TaskResult(state="done", metrics={"accuracy": (3.0 - number / 2, 4.0)})
            assert league.north.report(task.key, result).status == 200
    facts = league.server.ended(run)
    assert facts.state == "finished", facts.reason
    assert [e["round"] for e in league.server.events(run, "committed")] == [0, 1, 2, 3, 4]


def test_a_metric_that_some_clients_withhold_is_the_mean_of_the_others(league: League) -> None:
    """It came out as 0.2 where 2.0 was right: divided by the examples of all."""
    run = league.begin(evaluate={"clients": 3})
    for name in D:
        assert league.send(name, run).status == 200
    for site in league.sites.values():
        metrics = {"loss": (20.0, 10.0)} if site.name == "north" else {}
        task = site.task(run, 1, "evaluate")
        assert site.report(task.key, TaskResult(state="done", metrics=metrics)).status == 200
    assert league.server.ended(run).state == "finished"
    row = league.server.events(run, "committed")[1]["row"]
    assert row["validation"]["loss"]["mean"] == 2.0


def test_a_cohort_drawn_from_a_seed_is_the_same_in_every_process() -> None:
    drawn = set()
    for salt in ("0", "1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", COHORT],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        )
        drawn.add(done.stdout)
    assert len(drawn) == 1


def test_a_message_is_one_blob_however_many_get_it(league: League) -> None:
    """It was serialised once for each recipient."""
    run = league.begin()
    assert len({site.task(run).message.digest for site in league.sites.values()}) == 1


def test_an_update_is_in_the_sum_before_the_next_one_comes(league: League) -> None:
    """All replies were held before they were added up."""
    run = league.begin()
    league.north.task(run)
    for count, name in enumerate(D, start=1):
        exchange = league.server.state.hub.exchange(run, 1, "train")
        assert league.send(name, run).status == 200
        assert exchange is not None and exchange._sum is not None
        if count < 3:
            assert len(exchange._sum._partial.members.clients) == count


def test_a_task_does_not_wait_for_the_next_heartbeat(league: League) -> None:
    """Polling cost two seconds a round; here the heartbeat is half a minute."""
    given: list[float] = []
    for site in league.sites.values():
        site.poll()
    run = league.server.submit(league.ada)
    league.server.until(lambda: league.north.poll().offers, "the run is offered")
    league.north.ready(run, 1)
    league.west.ready(run, 4)

    def poll() -> None:
        answer = league.north.ask("POST", "/v1/poll", Poll(runs=(run,))).read(PollAnswer)
        assert answer.tasks
        given.append(time.monotonic())

    thread = threading.Thread(target=poll)
    thread.start()
    league.server.until(lambda: league.server.state.hub._polls._of.get("north"), "it waits")
    began = time.monotonic()
    league.south.ready(run, 3)
    thread.join(10)
    assert given and given[0] - began < 2


def test_more_sites_than_one_run_takes_are_no_fault(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Three clients for a maximum of two within a second aborted the run."""
    with in_process(tmp_path, heartbeat_s=30.0) as server:
        league = League(server)
        run = league.begin(cohort={"count": 2})
        opened = server.until(lambda: server.events(run, "opened"))[0]
        for name in opened["cohort"]:
            assert league.send(name, run).status == 200
        assert server.ended(run).state == "finished"
