"""Small FEDn packages of our own, in the shapes of its generations; they need NumPy alone."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

DESCRIPTION = """\
python_env: python_env.yaml
entry_points:
  build:
    command: python entrypoint.py init_seed
  train:
    command: python entrypoint.py train $ENTRYPOINT_OPTS  # options come before the paths
  validate: {command: python entrypoint.py validate $ENTRYPOINT_OPTS}
  predict:
    command: "python entrypoint.py predict $ENTRYPOINT_OPTS"
"""
ENVIRONMENT = "name: small\nbuild_dependencies: []\ndependencies:\n  - fedn==0.33.0\n"
ENTRYPOINT = """\
import sys

import numpy as np
from fedn.common.log_config import logger
from fedn.utils.helpers.helpers import get_helper, load_metadata, save_metadata, save_metrics

helper = get_helper("numpyhelper")


def rows(words):
    options = [w.split("=", 1)[1] for w in words if w.startswith("--data_path=")]
    return np.loadtxt(options[0] + "/rows.csv", ndmin=1)


def main(task, *words):
    paths = [w for w in words if not w.startswith("--")]
    if task == "init_seed":
        helper.save([np.array([[1.0, -2.0]], np.float32), np.array(0.5, np.float32)], "../seed.npz")
        return
    weights, x = helper.load(paths[0]), rows(words)
    if task == "train":
        rate = load_metadata(paths[0]).get("rate", 1.0)
        # float64, as NumPy makes it: the model is float32
        helper.save([w + rate * (x.mean() - w) for w in weights], paths[1])
        save_metadata({"num_examples": len(x), "rate": rate}, paths[1])
        logger.warning("trained")
    elif task == "validate":
        error = float(np.abs(weights[0] - x.mean()).max())
        save_metrics({"error": error, "by": {"row": 3}, "note": "text", "rows": [1, 2]}, paths[1])
    else:
        save_metrics({"predicted": (x + float(weights[1])).tolist()}, paths[1])


main(*sys.argv[1:])
"""

OLD_TRAIN = """\
import sys
from fedn.utils.kerashelper import KerasHelper
from models.small import moved

helper = KerasHelper()
weights = helper.load_model(sys.argv[1])
with open("settings.yaml") as file:
    assert "epochs" in file.read()
helper.save_model(moved(weights, "../data/value.txt"), sys.argv[2])
"""
OLD_VALIDATE = """\
import json, sys
from fedn.utils.kerashelper import KerasHelper
weights = KerasHelper().load_model(sys.argv[1])
with open(sys.argv[2], "w") as file:
    json.dump({"loss": float(abs(weights[0]).sum())}, file)
"""
OLD_MODEL = """\
def moved(weights, path):
    with open(path) as file:
        value = float(file.read())
    return [0 * w + value for w in weights]
"""

WITH_OPTIONS = ("ENTRYPOINT_OPTS=--data_path={data}",)


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def package(folder: Path) -> Path:
    """Write a package of today."""
    files = {
        "fedn.yaml": DESCRIPTION,
        "python_env.yaml": ENVIRONMENT,
        "entrypoint.py": ENTRYPOINT,
        "data/old.csv": "1",
        ".fednignore": "data\n*.log\n",
        "yesterday.log": "x",
    }
    return write(folder, **files)


def old_package(folder: Path) -> Path:
    """Write one of 0.4 and before: no description, no metadata, data one folder up."""
    files = {
        "train.py": OLD_TRAIN,
        "validate.py": OLD_VALIDATE,
        "models/small.py": OLD_MODEL,
        "settings.yaml": "epochs: 1\n",
    }
    return write(folder, **files)


def rows(folder: Path) -> Path:
    """Write two clients: 2 rows of mean 4, and 6 of mean -8."""
    write(folder, **{"north/rows.csv": "3\n5\n", "south/rows.csv": "-8\n" * 6})
    return folder


def archived(path: Path, source: Path, top: str) -> Path:
    """Pack a folder, below a top folder or flat."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source, arcname=top or ".")
    return path


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


SPLIT_DESCRIPTION = """\
entry_points:
  startup:
    command: python startup.py
  forward:
    command: python forward.py
  backward:
    command: python backward.py
"""
SPLIT_STARTUP = """\
import os

os.makedirs("logs", exist_ok=True)
with open("logs/starts.txt", "a") as file:
    file.write("x")
"""
SPLIT_FORWARD = """\
import os
import sys

import numpy as np
from fedn.common.log_config import logger
from fedn.utils.helpers.helpers import get_helper, save_metadata

here = os.path.abspath(os.path.dirname(__file__))
helper = get_helper("splitlearninghelper")
client, out, measured = sys.argv[1:]
part = "x_test" if measured == "True" else "x_train"
with np.load(os.environ["FEDN_DATA_PATH"] + "/columns.npz") as found:
    x = found[part]
model = f"{here}/local_models/{client}.npz"
if not os.path.exists(model):
    os.makedirs(f"{here}/local_models")
    first = len(client)
    np.savez(model, w=np.cos(np.arange(x.shape[1] * 2) + first).reshape(-1, 2))
z = np.tanh(x @ np.load(model)["w"])
os.makedirs(f"{here}/embeddings", exist_ok=True)
np.savez(f"{here}/embeddings/{client}.npz", x=x, z=z)
save_metadata({"num_examples": len(x)}, out)
helper.save({str(client): z}, out)
logger.info("embedded")
"""
SPLIT_BACKWARD = """\
import os
import sys

import numpy as np
from fedn.utils.helpers.helpers import get_helper

here = os.path.abspath(os.path.dirname(__file__))
gradients, client = sys.argv[1:]
dz = get_helper("splitlearninghelper").load(gradients)
assert list(dz) == [client], "a client gets its own gradient alone"
model = f"{here}/local_models/{client}.npz"
w, kept = np.load(model)["w"], np.load(f"{here}/embeddings/{client}.npz")
np.savez(model, w=w - 2.0 * kept["x"].T @ (dz[client] * (1 - kept["z"] ** 2)))
"""


def split_package(folder: Path) -> Path:
    """Write a package of split learning; each client has a linear layer and a tanh."""
    files = {
        "fedn.yaml": SPLIT_DESCRIPTION,
        "startup.py": SPLIT_STARTUP,
        "forward.py": SPLIT_FORWARD,
        "backward.py": SPLIT_BACKWARD,
    }
    return write(folder, **files)


def columns(folder: Path) -> Path:
    """Write what three clients have: columns of two, and the labels of the third."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(26, 3))
    y = (x @ [1.0, -2.0, 1.5] - 0.3 > 0).astype(float)
    for client, mine in {"bank": x[:, :2], "shop": x[:, 2:]}.items():
        (folder / client).mkdir(parents=True)
        np.savez(folder / client / "columns.npz", x_train=mine[:20], x_test=mine[20:])
    (folder / "labels").mkdir()
    np.savez(folder / "labels" / "labels.npz", y_train=y[:20, None], y_test=y[20:, None])
    return folder


def joint(rounds: int, rate: float) -> dict[str, np.ndarray]:
    """Train the joint model of `split_package` in one place: the head by plain SGD."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(26, 3))
    y = (x @ [1.0, -2.0, 1.5] - 0.3 > 0).astype(float)
    w = {c: np.cos(np.arange(n * 2) + 4).reshape(-1, 2) for c, n in {"bank": 2, "shop": 1}.items()}
    v, b = np.zeros(4), 0.0
    own = {"bank": x[:, :2], "shop": x[:, 2:]}

    def through(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        z = np.concatenate([np.tanh(own[c][rows] @ w[c]) for c in w], axis=1)
        return z, 1 / (1 + np.exp(-(z @ v + b)))

    for _ in range(rounds):
        z, p = through(slice(0, 20))
        g = (p - y[:20]) / 20
        dz = np.outer(g, v) * (1 - z * z)
        v, b = v - rate * z.T @ g, b - rate * g.sum()
        for at, c in enumerate(w):
            w[c] = w[c] - 2.0 * own[c][:20].T @ dz[:, 2 * at : 2 * at + 2]
    _, p = through(slice(20, 26))
    loss = -np.mean(y[20:] * np.log(p) + (1 - y[20:]) * np.log(1 - p))
    return {"v": v, "b": np.array(b), "loss": np.array(loss), **w}
