"""Asynchronous rounds in a simulation, against a race that is run in a few lines of NumPy."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from projects import final_model, make_project, simulate
from test_crash import Death, _dying

import hansa.runs.events
import hansa.runs.folder
import hansa.store.held
from hansa.errors import PlanError, RunError
from hansa.runs import RunFolder, find_run
from hansa.store.files import load_params
from hansa.workflows.pace import drawn_seconds, speed_key

NAMES = [f"client-{i}" for i in range(5)]
VALUES = dict(zip(NAMES, [1.5, -4.0, 0.25, 8.0, -0.5], strict=True))
SIZES = dict(zip(NAMES, [3, 1, 7, 2, 5], strict=True))
STEPS = dict(zip(NAMES, [1, 1, 3, 1, 2], strict=True))  # of a pass, with batches of two
ONE = dict.fromkeys(NAMES, 1)
SPREAD = 1.25
DIRECTION = 0.5 * np.array([1.0, 2.0, 3.0])  # what each adds, times its value


def race(
    rounds: int, buffer: int = 1, steps: dict[str, int] = ONE
) -> Iterator[list[tuple[str, int]]]:
    """Give, for each commit, who has come and in which round each was asked.

    Everybody is always at work, but for those in a buffer that is not full.
    """
    turn = {n: drawn_seconds(speed_key(3, n), steps=steps[n], spread=SPREAD) for n in NAMES}
    heap = [(turn[n], n, 1) for n in NAMES]
    heapq.heapify(heap)
    for number in range(1, rounds + 1):
        come = [heapq.heappop(heap) for _ in range(buffer)]
        yield sorted((name, asked) for _, name, asked in come)
        for _, name, _ in come:
            heapq.heappush(heap, (come[-1][0] + turn[name], name, number + 1))


def fed_rec(
    rounds: int, weights: dict[str, int], buffer: int = 1, steps: dict[str, int] = ONE
) -> list[np.ndarray]:
    models, latest = [np.zeros(3)], dict[str, np.ndarray]()
    for come in race(rounds, buffer, steps):
        latest |= {n: models[asked - 1] + VALUES[n] * DIRECTION for n, asked in come}
        models.append(
            np.average(list(latest.values()), axis=0, weights=[weights[n] for n in latest])
        )
    return models


def project(folder: Path, rounds: int = 12, more: str = "", train: str = "pass", **o: Any) -> Path:
    options = {"spread": SPREAD, **o}
    told = ", ".join(f"{k} = {v!r}".replace("'", '"') for k, v in options.items())
    top = f'workflow = {{ name = "asynchronous", {told} }}\n{more}'
    return make_project(folder, rounds=rounds, train=train, top=top)


def test_the_model_is_the_mean_of_the_latest_models_at_every_commit(tmp_path: Path) -> None:
    run = simulate(project(tmp_path, 25), "keep.every=1")
    expected = fed_rec(25, SIZES)
    stale = [row["staleness"] for row in run.rows()]
    assert stale == [{n: k - asked for n, asked in come} for k, come in enumerate(race(25), 1)]
    assert max(max(row.values()) for row in stale) >= 5  # somebody was really slow
    for number in range(1, 26):
        found = load_params(run.model_path(number))["w"]
        assert np.allclose(found, expected[number], rtol=2e-6, atol=1e-6), number


@pytest.mark.parametrize("dies", [False, True])
def test_a_float16_model_is_rounded_to_its_file_at_every_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """FedAsync's mixing, each model read back from ten bits; a crash on the way changes nothing."""
    folder = project(tmp_path, 12, rule="fed_async", mixing=0.3)
    code = (folder / "model.py").read_text()
    (folder / "model.py").write_text(
        code.replace("np.zeros(3, np.float32)", "np.zeros(3, np.float16)")
    )
    models = [np.zeros(3, np.float16)]
    for [(name, asked)] in race(12):
        given = models[asked - 1].astype(np.float32)
        new = (given + np.float32(VALUES[name] * 0.5) * np.arange(1, 4)).astype(np.float16)
        mixed = 0.7 * models[-1].astype(np.float64) + 0.3 * new.astype(np.float64)
        models.append(mixed.astype(np.float32).astype(np.float16))
    if dies:
        with monkeypatch.context() as patch:
            dying = _dying(hansa.runs.folder.RunFolder.commit, 7, after=True)
            patch.setattr(hansa.runs.folder.RunFolder, "commit", dying)
            with pytest.raises(Death):
                simulate(folder, "keep.every=1")
    run = simulate(folder, "keep.every=1")
    for number in range(1, 13):
        found = load_params(run.model_path(number))["w"]
        assert found.dtype == np.float16 and np.array_equal(found, models[number]), number


@pytest.mark.parametrize("weighting", ["uniform", "steps", "examples"])
def test_it_is_scaled_as_the_plan_says(tmp_path: Path, weighting: str) -> None:
    """MetisFL: NumParticipants, NumCompletedBatches and NumTrainingExamples."""
    weights = {"uniform": dict.fromkeys(NAMES, 1), "steps": STEPS, "examples": SIZES}[weighting]
    more = f'weighting = "{weighting}"'
    run = simulate(project(tmp_path, 17, more, buffer=2), "learner.batch_size=2")
    expected = fed_rec(17, weights, 2, STEPS)
    assert np.allclose(final_model(run)["w"], expected[-1], rtol=2e-6, atol=1e-6)


def test_fed_buff_is_algorithm_1_of_its_paper(tmp_path: Path) -> None:
    """Nguyen et al. 2022: w <- w + eta_g / K * sum s(tau) delta, s = 1 / sqrt(1 + tau)."""
    options: dict[str, Any] = {"rule": "fed_buff", "buffer": 2, "staleness": "polynomial"}
    more = 'weighting = "uniform"\nalgorithm = { name = "fed_avg", lr = 0.75 }'
    x = np.zeros(3)
    for number, come in enumerate(race(15, 2), start=1):
        whole = sum(VALUES[n] * DIRECTION / np.sqrt(1 + number - asked) for n, asked in come)
        x = x + 0.75 / 2 * whole
    run = simulate(project(tmp_path, 15, more, **options))
    assert np.allclose(final_model(run)["w"], x, rtol=2e-6)


@pytest.mark.parametrize("staleness", ["constant", "polynomial", "hinge"])
def test_fed_async_is_algorithm_1_of_its_paper(tmp_path: Path, staleness: str) -> None:
    """Xie et al. 2019: x_t = (1 - alpha_t) x_(t-1) + alpha_t x_new, alpha_t = alpha s(t - tau)."""
    s: dict[str, Callable[[int], float]] = {
        "constant": lambda u: 1.0,
        "polynomial": lambda u: (u + 1.0) ** -0.5,
        "hinge": lambda u: 1.0 if u <= 2 else 1.0 / (0.5 * (u - 2) + 1),
    }
    models = [np.zeros(3)]
    for number, [(name, asked)] in enumerate(race(20), start=1):
        alpha = 0.9 * s[staleness](number - asked)
        new = models[asked - 1] + VALUES[name] * DIRECTION
        models.append((1 - alpha) * models[-1] + alpha * new)
    options: dict[str, Any] = {"rule": "fed_async", "staleness": staleness, "b": 2.0}
    run = simulate(project(tmp_path, 20, mixing=0.9, **options))
    assert np.allclose(final_model(run)["w"], models[-1], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("rule", ["fed_rec", "fed_buff", "fed_async"])
def test_both_engines_and_a_second_time_give_the_same_bytes(tmp_path: Path, rule: str) -> None:
    found = set()
    for name, engine in (("a", "inline"), ("b", "processes"), ("c", "inline")):
        made = project(tmp_path / name, 9, rule=rule, buffer=1 if rule == "fed_async" else 3)
        found.add(simulate(made, engine=engine).commits()[-1]["model"])
    assert len(found) == 1


def test_a_counter_is_that_of_the_latest_models(tmp_path: Path) -> None:
    """Buffers are averaged with the models they belong to, and stay integers."""
    run = simulate(project(tmp_path, 4))
    counts, latest = [0], dict[str, int]()
    for come in race(4):
        latest |= {n: counts[asked - 1] + SIZES[n] for n, asked in come}
        whole = sum(SIZES[n] * count for n, count in latest.items())
        counts.append(round(whole / sum(SIZES[n] for n in latest)))
    assert final_model(run)["n"] == counts[-1] and final_model(run)["n"].dtype == np.int64


DURABLE = [
    (hansa.runs.folder, "save_params"),
    (hansa.store.held, "save_params"),
    (hansa.runs.events.EventLog, "extend"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), DURABLE, ids=["model", "held", "event"])
@pytest.mark.parametrize("buffer", [1, 2])
def test_a_death_at_every_durable_step_ends_in_the_same_model(
    tmp_path: Path, owner: Any, name: str, after: bool, buffer: int
) -> None:
    whole = simulate(project(tmp_path / "whole", 6, buffer=buffer)).commits()[-1]
    died = 0
    for step in itertools.count():
        folder = project(tmp_path / str(step), 6, buffer=buffer)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, _dying(getattr(owner, name), step, after))
            try:
                simulate(folder)
            except Death:
                died += 1
            else:
                break
        simulate(folder)
        run = find_run(folder / "runs", None)
        assert run.commits()[-1]["model"] == whole["model"], f"{name} {step}"
        assert [c["round"] for c in run.commits()] == list(range(7))
        assert run.commits()[-1]["progress"] == whole["progress"]
    assert died >= 6


def test_what_nobody_needs_any_more_leaves_the_disk(tmp_path: Path) -> None:
    folder = project(tmp_path, 30)
    with pytest.MonkeyPatch.context() as patch:
        dying = _dying(hansa.runs.folder.RunFolder.commit, 25, after=True)
        patch.setattr(hansa.runs.folder.RunFolder, "commit", dying)
        with pytest.raises(Death):
            simulate(folder, "keep.every=0")
    run = find_run(folder / "runs", None)
    assert len(list((run.path / "held").glob("*"))) <= len(NAMES) + 1  # the dead commit's
    at_work = run.commits()[-1]["progress"]["memory"]["at_work"]
    in_use = {asked - 1 for asked, _ in at_work.values()}
    kept = {int(path.stem.removeprefix("round-")) for path in run.path.glob("models/*")}
    assert in_use <= kept and len(kept) <= len(in_use) + 3
    simulate(folder, "keep.every=0")
    assert list((find_run(folder / "runs", None).path / "held").glob("*")) == []


FAIL = 'if data[0] in FAILING: raise ValueError("the disk of " + data[0] + " is broken")'


def failing(*names: str) -> str:
    return FAIL.replace("FAILING", repr(names))


def test_a_client_that_fails_stalls_nobody(tmp_path: Path) -> None:
    run = simulate(project(tmp_path, 20, train=failing("client-1", "client-3")))
    rows = run.rows()
    assert len(rows) == 20 and all(row["clients"]["accepted"] == 1 for row in rows)
    came = {name for row in rows for name in row["staleness"]}
    assert came <= {"client-0", "client-2", "client-4"}


def test_a_run_of_clients_that_all_fail_has_failed(tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        simulate(project(tmp_path, 3, train=failing(*NAMES)))
    assert raised.value.code == "run-all-failed"


def test_a_buffer_that_cannot_be_filled_is_as_large_as_the_federation(tmp_path: Path) -> None:
    rows = simulate(project(tmp_path, 3, buffer=50)).rows()
    assert [row["clients"]["accepted"] for row in rows] == [5, 5, 5]


def test_so_many_are_at_work_as_the_cohort_says(tmp_path: Path) -> None:
    run = simulate(project(tmp_path, 30), "cohort.count=2")
    rows: list[dict[str, Any]] = RunFolder(run.path).rows()
    assert rows[0]["clients"]["asked"] == 2 and {row["at_work"] for row in rows[:-1]} == {1}
    assert {name for row in rows for name in row["staleness"]} == set(NAMES)


def test_it_ends_by_metric_before_its_rounds(tmp_path: Path) -> None:
    run = simulate(project(tmp_path, 400), "stop.target=1.0")
    assert run.log.last("ended")["reason"].startswith("first reached")
    assert 0 < len(run.rows()) < 400


REFUSED: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"rule": "fed_mist"}, (), "plan-wrong-type"),
    ({"buffer": 0}, (), "plan-bad-value"),
    ({"buffer": 1_001}, (), "plan-bad-value"),
    ({"rule": "fed_async", "buffer": 2}, (), "plan-bad-value"),
    ({"staleness": "polynomial"}, (), "plan-bad-value"),
    ({"rule": "fed_async", "mixing": 1.5}, (), "plan-bad-value"),
    ({"rule": "fed_async", "a": 0.0}, (), "plan-bad-value"),
    ({"rule": "fed_async", "b": -1.0}, (), "plan-bad-value"),
    ({"stride_length": 3}, (), "plan-unknown-key"),
    ({"rule": "fed_async"}, ('weighting="examples"',), "plan-impossible"),
    ({}, ('algorithm="fed_adam"',), "plan-impossible"),
    ({}, ('aggregator="median"',), "plan-impossible"),
    ({}, ("cohort.over=1.5", "cohort.count=2"), "plan-impossible"),
    ({}, ('cohort.late="discount"',), "plan-impossible"),
    ({}, ('cohort.mandatory=["client-1"]',), "plan-impossible"),
    ({}, ("keep.clients=1",), "plan-impossible"),
    ({}, ('algorithm="scaffold"',), "plan-impossible"),
    ({}, ('server_functions.file="rules.py"',), "plan-impossible"),
]


@pytest.mark.parametrize(("options", "sets", "code"), REFUSED, ids=str)
def test_what_cannot_work_is_refused_before_anything_runs(
    tmp_path: Path, options: dict[str, Any], sets: tuple[str, ...], code: str
) -> None:
    with pytest.raises(PlanError) as raised:
        simulate(project(tmp_path, **options), *sets)
    assert raised.value.code == code
    assert not (tmp_path / "runs").exists()


def test_what_clients_measured_last_counts_where_they_are_at_work(tmp_path: Path) -> None:
    """MetisFL: the cutoff is for the mean over learners of each one's latest value."""
    run = simulate(project(tmp_path, 12), "keep.every=1")
    latest = dict[str, float]()
    for number, row in enumerate(run.rows()[:-1], start=1):
        (name,) = row["staleness"]
        w = load_params(run.model_path(number))["w"]
        latest[name] = float(w[0]) + SIZES[name]  # what its evaluate() returns
        assert row["validation"]["first"]["mean"] == pytest.approx(np.mean(list(latest.values())))
    assert len(latest) > 2


@pytest.mark.parametrize("rule", ["fed_rec", "fed_buff", "fed_async"])
def test_every_rule_can_be_stopped_by_the_mean_over_clients(tmp_path: Path, rule: str) -> None:
    """What the stop remembers of clients and what FedRec does are kept apart."""
    sets = ("keep.every=1", "evaluate.every=2", 'stop.over="clients"', "stop.target=1e6")
    run = simulate(project(tmp_path, 11, rule=rule, buffer=1), *sets)
    latest, means = dict[str, float](), list[float]()
    for number, [(name, _)] in enumerate(race(11), start=1):
        asked = NAMES if number == 11 else [name] if number % 2 == 0 else []
        w = float(load_params(run.model_path(number))["w"][0])
        latest |= {client: w + SIZES[client] for client in asked}
        means += [float(np.mean(list(latest.values())))] if asked else []
    progress = run.commits()[-1]["progress"]
    assert progress["best"] == pytest.approx(max(means), rel=1e-6)
    assert progress["ended"] == "all 11 rounds are done"
    if rule == "fed_rec":
        assert np.allclose(final_model(run)["w"], fed_rec(11, SIZES)[-1], rtol=2e-6, atol=1e-6)


def test_the_measurements_that_count_are_the_newest_and_not_the_first_by_name(
    tmp_path: Path,
) -> None:
    run = simulate(project(tmp_path, 12), "evaluate.clients=2")
    newest = list[str]()
    for row, [(name, _)] in zip(run.rows()[:-1], race(11), strict=True):
        newest = [client for client in newest if client != name] + [name]
        assert row["validation"]["first"]["by_client"].keys() == set(newest)
        newest = newest[-2:]


ARRAYS = """

def data(client):
    x = np.full((SIZES[client], 2), VALUES[client])
    return {"train": (x, np.ones(len(x)))}


def train(params, data, ctx):
    params["w"] += np.float32(data[0][0, 0] * ctx.lr) * np.arange(1, 4, dtype=np.float32)
    return params, {"loss": 1.0}
"""


@pytest.mark.parametrize("made", ["", "return {'train': hansa.Dataset.of(x, np.ones(len(x)))}"])
def test_a_client_with_more_rows_takes_longer_whatever_holds_them(
    tmp_path: Path, made: str
) -> None:
    """Arrays in a tuple or a Dataset, whose own lengths say nothing of their rows."""
    folder = project(tmp_path, 20)
    code = ARRAYS.replace('return {"train": (x, np.ones(len(x)))}', made) if made else ARRAYS
    code = code.replace("data[0][0, 0]", "data.x[0, 0]") if made else code
    (folder / "model.py").write_text("import hansa\n" + (folder / "model.py").read_text() + code)
    rows = simulate(folder, "learner.batch_size=2").rows()
    expected = [{n: k - asked for n, asked in come} for k, come in enumerate(race(20, 1, STEPS), 1)]
    assert [row["staleness"] for row in rows] == expected
    assert expected != [{n: k - a for n, a in come} for k, come in enumerate(race(20), 1)]
