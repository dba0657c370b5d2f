"""What stays of models at a server, and the times of a round there; updates have a closed form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_redis import FakeRedis
from in_process import SEED, in_process
from league import D, League, N, expected

from hansa.params import Params
from hansa.store.lineage import DiskLineage
from hansa.store.redis_lineage import REDIS_URL, RedisLineage


@pytest.fixture
def league(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[League]:
    monkeypatch.delenv(REDIS_URL, raising=False)
    with in_process(tmp_path, heartbeat_s=30.0) as server:
        yield League(server)


def trained(league: League, run: str, rounds: int) -> None:
    for number in range(1, rounds + 1):
        for name in D:
            assert league.send(name, run, number).status == 200
    assert league.server.ended(run).state == "finished"


def value(model: Params | None) -> np.ndarray:
    assert model is not None
    return next(iter(model.to_dict().values()))


def test_the_newest_global_models_stay_and_older_ones_go(league: League) -> None:
    run = league.begin(rounds=5, keep={"every": 0, "lineage": 2})
    trained(league, run, 5)
    digests = {e["round"]: e["model"] for e in league.server.events(run, "committed")}
    there = [n for n, digest in digests.items() if league.server.state.blobs.has(digest)]
    assert there == [0, 4, 5]


def test_each_sites_own_models_are_kept_where_the_plan_says_so(league: League) -> None:
    run = league.begin(rounds=3, keep={"clients": 2, "every": 1})
    trained(league, run, 3)
    lineage = DiskLineage(league.server.folder / "lineage" / run)
    second = league.server.model(run, 2)
    for name in D:
        assert lineage.numbers(name) == [2, 3]
        assert np.array_equal(value(lineage.get(name, 3)), second + np.float32(D[name]))
    assert np.array_equal(value(lineage.get("north", 2)) - np.float32(D["north"]), expected(*D))


def test_no_route_gives_a_sites_model_away(league: League) -> None:
    run = league.begin(keep={"clients": 1})
    trained(league, run, 1)
    model = DiskLineage(league.server.folder / "lineage" / run).get("north", 1)
    assert model is not None
    answer = league.server.ask(league.ada, "GET", f"/v1/blobs/{model.digest()}")
    assert answer.status == 404


def test_without_the_wish_nothing_is_kept_beside_the_trail(league: League) -> None:
    run = league.begin()
    trained(league, run, 1)
    assert not (league.server.folder / "lineage").exists()


def test_an_operators_redis_has_what_a_plan_wants(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    redis = FakeRedis()
    try:
        with in_process(tmp_path, heartbeat_s=30.0, redis=redis.url) as server:
            league = League(server)
            keep = {"every": 0, "lineage": 2, "clients": 1, "store": "redis"}
            run = league.begin(rounds=3, keep=keep)
            trained(league, run, 3)
            lineage = RedisLineage(redis.url, f"hansa|Heart|{run}")
            assert lineage.numbers("") == [2, 3] and lineage.numbers("west") == [3]
            assert np.array_equal(value(lineage.get("", 3)), server.model(run, 3))
            third = server.model(run, 3)
            mean = sum(N[n] * value(lineage.get(n, 3)).astype(float) for n in D) / sum(N.values())
            assert np.allclose(mean, third, atol=1e-6)
    finally:
        redis.stop()


def test_a_redis_that_is_away_makes_the_run_wait_and_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("redis")
    monkeypatch.setattr("hansa.server.runs.RETRY_S", 0.05)
    redis = FakeRedis()
    with in_process(tmp_path, heartbeat_s=30.0, redis=redis.url) as server:
        league = League(server)
        run = league.begin(rounds=1, keep={"lineage": 2, "store": "redis"})
        redis.stop()
        for name in D:
            assert league.send(name, run).status == 200
        other = FakeRedis()
        assert server.facts(run).state != "failed"
        monkeypatch.setenv(REDIS_URL, other.url)
        assert server.ended(run).state == "finished"
        assert np.array_equal(server.model(run, 1), expected(*D))
        assert RedisLineage(other.url, f"hansa|Heart|{run}").numbers("") == [1]
        other.stop()


@pytest.mark.parametrize(
    ("store", "code"), [("memory", "plan-impossible"), ("redis", "store-redis")]
)
def test_a_place_that_a_server_does_not_have_is_refused_at_the_door(
    league: League, store: str, code: str
) -> None:
    keep = {"store": store, "lineage": 2}
    submission, package, start = league.server.submission(league.ada, keep=keep)
    league.server.upload(league.ada, package, start)
    assert league.server.ask(league.ada, "POST", "/v1/runs", submission).code == code
    assert not league.server.state.journal.runs()


def test_times_of_a_round_are_written_with_its_commit(league: League) -> None:
    run = league.begin(rounds=2)
    trained(league, run, 2)
    kinds = [e["kind"] for e in league.server.state.journal.all_events(run)]
    assert kinds.count("timed") == 2 and kinds.index("timed") < kinds.index("committed", 2)
    first = league.server.events(run, "timed")[0]
    tasks = {s["client"]: s for s in first["spans"] if s["span"] == "task"}
    assert tasks.keys() == D.keys()
    for task in tasks.values():
        assert task["state"] == "done" and task["phase"] == "train"
        assert task["select_s"] >= 0 and 0 <= task["fold_s"] <= task["insert_s"]
    (saved,) = [s for s in first["spans"] if s["span"] == "save"]
    assert saved["tensors"] == [["w", 3, 0, 12]] and saved["bytes"] > 12
    (summed,) = [s for s in first["spans"] if s["span"] == "aggregate"]
    assert summed["blocks"] == 3


def test_zeros_of_the_model_are_counted(league: League) -> None:
    run = league.server.begin(league.ada, {league.north: 1}, cohort={"minimum": 1}, rounds=1)
    site = league.north
    assert site.send(site.task(run, 1).key, (-SEED).tolist(), 1).status == 200
    assert league.server.ended(run).state == "finished"
    (timed,) = league.server.events(run, "timed")
    (saved,) = [s for s in timed["spans"] if s["span"] == "save"]
    assert saved["tensors"] == [["w", 3, 3, 12]]


def test_a_restart_in_the_midst_of_a_round_loses_times_and_nothing_else(
    tmp_path: Path,
) -> None:
    with in_process(tmp_path, heartbeat_s=30.0) as server:
        league = League(server)
        run = league.begin()
        assert league.send("north", run).status == 200
        server.restart()
        for name in ("south", "west"):
            assert league.send(name, run).status == 200
        assert server.ended(run).state == "finished"
        assert np.array_equal(server.model(run, 1), expected(*D))
        (timed,) = server.events(run, "timed")
        clients = [s["client"] for s in timed["spans"] if s["span"] == "task"]
        assert sorted(clients) == ["south", "west"]
