"""Projects whose local work is trivial, so that what is measured is the framework."""

from __future__ import annotations

from pathlib import Path

MODEL = """
import numpy as np

SIZE = {size}


def data(client):
    return {{"train": np.ones(8, np.float32), "validation": np.ones(2, np.float32)}}


def init(rng, sample):
    return {{"w": np.zeros(SIZE, np.float32)}}


def train(params, data, ctx):
    params["w"] += np.float32(0.001)
    return params, {{"loss": 1.0}}


def evaluate(params, data):
    return {{"accuracy": 0.5}}
"""

PLAN = """
name = "trivial"
rounds = {rounds}
seed = 1
[learner]
kind = "function"
module = "model.py"
[data]
clients = {clients}
[evaluate]
every = 1000
clients = 10
"""


def write(folder: Path, *, clients: int, rounds: int, size: int) -> Path:
    """Write the project and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.toml").write_text(PLAN.format(clients=clients, rounds=rounds))
    (folder / "model.py").write_text(MODEL.format(size=size))
    return folder
