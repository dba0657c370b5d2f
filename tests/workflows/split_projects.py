"""A vertical project: three clients hold columns of the same rows, and one of them the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

ROWS, RATE, SEED = 24, 0.25, 5
COLUMNS = {"client-0": 2, "client-1": 3, "client-2": 1}
HOLDER = "client-1"

MODEL = """
import numpy as np
import hansa

COLUMNS = {"client-0": 2, "client-1": 3, "client-2": 1}
HOLDER, ROWS = "client-1", 24


def table():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS + 8, 6))
    y = (x @ [1.0, -2.0, 0.5, 1.5, -1.0, 3.0] - 0.4 > 0).astype(float)
    return x, y


def data(client):
    x, y = table()
    first = sum(list(COLUMNS.values())[: list(COLUMNS).index(client)])
    mine = x[:, first : first + COLUMNS[client]]
    whole = {"x": mine, "y": y} if client == HOLDER else {"x": mine}
    return {
        "train": {name: array[:ROWS] for name, array in whole.items()},
        "validation": {name: array[ROWS:] for name, array in whole.items()},
    }


def init(rng, sample):
    made = {f"{c}/w": rng.normal(size=(n, 2)) for c, n in COLUMNS.items()}
    made["head/v"] = rng.normal(size=(6,))
    made["head/b"] = np.array(0.125)
    return made


def rows_of(data, ctx):
    part = data.train if ctx.settings["part"] == "train" else data.validation
    rows = hansa.aligned_rows(ctx.settings, len(part["x"]))
    return {name: array[rows] for name, array in part.items()}


@hansa.task("forward")
def forward(params, data, ctx):
    return {"embedding": np.tanh(rows_of(data, ctx)["x"] @ params["w"])}, {}


@hansa.task("head")
def head(params, data, ctx):
    y = rows_of(data, ctx)["y"]
    names = sorted(name for name in params if name.startswith("embedding/"))
    z = np.concatenate([params[name] for name in names], axis=1)
    p = 1 / (1 + np.exp(-(z @ params["v"] + params["b"])))
    loss = float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
    g = (p - y) / len(y)
    back = {"v": z.T @ g, "b": g.sum()}
    for i, name in enumerate(names):
        dz = np.outer(g, params["v"][2 * i : 2 * i + 2])
        back[name.replace("embedding/", "gradient/")] = dz
    return back, {"loss": loss, "accuracy": float(np.mean((p > 0.5) == y))}


@hansa.task("backward")
def backward(params, data, ctx):
    x = rows_of(data, ctx)["x"]
    z = np.tanh(x @ params["w"])
    return {"w": x.T @ (params["gradient"] * (1 - z * z))}, {}
"""

PLAN = f"""
name = "vertical"
rounds = 4
seed = {SEED}
workflow = {{ name = "split", labels = "{HOLDER}" }}
[learner]
kind = "function"
module = "model.py"
steps = 3
batch_size = 10
optimizer = {{ lr = {RATE} }}
[data]
clients = 3
[cohort]
minimum = 3
[stop]
metric = "loss"
"""


def written(folder: Path, model: str = MODEL, plan: str = PLAN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.toml").write_text(plan)
    (folder / "model.py").write_text(model)
    return folder


def jointly(start: dict[str, np.ndarray], rounds: int = 4) -> tuple[dict[str, Any], float]:
    """Train the joint model in one place: the same start and batches, all columns together."""
    from hansa.seeds import Key

    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS + 8, 6))
    y = (x @ [1.0, -2.0, 0.5, 1.5, -1.0, 3.0] - 0.4 > 0).astype(float)
    columns = {"client-0": x[:, :2], "client-1": x[:, 2:5], "client-2": x[:, 5:]}
    w = {c: np.array(start[f"{c}/w"], float) for c in COLUMNS}
    v, b = np.array(start["head/v"], float), float(start["head/b"])

    def through(rows: Any) -> tuple[Any, Any]:
        z = np.concatenate([np.tanh(columns[c][rows] @ w[c]) for c in COLUMNS], axis=1)
        return z, 1 / (1 + np.exp(-(z @ v + b)))

    drawn = [
        Key.root(SEED).child("aligned rows", e).generator().permutation(ROWS) for e in range(6)
    ]
    order = np.concatenate(drawn)
    for batch in range(3 * rounds):
        rows = order[batch * 10 : batch * 10 + 10]
        z, p = through(rows)
        g = (p - y[rows]) / 10
        dz = np.outer(g, v) * (1 - z * z)
        v, b = v - RATE * z.T @ g, b - RATE * g.sum()
        for i, c in enumerate(COLUMNS):
            w[c] = w[c] - RATE * columns[c][rows].T @ dz[:, 2 * i : 2 * i + 2]
    _, p = through(np.arange(ROWS, ROWS + 8))
    own = y[ROWS:]
    loss = float(-np.mean(own * np.log(p) + (1 - own) * np.log(1 - p)))
    return {**{f"{c}/w": w[c] for c in COLUMNS}, "head/v": v, "head/b": np.array(b)}, loss
