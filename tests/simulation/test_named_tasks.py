"""Named tasks in simulation: both engines give the same, and a worker that dies is one failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hansa.project import open_project
from hansa.runs import RunFolder
from hansa.simulation import Simulation, continue_run, open_run

PLAN = """
name = "asked"
rounds = 2
seed = 3
[workflow]
name = "broadcast_and_process"
task = "moved"
process = "mean"
[learner]
kind = "function"
module = "model.py"
[data]
set = "breast_cancer"
split = { scheme = "iid", clients = 5 }
"""

MODEL = """
import os
import hansa
import numpy as np

def init(rng, sample):
    return {"w": np.array([1.0, -2.0, 0.5]), "n": np.array(3)}

def train(params, data, ctx):
    return params

@hansa.task("moved")
def moved(params, data, ctx):
    if ctx.settings.get("dies") == ctx.client:
        os._exit(3)
    params["w"] += data.train.x[0, :3] - ctx.rng.normal(size=3) + np.random.normal()
    return params, {"weight": len(data.train)}
"""


def run(folder: Path, runs: Path, engine: Any, *sets: str) -> RunFolder:
    folder.mkdir(exist_ok=True)
    (folder / "plan.toml").write_text(PLAN, encoding="utf-8")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    project, simulation = open_project(folder, sets), Simulation(runs, engine, workers=2)
    made, population = open_run(project, simulation)
    continue_run(made, project, population, simulation=simulation)
    return made


def test_processes_answer_as_one_process_does(tmp_path: Path) -> None:
    here = run(tmp_path / "study", tmp_path / "inline", "inline")
    there = run(tmp_path / "study", tmp_path / "processes", "processes")
    assert here.commits()[-1]["model"] == there.commits()[-1]["model"]
    for a, b in zip(here.rows(), there.rows(), strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    assert not list((there.path / "scratch").glob("*.safetensors"))


def test_a_client_that_takes_its_workers_down_is_told_and_the_others_count(tmp_path: Path) -> None:
    sets = ("rounds=1", 'workflow.settings={ dies = "client-2" }')
    made = run(tmp_path / "study", tmp_path / "runs", "processes", *sets)
    assert sorted(made.rows()[0]["report"]["weights"]) == [f"client-{n}" for n in (0, 1, 3, 4)]
    told = [e for e in made.log.events if e["kind"] == "problem"]
    assert [(e["client"], e["code"]) for e in told] == [("client-2", "client-lost")]
