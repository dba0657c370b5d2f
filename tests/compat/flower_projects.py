"""Small Flower projects, written on the spot; nothing here needs Flower."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

SHIFTS = (1.5, -4.0, 0.25)
SIZES = (3, 1, 7)

PYPROJECT = """
[project]
name = "tiny"
[tool.flwr.app.components]
serverapp = "tiny.server_app:app"
clientapp = "tiny.client_app:app"
[tool.flwr.app.config]
num-server-rounds = 2
local-epochs = 1
learning-rate = 0.5
fraction-evaluate = 1.0
[tool.flwr.federations]
default = "local-simulation"
[tool.flwr.federations.local-simulation]
options.num-supernodes = 3
"""

# Each client moves the model by its own amount, signed and unequal; sizes are the weights.
OLDER = """
import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.common import Context

SHIFTS, SIZES = (1.5, -4.0, 0.25), (3, 1, 7)


class Client(NumPyClient):
    def __init__(self, number, epochs):
        self.number, self.epochs = number, epochs

    def get_parameters(self, config):
        return [np.array([1.0, -2.0], np.float32), np.array(5, np.int64)]

    def fit(self, parameters, config):
        w, n = parameters
        w = w + np.float64(SHIFTS[self.number]) * self.epochs * np.array([1.0, 2.0])
        return [w, n + 1], SIZES[self.number], {"train_loss": SHIFTS[self.number], "who": "me"}

    def evaluate(self, parameters, config):
        return float(parameters[0][0]), SIZES[self.number], {"accuracy": 0.1 * self.number}


def client_fn(context: Context):
    return Client(context.node_config["partition-id"], context.run_config["local-epochs"])


app = ClientApp(client_fn)
"""

MESSAGES = """
import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from tiny.task import SHIFTS, SIZES

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    number = context.node_config["partition-id"]
    assert context.node_config["num-partitions"] == 3
    w, n = (array.numpy() for array in msg.content["arrays"].values())
    w += np.float32(SHIFTS[number] * msg.content["config"]["lr"] / 0.5) * np.array([1, 2], "f4")
    arrays = ArrayRecord({"w": Array(w), "n": Array(n + 1)})
    metrics = MetricRecord({"train_loss": SHIFTS[number], "num-examples": SIZES[number]})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    number = context.node_config["partition-id"]
    loss = float(msg.content["arrays"]["w"].numpy()[0])
    told = {"eval_loss": loss, "eval_acc": 0.1 * number, "num-examples": SIZES[number]}
    return Message(content=RecordDict({"metrics": MetricRecord(told)}), reply_to=msg)
"""

TASK = """
import numpy as np

SHIFTS, SIZES = (1.5, -4.0, 0.25), (3, 1, 7)


def make(start):
    return {"w": np.array([start, -2.0], np.float32), "n": np.array(5, np.int64)}
"""

SERVER = """
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import make

app = ServerApp()
raise SystemExit("the server app was executed")


@app.main()
def main(grid: Grid, context: Context) -> None:
    lr: float = context.run_config["learning-rate"]
    rounds = context.run_config["num-server-rounds"]
    model = make(float(1))
    arrays = ArrayRecord(model)
    strategy = FedAvg(fraction_evaluate=context.run_config["fraction-evaluate"])
    strategy.start(
        grid=grid, initial_arrays=arrays, train_config=ConfigRecord({"lr": lr}), num_rounds=rounds
    )
"""


def older_project(folder: Path, client: str = OLDER, server: str | None = None) -> Path:
    """Write a project of NumPyClients; without a server app, FedAvg is taken."""
    return write(
        folder,
        {
            "pyproject.toml": PYPROJECT,
            "tiny/__init__.py": "",
            "tiny/client_app.py": client,
            **({"tiny/server_app.py": server} if server is not None else {}),
        },
    )


def message_project(folder: Path, client: str = MESSAGES, server: str = SERVER) -> Path:
    """Write a project of a message-based ClientApp."""
    files = {"tiny/client_app.py": client, "tiny/task.py": TASK, "tiny/server_app.py": server}
    return write(folder, {"pyproject.toml": PYPROJECT, "tiny/__init__.py": "", **files})


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def after(rounds: int) -> np.ndarray:
    """Return the model after some rounds: the start, plus the weighted mean of the shifts."""
    mean = np.average(SHIFTS, weights=SIZES)
    return np.array([1.0, -2.0]) + rounds * mean * np.array([1.0, 2.0])
