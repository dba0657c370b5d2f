"""Named tasks over TLS: a project's own code answers at sites what its workflow asks.

Oracle: the digest of a simulation of the same project, the server's table of receipts, and the
sites' ledgers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from federations import FAST, check_books, digest, orphans, project, receipts, rows

from hansa.dev import SERVER, Rehearsal
from hansa.site.ledger import LEDGER_FILE, Ledger

PLAN = """
name = "asked"
rounds = 3
seed = 3
[workflow]
name = "broadcast_and_process"
task = "moved"
process = "mean"
settings = { power = 2, fails = "client-1" }
[learner]
kind = "function"
module = "model.py"
[data]
set = "breast_cancer"
split = { scheme = "iid", clients = 3 }
"""

MODEL = """
import hansa
import numpy as np

def init(rng, sample):
    return {"w": np.array([1.0, -2.0, 0.5], np.float64)}

def train(params, data, ctx):
    return params

@hansa.task("moved")
def moved(params, data, ctx):
    if ctx.round == 2 and ctx.settings["fails"] == ctx.client:
        raise ValueError(f"{ctx.client} does not say")
    params["w"] += data.train.x[0, :3].astype(np.float64) ** ctx.settings["power"] - ctx.round
    return params, {"weight": len(data.train), "sum": float(data.train.x.sum())}
"""


def made(folder: Path, plan: str = PLAN) -> Path:
    return project(folder, plan, MODEL)


ALL = PLAN.replace("client-1", "nobody") + "[cohort]\nminimum = 3\n"
"""A round that waits for everybody: one model whatever happens."""


def test_a_named_task_is_answered_alike_at_sites_and_in_simulation(tmp_path: Path) -> None:
    with Rehearsal(tmp_path / "r", made(tmp_path / "study"), settings=FAST) as federation:
        folder = federation.run()
        simulated = federation.simulate()
        assert digest(folder) == digest(simulated)
        for here, there in zip(folder.rows(), simulated.rows(), strict=True):
            assert {**here, "seconds": 0} == {**there, "seconds": 0}
        weights = [set(row["report"]["weights"]) for row in folder.rows()]
        assert [len(names) for names in weights] == [3, 2, 3] and "client-1" not in weights[1]
        check_books(federation, folder)
        run = (folder.remote or {})["run"]
        assert {phase for _, phase, _, _ in receipts(federation, run)} == {"ask.moved.0"}
        entries = list(Ledger(federation.site_folder("client-0") / LEDGER_FILE).entries())
        left = [e for e in entries if e.kind == "answer" and e.run == run]
        assert [(e.round, e.task) for e in left] == [(n, "ask.moved.0") for n in (1, 2, 3)]
        assert left[0].tensors == [("w", "F64", [3])] and "sum, weight" in left[0].detail
    assert not orphans(federation)


@pytest.mark.parametrize(
    ("who", "point"),
    [
        pytest.param("client-2", "site_before_update_kept", marks=pytest.mark.slow),
        ("client-2", "site_after_update_kept"),
        pytest.param("client-2", "site_after_update_sent", marks=pytest.mark.slow),
        (SERVER, "after_update_recorded"),
        pytest.param(SERVER, "before_round_closed", marks=pytest.mark.slow),
        (SERVER, "after_round_closed"),
    ],
)
def test_a_kill_in_the_midst_of_a_named_task_changes_nothing(
    tmp_path: Path, who: str, point: str
) -> None:
    with Rehearsal(tmp_path / "r", made(tmp_path / "study", ALL), settings=FAST) as federation:
        federation.stop(who)
        federation.start(who, failpoint=f"{point}:2")
        folder = federation.submit()
        federation.children[who].wait(60)
        federation.start(who)
        assert federation.follow(folder, seconds=100) == "finished"
        assert digest(folder) == digest(federation.simulate())
        check_books(federation, folder)
        again = "select count(*), count(distinct round || phase || client) from receipts"
        assert rows(federation, again) == [(9, 9)]


def test_a_site_answers_only_the_tasks_that_its_policy_names(tmp_path: Path) -> None:
    with Rehearsal(tmp_path / "r", made(tmp_path / "study"), settings=FAST) as federation:
        settings = federation.site_folder("client-2") / "site.toml"
        text = settings.read_text()
        assert "[policy]\n" in text
        settings.write_text(text.replace("[policy]\n", '[policy]\ntasks = ["other"]\n'))
        folder = federation.run()
        assert sorted(folder.rows()[0]["report"]["weights"]) == [
            "client-0",
            "client-1",
        ]
        told = [e for e in folder.log.events if e["kind"] == "problem" and e["round"] == 1]
        assert [(e["client"], e["code"]) for e in told] == [("client-2", "site-task")]


def test_a_site_s_own_filters_change_what_leaves_before_the_ledger_knows_it(
    tmp_path: Path,
) -> None:
    """client-2 sends no change of `head`, and of the rest what a norm of 0.5 leaves."""
    plan = """
name = "filtered"
rounds = 1
weighting = "uniform"
[learner]
kind = "function"
module = "model.py"
[data]
set = "breast_cancer"
split = { scheme = "iid", clients = 3 }
"""
    model = """
import numpy as np

def init(rng, sample):
    return {"body": np.array([1.0, -2.0]), "head": np.array([5.0], np.float32)}

def train(params, data, ctx):
    params["body"] += [3.0, -4.0]
    params["head"] += 2
    return params
"""
    study = project(tmp_path / "study", plan, model)
    with Rehearsal(tmp_path / "r", study, settings=FAST) as federation:
        settings = federation.site_folder("client-2") / "site.toml"
        filters = '[{ name = "exclude", tensors = ["he*"] }, { name = "clip", norm = 0.5 }]'
        text = settings.read_text()
        settings.write_text(text.replace("[policy]\n", f"[policy]\nfilters = {filters}\n"))
        folder = federation.run()
        found, _ = folder.load(folder.commits()[-1])
        expected = np.array([1.0, -2.0]) + np.array([3.0, -4.0]) * (1 + 1 + 0.1) / 3
        np.testing.assert_allclose(found["body"], expected, rtol=1e-9)
        np.testing.assert_allclose(found["head"], [5 + 4 / 3], rtol=1e-6)
        check_books(federation, folder)


def test_a_first_model_of_the_clients_is_the_same_in_a_federation(tmp_path: Path) -> None:
    plan = (
        ALL.partition("[workflow]")[0] + "initial = 'mean'\n[learner]" + ALL.split("[learner]")[1]
    )
    model = MODEL.replace('return {"w": np.array([1.0, -2.0, 0.5], np.float64)}',
                          'return {"w": sample.x[0, :3].astype(np.float64)}')  # fmt: skip
    study = project(tmp_path / "study", plan, model)
    with Rehearsal(tmp_path / "r", study, settings=FAST) as federation:
        folder = federation.run()
        assert digest(folder) == digest(federation.simulate())
        run = (folder.remote or {})["run"]
        phases = [(n, phase) for n, phase, _, _ in receipts(federation, run)]
        assert phases.count((1, "ask.initial_weights.0")) == 3
        check_books(federation, folder)
