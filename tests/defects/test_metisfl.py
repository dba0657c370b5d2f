"""What happens in MetisFL's three generations and must not happen here.

Method: a server in this process, sites by hand; see docs/explain/defects.md for the list.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from league import D, League, expected

from hansa.clock import monotonic
from hansa.protocol.messages import TaskResult
from hansa.server import exchange
from hansa.server.exchange import Exchange


def test_a_learner_that_dies_does_not_stall_the_round(league: League) -> None:
    """6: nobody sets a deadline; the silence of two heartbeats is enough."""
    run = league.begin()
    league.west.task(run)
    league.server.lose("west")
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected("north", "south"))
    (problem,) = league.server.events(run, "problem")
    assert (problem["client"], problem["code"]) == ("west", "client-silent")


def test_a_learner_that_leaves_is_not_waited_for_and_not_asked_again(league: League) -> None:
    """6: revoked in the midst of a round."""
    run = league.begin(rounds=2)
    league.west.task(run)
    root = league.server.join("root", "admin")
    assert league.server.ask(root, "POST", "/v1/members/west/revoke", {}).status == 200
    for number in (1, 2):
        for name in ("north", "south"):
            assert league.send(name, run, number).status == 200
    assert league.server.ended(run).state == "finished"
    cohorts = [e["cohort"] for e in league.server.events(run, "opened")]
    assert [sorted(c) for c in cohorts] == [["north", "south", "west"], ["north", "south"]]


def test_early_joiners_do_not_close_the_first_round_alone(league: League) -> None:
    """7: all sites that are there are heard, then the round begins; not with the first one."""
    server = league.server
    for site in league.sites.values():
        site.poll()
    run = server.submit(league.ada)
    league.north.ready(run, 1)
    assert league.north.poll([run]).tasks == []
    assert server.events(run, "opened") == []
    league.south.ready(run, 3)
    league.west.ready(run, 4)
    for name in D:
        assert league.send(name, run).status == 200
    assert server.ended(run).state == "finished"
    assert sorted(server.events(run, "opened")[0]["cohort"]) == sorted(D)


def test_a_first_round_waits_for_its_minimum_of_sites(league: League) -> None:
    """7: with a minimum, as many must be ready before anybody trains."""
    run = league.begin("north", cohort={"minimum": 2})
    league.server.until(lambda: league.server.facts(run).state == "waiting")
    assert league.north.poll([run]).tasks == []


def test_examples_weigh_and_evaluations_are_kept(league: League) -> None:
    """8: every learner weighed 1, and what they evaluated was dropped."""
    run = league.begin(evaluate={"clients": 3})
    for name in D:
        assert league.send(name, run).status == 200
    for number, site in enumerate(league.sites.values(), start=1):
        task = site.task(run, 1, "evaluate")
        result = TaskResult(state="done", metrics={"loss": (number**2, number)})
        assert site.report(task.key, result).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected(*D))
    row = league.server.events(run, "committed")[1]["row"]
    assert row["validation"]["loss"]["mean"] == pytest.approx((1 + 4 + 9) / 6)


def test_a_lineage_of_one_still_has_the_last_model(league: League) -> None:
    """8: lineage_length 1 evicted all models."""
    run = league.begin("north", rounds=3, keep={"every": 0})
    for number in (1, 2, 3):
        assert league.send("north", run, number).status == 200
    assert league.server.ended(run).state == "finished"
    last = league.server.model(run, 3)
    assert np.array_equal(last, league.server.model(run, 0) + 3 * np.float32(D["north"]))


def test_a_deadline_longer_than_a_day_is_kept(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10: `.seconds` of a time span begins anew each day."""
    run = league.begin("north", "south", cohort={"deadline_s": 90_000.0})
    league.north.task(run)
    monkeypatch.setattr(exchange, "monotonic", lambda: monotonic() + 86_401.0)
    assert league.send("north", run).status == 200
    assert league.server.facts(run).state != "failed"
    assert league.send("south", run).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected("north", "south"))


def test_the_last_uploader_does_not_wait_for_the_aggregate(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10: it has its receipt before the new model is made."""
    on, real = threading.Event(), Exchange.finish

    def held(self: Exchange) -> Any:
        on.wait(20)
        return real(self)

    monkeypatch.setattr(Exchange, "finish", held)
    run = league.begin("north", "south")
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    assert league.server.facts(run).state not in ("finished", "failed")
    on.set()
    assert league.server.ended(run).state == "finished"


def test_runs_of_one_name_have_different_names(league: League) -> None:
    """10: random ids could collide."""
    names = [league.server.submit(league.ada) for _ in range(4)]
    assert names == ["study-1", "study-2", "study-3", "study-4"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/shutdown"), ("POST", "/v1/shutdown"), ("PUT", "/v1/blobs/blake3:" + "0" * 64)],
)
def test_nobody_ends_the_server_or_replaces_a_model_without_a_proof(
    league: League, method: str, path: str
) -> None:
    """11: unauthenticated shutdown, and replacement of the community model."""
    assert league.server.raw(method, path, b"x").status in (401, 404)
    root = league.server.join("root", "admin")
    assert league.server.ask(root, "POST", "/v1/shutdown", {}).status == 404
