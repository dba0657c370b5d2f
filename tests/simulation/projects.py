"""Small projects for tests: a folder with a plan and a module, made on the spot."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa.project import Project, open_project
from hansa.runs import RunFolder
from hansa.simulation import Simulation, continue_run, open_run
from hansa.simulation.federation import SimulatedFederation

# Each client moves the model by its own number, signed and unequal; "examples" are its weight.
STEPS = """
import os, pathlib
import numpy as np

VALUES = {"client-0": 1.5, "client-1": -4.0, "client-2": 0.25, "client-3": 8.0, "client-4": -0.5}
SIZES = {"client-0": 3, "client-1": 1, "client-2": 7, "client-3": 2, "client-4": 5}
HERE = pathlib.Path(__file__).parent


def data(client):
    return {"train": [client] * SIZES[client], "validation": [client]}


def init(rng, sample):
    return {"w": np.zeros(3, np.float32), "n": np.int64(0)}


def train(params, data, ctx):
    TRAIN
    params["w"] += np.float32(VALUES[data[0]] * ctx.lr) * np.arange(1, 4, dtype=np.float32)
    params["n"] += len(data)
    return params, {"loss": VALUES[data[0]]}


def evaluate(params, data):
    return {"first": float(params["w"][0]) + SIZES[data[0]]}
"""

PLAN = """
name = "steps"
rounds = {rounds}
seed = 3
{top}
[learner]
kind = "function"
module = "model.py"
optimizer = {{ lr = 0.5 }}
[data]
clients = 5
[stop]
metric = "first"
{more}
"""


def make_project(
    folder: Path, *, train: str = "pass", rounds: int = 3, top: str = "", more: str = ""
) -> Path:
    """Write a project whose clients move the model by known amounts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.toml").write_text(PLAN.format(rounds=rounds, top=top, more=more))
    (folder / "model.py").write_text(STEPS.replace("TRAIN", train.replace("\n", "\n    ")))
    return folder


def simulate(folder: Path, *sets: str, engine: str = "inline", workers: int = 2) -> RunFolder:
    """Run a project to its end."""
    project: Project = open_project(folder, sets)
    simulation = Simulation(folder / "runs", engine, workers)
    run, population = open_run(project, simulation)
    continue_run(run, project, population, simulation=simulation)
    return run


def run(folder: Path, runs: Path, *sets: str, engine: str = "inline") -> RunFolder:
    """Run a project from its beginning to its end, with the run in a folder of its own."""
    project = open_project(folder, sets)
    simulation = Simulation(runs, engine=engine, workers=2, new=True)  # type: ignore[arg-type]
    made, population = open_run(project, simulation)
    continue_run(made, project, population, simulation=simulation)
    made.reload()
    return made


def run_interrupted(folder: Path, runs: Path, method: str, *, call: int) -> RunFolder:
    """Run a project as `run`, but press Ctrl-C as the federation's method is called that often."""
    project, simulation = open_project(folder), Simulation(runs, new=True)
    made, population = open_run(project, simulation)
    whole, calls = getattr(SimulatedFederation, method), itertools.count(1)

    async def interrupted(self: Any, *given: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return await whole(self, *given, **named)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SimulatedFederation, method, interrupted)
        continue_run(made, project, population, simulation=simulation)
    continue_run(made, project, population, simulation=simulation)
    made.reload()
    return made


def final_model(run: RunFolder) -> dict[str, np.ndarray]:
    """Return the tensors of the last commit."""
    params, _ = run.load(run.commits()[-1])
    return {name: np.array(tensor) for name, tensor in params.items()}
