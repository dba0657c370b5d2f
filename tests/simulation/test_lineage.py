"""Which models of a simulated run stay, and where; the oracle is FedAvg's own definition."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from fake_redis import FakeRedis
from projects import final_model, make_project, simulate

from hansa.cli.export import command as export
from hansa.errors import PlanError, StoreError
from hansa.learners.batches import steps_per_epoch
from hansa.project import open_project
from hansa.runs import RunFolder
from hansa.runs.lineage import lineage_key
from hansa.simulation import Simulation, continue_run, open_run
from hansa.simulation import federation as simulated
from hansa.store.lineage import DiskLineage, Lineage, MemoryLineage
from hansa.store.redis_lineage import REDIS_URL, RedisLineage

CLIENTS = [f"client-{n}" for n in range(5)]
SIZES = [3, 1, 7, 2, 5]


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRedis]:
    pytest.importorskip("redis")
    server = FakeRedis()
    monkeypatch.setenv(REDIS_URL, server.url)
    yield server
    server.stop()


def on_disk(run: RunFolder) -> list[int]:
    return sorted(int(path.stem[6:]) for path in run.path.glob("models/*.safetensors"))


def check_clients(lineage: Lineage, run: RunFolder) -> None:
    """The weighted mean of the clients' models is the global one."""
    kept = [lineage.get(name, 3) for name in CLIENTS]
    w = [model["w"].astype(np.float64) for model in kept if model is not None]
    assert len(w) == 5 and np.ptp(w, axis=0)[0] > 1
    mean = np.average(w, axis=0, weights=SIZES)
    assert np.allclose(mean, final_model(run)["w"], atol=1e-6)


def test_the_newest_global_models_stay_beside_best_and_nth(tmp_path: Path) -> None:
    for lineage, kept in ((1, [5, 8]), (3, [5, 6, 7, 8]), (0, list(range(1, 9)))):
        sets = ["keep.every=5", f"keep.lineage={lineage}", "stop.lower_is_better=false"]
        run = simulate(make_project(tmp_path / str(lineage), rounds=8), *sets)
        best = run.commits()[-1]["progress"]["best_round"]
        assert on_disk(run) == sorted({*kept, best})
        assert [e["round"] for e in run.kept()] == on_disk(run)


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_models_of_clients_are_what_each_of_them_has_trained(tmp_path: Path, engine: str) -> None:
    run = simulate(make_project(tmp_path), "keep.clients=2", engine=engine)
    lineage = DiskLineage(run.path / "lineage")
    check_clients(lineage, run)
    assert [lineage.numbers(name) for name in CLIENTS] == [[2, 3]] * 5


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_redis_has_what_the_disk_need_not(tmp_path: Path, engine: str, redis: FakeRedis) -> None:
    sets = ["keep.clients=1", "keep.store=redis", "keep.lineage=2", "keep.every=0"]
    run = simulate(make_project(tmp_path), *sets, engine=engine)
    lineage = RedisLineage(redis.url, lineage_key(run.about))
    check_clients(lineage, run)
    assert lineage.numbers("") == [2, 3] and lineage.numbers("client-4") == [3]
    plain = simulate(make_project(tmp_path / "plain"))
    assert plain.commits()[-1]["model"] == run.commits()[-1]["model"]
    before = on_disk(run)
    words = [run.name, "--to", "npz", "--model", "2", "-o", str(tmp_path / "m.npz")]
    done = CliRunner().invoke(export, [*words, "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    second = lineage.get("", 2)
    assert second is not None and np.array_equal(np.load(tmp_path / "m.npz")["w"], second["w"])
    assert 2 in before or 2 in on_disk(run)  # fetched


def test_memory_is_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[MemoryLineage] = []
    monkeypatch.setattr(
        "hansa.runs.lineage.MemoryLineage", lambda: made.append(MemoryLineage()) or made[-1]
    )
    recalled = []
    evaluate = simulated.SimulatedFederation.evaluate

    async def look(self, number, state, clients):
        recalled.extend(self.recall(number - 1).algorithm.x for _ in [0] if number > 1)
        return await evaluate(self, number, state, clients)

    monkeypatch.setattr(simulated.SimulatedFederation, "evaluate", look)
    sets = ["keep.clients=1", "keep.store=memory", "keep.lineage=0", "keep.every=0"]
    run = simulate(make_project(tmp_path), *sets)
    check_clients(made[0], run)
    assert made[0].numbers("") == [1, 2, 3] and made[0].numbers("client-1") == [3]
    assert not (run.path / "lineage").exists() and len(recalled) == 2


def test_a_redis_that_goes_away_interrupts_the_run_and_ends_it_nowhere(
    tmp_path: Path, redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project(tmp_path, top='keep = { store = "redis", lineage = 2, every = 0 }')
    project = open_project(folder)
    simulation = Simulation(folder / "runs")
    run, population = open_run(project, simulation)
    add = RedisLineage.add

    def once(self: RedisLineage, number: int, *args: object, **more: object) -> None:
        if number == 2:
            redis.stop()
            self._redis.connection_pool.disconnect()
        add(self, number, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(RedisLineage, "add", once)
    with pytest.raises(StoreError):
        continue_run(run, project, population, simulation=simulation)
    assert run.state == "running" and run.commits()[-1]["round"] == 1
    monkeypatch.setattr(RedisLineage, "add", add)
    other = FakeRedis()
    monkeypatch.setenv(REDIS_URL, other.url)
    try:
        again, population = open_run(project, simulation)
        assert again.name == run.name
        continue_run(again, project, population, simulation=simulation)
        assert RedisLineage(other.url, lineage_key(run.about)).numbers("") == [2, 3]
    finally:
        other.stop()
    plain = simulate(make_project(tmp_path / "plain"))
    assert plain.commits()[-1]["model"] == again.commits()[-1]["model"]


def test_what_cannot_be_kept_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REDIS_URL, raising=False)
    folder = make_project(tmp_path)
    for sets, engine, code in (
        (["keep.store=redis", "keep.lineage=2"], "inline", "store-redis"),
        (["keep.store=memory", "keep.clients=1"], "processes", "plan-impossible"),
        (["keep.clients=1", "algorithm=fed_sgd"], "inline", "plan-impossible"),
        (["keep.clients=-1"], "inline", "plan-bad-value"),
        (["keep.lineage=-1"], "inline", "plan-bad-value"),
    ):
        with pytest.raises((PlanError, StoreError)) as raised:
            simulate(folder, *sets, engine=engine)
        assert raised.value.code == code
    assert not (folder / "runs").exists()


def test_without_the_client_library_of_redis_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REDIS_URL, "redis://127.0.0.1:1/0")
    monkeypatch.setitem(sys.modules, "redis", None)
    folder = make_project(tmp_path)
    with pytest.raises(StoreError, match=r"client library.* Nothing was started"):
        simulate(folder, "keep.store=redis", "keep.lineage=2")
    assert not (folder / "runs").exists()


def test_spans_are_lines_of_json_and_tell_what_each_client_did(tmp_path: Path) -> None:
    run = simulate(make_project(tmp_path), "learner.epochs=2", "learner.batch_size=4")
    lines = (run.path / "spans.jsonl").read_bytes().splitlines()
    spans = [msgspec.json.decode(line) for line in lines]
    assert spans == run.spans() and {s["round"] for s in spans} == {1, 2, 3}
    tasks = [s for s in spans if s["span"] == "task" and s["phase"] == "train"]
    assert sorted(t["client"] for t in tasks if t["round"] == 2) == CLIENTS
    assert all(t["epochs"] == 2.0 and t["state"] == "done" and t["work_s"] >= 0 for t in tasks)
    steps = {t["client"]: t["steps"] for t in tasks}
    assert steps == {
        name: 2 * steps_per_epoch(n, 4) for name, n in zip(CLIENTS, SIZES, strict=True)
    }
    (saved, *_) = [s for s in spans if s["span"] == "save"]
    assert dict((t[0], t[1:]) for t in saved["tensors"]) == {"w": [3, 0, 12], "n": [1, 0, 8]}
    for whole in (s for s in spans if s["span"] == "round"):
        mine = [s for s in spans if s["round"] == whole["round"]]
        assert all(s["begin_s"] + s["seconds"] <= whole["seconds"] + 1e-3 for s in mine)
        assert all(s["at"].endswith("+00:00") for s in mine)


def test_a_round_that_is_repeated_has_the_times_of_the_last_try(tmp_path: Path) -> None:
    run = simulate(make_project(tmp_path))
    path = run.path / "spans.jsonl"
    before = run.spans()
    torn = b'{"span":"round","round":9,"at":"","begin_s":0.0,"seconds":1.0}\n{"span":"ta'
    first = b'{"span":"round","round":1,"at":"","begin_s":0.0,"seconds":77.0}\n'
    path.write_bytes(first + path.read_bytes() + torn)
    assert run.spans() == before
    path.unlink()
    assert run.spans() == []
