"""The vertical project of `split_projects` in which each client keeps its own part of the model."""

from __future__ import annotations

import numpy as np
from split_projects import COLUMNS, RATE, SEED

from hansa.runs import RunFolder
from hansa.store.task_states import TaskStates

PLAN = f"""
name = "apart"
rounds = 4
seed = {SEED}
workflow = {{ name = "split", labels = "client-3", parts = "clients" }}
[learner]
kind = "function"
module = "model.py"
steps = 3
batch_size = 10
optimizer = {{ lr = {RATE} }}
[data]
clients = 4
[cohort]
minimum = 4
[stop]
metric = "loss"
"""

MODEL = """
import numpy as np
import hansa

COLUMNS = {"client-0": 2, "client-1": 3, "client-2": 1}
ROWS, RATE = 24, 0.25


def table():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS + 8, 6))
    y = (x @ [1.0, -2.0, 0.5, 1.5, -1.0, 3.0] - 0.4 > 0).astype(float)
    return x, y


def data(client):
    x, y = table()
    if client == "client-3":
        whole = {"y": y}
    else:
        first = sum(list(COLUMNS.values())[: list(COLUMNS).index(client)])
        whole = {"x": x[:, first : first + COLUMNS[client]]}
    return {
        "train": {name: array[:ROWS] for name, array in whole.items()},
        "validation": {name: array[ROWS:] for name, array in whole.items()},
    }


def init(rng, sample):
    return {"head/v": np.linspace(-0.5, 1, 6), "head/b": np.array(0.125)}


def mine(data, ctx, name):
    part = data.train if ctx.settings["part"] == "train" else data.validation
    return part[name][hansa.aligned_rows(ctx.settings, len(part[name]))]


@hansa.task("forward")
def forward(params, data, ctx):
    assert params is None
    x = mine(data, ctx, "x")
    if "w" not in ctx.state:
        first = ord(ctx.client[-1]) - ord("0")
        ctx.state["w"] = np.cos(np.arange(2 * x.shape[1]) + first).reshape(-1, 2)
        ctx.state["steps"] = np.array(0)
    ctx.state["x"] = x
    ctx.state["z"] = np.tanh(x @ ctx.state["w"])
    return {"embedding": ctx.state["z"]}, {}


@hansa.task("head")
def head(params, data, ctx):
    y = mine(data, ctx, "y")
    names = sorted(name for name in params if name.startswith("embedding/"))
    z = np.concatenate([params[name] for name in names], axis=1)
    p = 1 / (1 + np.exp(-(z @ params["v"] + params["b"])))
    loss = float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
    g = (p - y) / len(y)
    back = {"v": z.T @ g, "b": g.sum()}
    for i, name in enumerate(names):
        dz = np.outer(g, params["v"][2 * i : 2 * i + 2])
        back[name.replace("embedding/", "gradient/")] = dz
    return back, {"loss": loss}


@hansa.task("backward")
def backward(params, data, ctx):
    z = ctx.state.pop("z")  # of the rows of this batch, as forward left them
    dw = ctx.state.pop("x").T @ (params["gradient"] * (1 - z * z))
    ctx.state["w"] -= RATE * dw
    ctx.state["steps"] += 1
    return None, {}
"""


def start() -> dict[str, np.ndarray]:
    """Return what every part begins with, by the names that `split_projects.jointly` has."""
    made = {
        f"{client}/w": np.cos(np.arange(2 * width) + at).reshape(-1, 2)
        for at, (client, width) in enumerate(COLUMNS.items())
    }
    return made | {"head/v": np.linspace(-0.5, 1, 6), "head/b": np.array(0.125)}


def kept(made: RunFolder) -> dict[str, str]:
    """Return the digests of the clients' states that the last commit of a run names."""
    found: dict[str, str] = made.commits()[-1]["progress"]["memory"]["states"]
    return found


def parts(made: RunFolder) -> dict[str, dict[str, np.ndarray]]:
    """Return what the clients of a simulation have kept at its end."""
    states, digests = TaskStates(made.path / "clients" / "tasks"), kept(made)
    found = {client: states.load(client, digest) for client, digest in digests.items()}
    return {client: dict(state.items()) for client, state in found.items() if state is not None}
