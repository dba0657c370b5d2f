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
