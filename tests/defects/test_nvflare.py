"""What happens in NVFlare 2.7 and 2.9 and must not happen here.

Method: a server in this process, sites by hand; see docs/explain/defects.md for the list.
"""

from __future__ import annotations

import time

import numpy as np
from in_process import Site, in_process
from league import D, League, expected, refused

from hansa.protocol.messages import Poll, PollAnswer, TaskResult

W0 = np.arange(1, 10, dtype=np.float32).reshape(3, 3)


def test_a_failing_client_does_not_end_a_job_that_can_do_without_it(league: League) -> None:
    """kill -9 of one job process, minimum 1: the whole job was killed within 10 s."""
    run = league.begin(cohort={"minimum": 1})
    league.west.fail(league.west.task(run).key, "the process that ran the client died")
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"


def test_a_frozen_site_does_not_hold_up_the_end_of_a_run(league: League) -> None:
    """SIGSTOP: all rounds were done, and the job was RUNNING until the site was thawed."""
    run = league.begin(evaluate={"clients": 3})
    league.west.task(run)
    league.server.lose("west")
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    for site in (league.north, league.south):
        task = site.task(run, 1, "evaluate")
        result = TaskResult(state="done", metrics={"accuracy": (1.0, 2.0)})
        assert site.report(task.key, result).status == 200
    assert league.server.ended(run).state == "finished"


def test_a_thawed_site_hears_that_all_is_over(league: League) -> None:
    run = league.begin()
    key = league.west.task(run).key
    league.server.lose("west")
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    league.server.ended(run)
    answer = league.west.poll([run], holding=[key])
    assert (answer.cancelled, answer.ended) == ([key], [run])
    assert league.west.put(b"x" * 40).code == "upload-unwanted"


def test_a_run_is_not_running_for_ever_after_its_server_died(league: League) -> None:
    """Zombie jobs: RUNNING, and neither to be aborted nor deleted."""
    run = league.begin("north", "south")
    league.north.task(run)
    for _ in range(2):
        league.server.restart()
    assert league.server.facts(run).state in ("waiting", "running")
    assert league.stop(run).status == 200
    assert league.server.ended(run).state == "stopped"
    league.server.restart()
    assert league.server.facts(run).state == "stopped"


def test_a_round_whose_clients_have_all_answered_is_over_at_once(league: League) -> None:
    """The server waited ten seconds after the minimum, even if nobody was left."""
    run = league.begin(rounds=3, cohort={"minimum": 1, "deadline_s": 600.0})
    began = time.monotonic()
    for number in (1, 2, 3):
        for name in D:
            assert league.send(name, run, number).status == 200
    assert league.server.ended(run).state == "finished"
    assert time.monotonic() - began < 5


def test_an_unequal_weight_divides_by_the_same_weights(league: League) -> None:
    """2.0.0 multiplied by weight and examples and divided by examples alone."""
    run = league.begin()
    for name in D:
        assert league.send(name, run).status == 200
    league.server.ended(run)
    assert np.array_equal(league.server.model(run, 1), expected(*D))


def test_hello_numpy_gives_the_table_that_the_tutorial_prints(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Two sites add 1 to nine numbers for ten rounds: W0 + r + 1 after each round r."""
    with in_process(tmp_path, heartbeat_s=30.0) as server:
        submitter = server.join("ada", "submitter")
        sites = [Site(server, "site-1"), Site(server, "site-2")]
        run = server.begin(
            submitter, dict.fromkeys(sites, 1), model=W0, rounds=10, keep={"every": 1}
        )
        for number in range(1, 11):
            for site in sites:
                task = site.task(run, number)
                received = next(iter(site.received(task).values()))
                assert np.array_equal(received, W0 + number - 1)
                assert site.send(task.key, np.ones(9), 1.0).status == 200
        assert server.ended(run).state == "finished"
        for number in range(11):
            found = server.model(run, number)
            assert found.dtype == np.float32 and np.array_equal(found, W0 + number)


def test_a_second_contribution_of_a_round_is_not_added(league: League) -> None:
    run = league.begin("north", "south")
    key = league.north.task(run).key
    assert league.north.send(key, D["north"], 1.0).status == 200
    other = league.north.send(key, [7.0, 7.0, 7.0], 1.0)
    assert other.status == 409
    assert league.send("south", run).status == 200
    league.server.ended(run)
    assert np.array_equal(league.server.model(run, 1), expected("north", "south"))


def test_a_site_that_joins_a_running_job_takes_part(league: League) -> None:
    """A relaunched client did not rejoin the job."""
    run = league.begin("north", rounds=2)
    league.north.task(run)
    league.south.ready(run, 3)
    assert league.send("north", run).status == 200
    for name in ("north", "south"):
        assert league.send(name, run, 2).status == 200
    assert league.server.ended(run).state == "finished"
    two = expected("north", "south", seed=expected("north"))
    assert np.array_equal(league.server.model(run, 2), two)


def test_a_refusal_says_who_what_and_what_to_do(league: League) -> None:
    """Famous for messages that say nothing: `No error but stop running`."""
    run = league.begin("north")
    assert refused(league.send("north", run)) == (200, "")
    league.server.ended(run)
    answer = league.stop(run)
    assert answer.code == "run-ended"
    assert run in answer.message and "finished" in answer.message


def test_a_job_that_finds_no_resources_waits_and_says_for_what(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """After ten tries a job was CAN_NOT_SCHEDULE, and nobody said which site lacked what."""
    with in_process(tmp_path, gather_s=0.1) as server:
        league = League(server)
        run = league.begin("north", resources={"gpu": 1})
        server.until(lambda: "north has too little of gpu to lend" in server.facts(run).reason)
        for _ in range(20):  # whatever happens meanwhile, it is tried again and never given up
            league.south.poll()
        assert server.facts(run).state == "waiting"
        lent = Poll(wait=False, version="1", resources={"gpu": 1})
        league.north.poll = lambda *_, **__: league.north.ask("POST", "/v1/poll", lent).read(
            PollAnswer
        )  # type: ignore[method-assign]
        assert league.send("north", run).status == 200
        assert server.ended(run).state == "finished"


def test_a_run_whose_server_died_does_not_starve_the_queue_behind_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """The orphan kept its place, and the jobs behind it waited silently."""
    with in_process(tmp_path, runs=1) as server:
        league = League(server)
        first = league.begin("north")
        league.north.task(first)
        second = league.begin("north")
        server.until(lambda: server.facts(second).reason == "other runs are at work")
        server.restart()
        assert league.stop(first).status == 200
        assert server.ended(first).state == "stopped"
        league.north.ready(second, 1)
        assert league.send("north", second).status == 200
        assert server.ended(second).state == "finished"


def test_a_waiting_job_is_aborted_after_a_restart_of_the_server(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Abort was INTERNAL_ERROR, \"is not running\"."""
    with in_process(tmp_path, runs=1) as server:
        league = League(server)
        first = league.begin("north")
        league.north.task(first)
        second = league.begin("north")
        server.until(lambda: server.facts(second).reason == "other runs are at work")
        server.restart()
        assert league.stop(second).status == 200
        assert server.ended(second).state == "stopped"
        assert league.north.poll([first, second]).ended == [second]


def test_a_job_for_two_of_three_sites_survives_the_third(league: League) -> None:
    """k of n: a platform on FLARE had to write a controller of its own for it."""
    run = league.begin(cohort={"minimum": 2, "mandatory": ["north"]})
    league.west.fail(league.west.task(run).key, "out of memory")
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected("north", "south"))
