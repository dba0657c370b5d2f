"""Goal: a run that dies at any durable step, and is run again, ends in the same bytes.

Method: a write is replaced by one that dies at its n-th call, before or after doing its work; the
"death" is a BaseException that nothing in the house catches.  Then the same plan is run again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from projects import make_project, simulate

import hansa.runs.events
import hansa.runs.folder
import hansa.store.client_states
from hansa.runs import find_run


class Death(BaseException):
    """Stands for a kill -9: nobody may catch it."""


DURABLE = [
    (hansa.runs.folder, "write_durably"),
    (hansa.runs.folder, "save_params"),
    (hansa.runs.events.EventLog, "extend"),
    (hansa.store.client_states, "_write"),
]

# SCAFFOLD needs gradients, so the crash test of client state has a learner of its own.
QUADRATIC = """
import numpy as np


def data(client):
    number = int(client[-1])
    return np.full((4, 2), number - 1.7, np.float32), np.zeros(4, np.int64)


def init(rng, sample):
    return {"w": rng.normal(size=2).astype(np.float32)}


def loss(params, x, y):
    g = params["w"] * (1 + x.mean(axis=0) ** 2) - x.mean(axis=0)
    return float((g**2).sum()), {"w": g.astype(np.float32)}


def metrics(params, x, y):
    return {"loss": ((params["w"] - x) ** 2).sum(axis=1)}
"""
PLAN = """
name = "quadratic"
rounds = 4
algorithm = "scaffold"
[learner]
module = "model.py"
optimizer = { lr = 0.1 }
[data]
clients = 4
[cohort]
count = 3
[stop]
metric = "loss"
[keep]
every = 2
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = simulate(_project(tmp_path_factory.mktemp("undisturbed")))
    return str(run.commits()[-1]["model"])


def _project(folder: Path) -> Path:
    (folder / "plan.toml").write_text(PLAN)
    (folder / "model.py").write_text(QUADRATIC)
    return folder


def _dying(real: Callable[..., Any], at: int, after: bool) -> Callable[..., Any]:
    calls = itertools.count()

    def write(*args: Any, **kwargs: Any) -> Any:
        last = next(calls) == at
        if last and not after:
            raise Death
        result = real(*args, **kwargs)
        if last:
            raise Death
        return result

    return write


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), DURABLE, ids=[name for _, name in DURABLE])
def test_a_death_at_every_durable_step_ends_in_the_same_model(
    tmp_path: Path, undisturbed: str, owner: Any, name: str, after: bool
) -> None:
    died = 0
    for step in itertools.count():
        folder = tmp_path / str(step)
        folder.mkdir()
        _project(folder)
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
        assert run.commits()[-1]["model"] == undisturbed, f"{name} {step}"
        rounds = [commit["round"] for commit in run.commits()]
        assert rounds == [0, 1, 2, 3, 4], f"{name} {step}: a round counts once"
    assert died >= 4


def test_a_second_death_during_recovery_does_no_harm(tmp_path: Path, undisturbed: str) -> None:
    folder = _project(tmp_path)
    for step in (6, 3, 2, 4):
        with pytest.MonkeyPatch.context() as patch:
            dying = _dying(hansa.runs.folder.save_params, step, after=True)
            patch.setattr(hansa.runs.folder, "save_params", dying)
            try:
                simulate(folder)
            except Death:
                continue
    run = simulate(folder) if find_run(folder / "runs", None).state == "running" else None
    run = run or find_run(folder / "runs", None)
    assert run.commits()[-1]["model"] == undisturbed


def test_metrics_lines_say_what_the_events_say_after_a_death_between_them(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        dying = _dying(hansa.runs.folder.RunFolder._append, 2, after=False)
        patch.setattr(hansa.runs.folder.RunFolder, "_append", dying)
        with pytest.raises(Death):
            simulate(folder)
    run = simulate(folder)
    import msgspec

    lines = (run.path / "metrics.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line) for line in lines] == run.rows()
    assert [row["round"] for row in run.rows()] == [1, 2, 3]
