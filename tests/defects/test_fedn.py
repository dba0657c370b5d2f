"""What happens in FEDn 0.33 and must not happen here; docs/explain/defects.md lists each.

Method: a server in this process, sites by hand; numbers where a wrong one shows.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from in_process import done, key_of, update_bytes
from league import D, League, N, expected, refused

from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, mean
from hansa.protocol.messages import TaskResult
from hansa.server import federation


def test_a_raising_client_does_not_make_the_round_wait_for_its_deadline(league: League) -> None:
    """1: the failed client is heard, so the round closes with the others at once."""
    run = league.begin(cohort={"deadline_s": 600.0})
    began = time.monotonic()
    league.west.fail(league.west.task(run).key, "AttributeError: no bytes in None")
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"
    assert time.monotonic() - began < 5
    assert league.west.poll().heartbeat_s  # its agent goes on asking


def test_one_bad_round_does_not_end_the_server(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2: a run's thread that dies takes its run with it, and nothing else."""
    other = league.begin("north", "south", name="other")
    real = federation.rounded
    asked: list[Any] = []

    def broken(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 1:
            raise RuntimeError("the round thread dies")
        return real(*arguments)

    monkeypatch.setattr(federation, "rounded", broken)
    bad = league.begin("north", "south", name="bad")
    for name in ("north", "south"):
        assert league.send(name, bad).status == 200
    facts = league.server.ended(bad)
    assert (facts.state, "the round thread dies" in facts.reason) == ("failed", True)
    for name in ("north", "south"):
        assert league.send(name, other).status == 200
    assert league.server.ended(other).state == "finished"


def test_a_round_does_not_last_longer_than_its_deadline(league: League) -> None:
    """3: nobody answers; the run ends, and the next one is taken."""
    run = league.begin("north", "south", cohort={"deadline_s": 0.3})
    league.north.task(run)
    assert league.server.ended(run).state == "failed"
    second = league.begin("north", "south")
    for name in ("north", "south"):
        assert league.send(name, second).status == 200
    assert league.server.ended(second).state == "finished"


def test_a_stop_reaches_a_round_that_waits(league: League) -> None:
    """3: also in the midst of a round in which a client never answers."""
    run = league.begin("north", "south")
    task = league.north.task(run)
    assert league.stop(run).status == 200
    assert league.server.ended(run).state == "stopped"
    league.server.until(lambda: not league.server.state.runs._threads, "its thread has ended")
    answer = league.north.poll([run], holding=[task.key])
    assert (answer.cancelled, answer.ended) == ([task.key], [run])


def test_a_stale_update_is_not_averaged_into_the_next_round(league: League) -> None:
    """4: FEDn's trial: two clients add 1 a round; a round-1 update in round 2 made 1.5 of 2."""
    run = league.begin(
        "north", "south", rounds=2, cohort={"deadline_s": 0.5}, model=np.zeros(3, np.float32)
    )
    stale = update_bytes([1.0, 1.0, 1.0])
    league.south.task(run)
    league.south.put(stale)
    assert league.north.send(league.north.task(run).key, [1.0] * 3, 1.0).status == 200
    league.north.task(run, 2)
    late = league.south.report(key_of(run, 1), done(stale, 3.0))
    assert refused(late) == (409, "update-late")
    for site in (league.north, league.south):
        assert site.send(site.task(run, 2).key, [1.0] * 3, float(N[site.name])).status == 200
    assert league.server.ended(run).state == "finished"
    assert league.server.model(run, 2).tolist() == [2.0, 2.0, 2.0]


def test_a_round_below_the_minimum_is_not_committed(league: League) -> None:
    """5: the minimum holds at the end, not only at the start."""
    run = league.begin("north", "south", cohort={"minimum": 2})
    assert league.send("north", run).status == 200
    league.south.fail(league.south.task(run).key)
    assert league.server.ended(run).state == "failed"
    assert league.server.events(run, "ended")[0]["code"] == "run-too-few"
    assert [e["round"] for e in league.server.events(run, "committed")] == [0]


def test_combiners_weigh_by_examples() -> None:
    """6: two partial sums of unequal weight, carried as bytes between processes, and merged."""
    spec = AggregationSpec({"delta": VectorSpec(3, "float32", 64.0)}, 16.0)

    def folded(*names: str) -> Any:
        partial = mean.zero(spec)
        for name in names:
            vector = {"delta": np.array(D[name], np.float32)}
            partial = mean.add(partial, Contribution(name, vector, float(N[name])))
        return partial

    one, two = (mean.load(spec, mean.dump(folded(*n))) for n in (("north", "south"), ("west",)))
    merged = mean.finish(mean.merge(one, two))
    whole = mean.finish(folded(*D))
    assert merged.vectors["delta"].tobytes() == whole.vectors["delta"].tobytes()
    truth = sum(N[n] * np.array(D[n]) for n in D) / 8
    assert np.array_equal(whole.vectors["delta"], truth.astype(np.float32))
    assert merged.weight == 8.0


def test_a_site_that_is_gone_does_not_block_the_next_run(league: League) -> None:
    """7: it was a member and took part; nobody has to clear its row away."""
    first = league.begin()
    for name in D:
        assert league.send(name, first).status == 200
    league.server.ended(first)
    league.server.lose("west")
    second = league.begin("north", "south")
    for name in ("north", "south"):
        assert league.send(name, second).status == 200
    assert league.server.ended(second).state == "finished"


def test_sites_find_a_server_that_was_restarted(league: League) -> None:
    """7: nothing is flushed and nobody enrols again."""
    run = league.begin("north", "south")
    league.north.task(run)
    league.server.restart()
    for name in ("north", "south"):
        league.sites[name].poll([run])
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"


def test_validation_asks_only_the_selected_clients(league: League) -> None:
    """9: one of three is drawn; the others get no task and their word is not taken."""
    run = league.begin(evaluate={"clients": 1})
    for name in D:
        assert league.send(name, run).status == 200
    opened = league.server.until(
        lambda: [e for e in league.server.events(run, "opened") if e["phase"] == "evaluate"]
    )
    (chosen,) = opened[0]["cohort"]
    result = TaskResult(state="done", metrics={"accuracy": (3.0, 4.0)})
    for name in set(D) - {chosen}:
        assert league.sites[name].poll([run]).tasks == []
        answer = league.sites[name].report(key_of(run, 1, "evaluate"), result)
        assert refused(answer) == (409, "update-not-asked")
    task = league.sites[chosen].task(run, 1, "evaluate")
    assert league.sites[chosen].report(task.key, result).status == 200
    assert league.server.ended(run).state == "finished"
    row = league.server.events(run, "committed")[1]["row"]
    assert row["validation"]["accuracy"]["mean"] == 0.75


@pytest.mark.parametrize("target", ["/health", "/metrics", "/v1/runs", "/v1/members", "/graphql"])
def test_no_user_agent_or_side_door_gets_round_the_check(league: League, target: str) -> None:
    """10: the health probe's name, and a second interface, opened FEDn with tokens on."""
    for agent in ("grpc_health_probe/1.0", "kube-probe/1.29", "ELB-HealthChecker/2.0"):
        answer = league.server.raw("GET", target, headers={"user-agent": agent})
        assert answer.status in (401, 404)


def test_a_run_counts_each_client_once_however_often_it_reports(league: League) -> None:
    run = league.begin("north", "south")
    key = league.north.task(run).key
    for _ in range(4):
        assert league.north.send(key, D["north"], 1.0).status in (200, 409)
    league.send("south", run)
    league.server.ended(run)
    assert np.array_equal(league.server.model(run, 1), expected("north", "south"))
