"""Small projects with server functions, whose clients have closed forms in ten lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hansa.runs import RunFolder

VALUES = {"client-0": (1.0, 3), "client-1": (-4.0, 1), "client-2": (2.5, 6), "client-3": (-0.5, 2)}
"""What each client's rows are, and how many it has."""

MODEL = f"""
import numpy as np
VALUES = {VALUES!r}
def init(rng, sample): return {{"w": np.array([0.5, -1.0], np.float32)}}
def data(client):
    value, rows = VALUES[client]
    return np.full(rows, value)
def train(params, data, ctx):
    rate = ctx.settings.get("rate", 1.0) * ctx.lr
    params["w"] += np.float32(rate) * (np.float32(data.mean()) - params["w"])
    return params, {{"mean": float(data.mean()), "lr": ctx.lr}}
def evaluate(params, data): return {{"error": float(abs(params["w"] - data.mean()).max())}}
"""

PLAN = """
name = "served"
rounds = 3
seed = 11
[server_functions]
file = "server.py"
[learner]
kind = "function"
module = "model.py"
optimizer = { lr = 0.5 }
[data]
clients = 4
validation = 0.0
[stop]
metric = "error"
"""


def written(folder: Path, server: str, plan: str = PLAN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.toml").write_text(plan)
    (folder / "model.py").write_text(MODEL)
    (folder / "server.py").write_text(server)
    return folder


def model(made: RunFolder) -> np.ndarray:
    return np.array(made.load(made.commits()[-1])[0]["w"])
