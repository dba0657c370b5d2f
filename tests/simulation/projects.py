"""Small projects for tests: a folder with a plan and a module, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hansa.project import Project, open_project
from hansa.runs import RunFolder
from hansa.simulation import Simulation, continue_run, open_run

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


def final_model(run: RunFolder) -> dict[str, np.ndarray]:
    """Return the tensors of the last commit."""
    params, _ = run.load(run.commits()[-1])
    return {name: np.array(tensor) for name, tensor in params.items()}
