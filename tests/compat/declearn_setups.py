"""Small set-ups of declearn-quickrun, written on the spot; nothing here needs declearn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

ROWS = {"client_0": 7, "client_1": 5, "client_10": 4}
"""Rows to train on; in natural order, which is not that of the alphabet."""

CONFIG = """
[network]
protocol = "websockets"
host = "127.0.0.1"
port = 8765

[data]

[optim]
aggregator = "averaging"

[optim.client_opt]
lrate = 0.1
w_decay = 0.01
regularizers = [["ridge", { alpha = 0.05 }], "lasso"]
modules = [["momentum", { beta = 0.5, nesterov = true }], ["l2-global-clipping", { max_norm = 2 }]]

[optim.server_opt]
lrate = 0.5
w_decay = 0.02
modules = [["ewma", { beta = 0.25 }]]

[run]
rounds = 2
register = 3

[run.training]
batch_size = 2
n_epoch = 2
n_steps = 5

[run.evaluate]
batch_size = 3

[experiment]
metrics = ["mse"]
"""

LINEAR = """
import torch

from declearn.model.torch import TorchModel

module = torch.nn.Linear(3, 1)
with torch.no_grad():
    module.weight[:] = torch.tensor([[0.5, -1.0, 2.0]])
    module.bias[:] = -0.25
model = TorchModel(module, loss=torch.nn.MSELoss())
"""

SKLEARN = """
from declearn.model.sklearn import SklearnSGDModel

model = SklearnSGDModel.from_parameters(kind="classifier", loss="log_loss", alpha=0.01)
"""


def rows_of(client: str, *, labels: int = 0) -> dict[str, np.ndarray]:
    """Return a client's arrays by the name of their file; signed, and alike at no two clients."""
    draw, n = np.random.default_rng(list(ROWS).index(client)), ROWS[client]
    made = {}
    for part, count in (("train", n), ("valid", 3)):
        x = (draw.standard_normal((count, 3)) * [1.0, 3.0, 0.5] - 0.5).astype(np.float32)
        made[f"{part}_data"] = x
        y = (x @ [1.0, -0.5, 2.0] + draw.standard_normal(count)).astype(np.float32)
        made[f"{part}_target"] = np.arange(count) * 5 % labels if labels else y[:, None]
    return made


def write_setup(
    folder: Path, model: str = LINEAR, config: str = CONFIG, *, labels: int = 0
) -> Path:
    """Write a set-up with its data, as declearn-split lays them out."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(config)
    (folder / "model.py").write_text(model)
    for client in ROWS:
        place = folder / "data_iid" / client
        place.mkdir(parents=True)
        for name, array in rows_of(client, labels=labels).items():
            np.save(place / f"{name}.npy", array)
    return folder


Change = Callable[[np.ndarray, np.ndarray, str], tuple[np.ndarray, np.ndarray]]
"""Of rows, targets and the client's name."""


def change_rows(source: Path, change: Change) -> Path:
    """Change all clients' arrays."""
    for client in ROWS:
        for part in ("train", "valid"):
            begins = source / "data_iid" / client / part
            x, y = (np.load(f"{begins}_{what}.npy") for what in ("data", "target"))
            for what, array in zip(("data", "target"), change(x, y, client), strict=True):
                np.save(f"{begins}_{what}.npy", array)
    return source
