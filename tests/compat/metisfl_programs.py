"""A MetisFL project as its tutorial lays it out, with a linear model, and its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from programs import Started

SIZES = (20, 50, 130)
"""Examples of the three learners: uneven, so a plain mean is not the weighted one."""

CONTROLLER = """
from hansa.compat.metisfl import Controller, ControllerConfig, ModelStoreConfig, ServerParams

controller_params = ServerParams(hostname="localhost", port={port})
controller = Controller(
    server_params=controller_params,
    controller_config=ControllerConfig({config}),
    model_store_config=ModelStoreConfig(model_store="InMemory", lineage_length=0),
)
if __name__ == "__main__":
    controller.start()
"""
LEARNER = """
import argparse
import numpy as np
from controller import controller_params
from driver import get_learner_server_params
from hansa.compat.metisfl import ClientParams, Learner, app

class LinearLearner(Learner):
    def __init__(self, x_train, y_train):
        super().__init__()
        self.w = np.float32([0.5, -1.25, 3.0])
        self.x_train, self.y_train = x_train, y_train

    def get_weights(self):
        return [self.w]

    def set_weights(self, parameters):
        self.w = parameters[0]

    def train(self, parameters, config):
        self.set_weights(parameters)
        losses = []
        for _ in range(config["epochs"] if "epochs" in config else 3):
            error = self.x_train @ self.w - self.y_train
            losses.append(float(np.mean(error**2)))
            self.w = self.w - 0.1 * self.x_train.T @ error / len(error)
        return self.get_weights(), {{"loss": losses, "note": "no number"}}

    def evaluate(self, parameters, config):
        self.set_weights(parameters)
        return {{"mse": float(np.mean((self.x_train @ self.w - self.y_train) ** 2))}}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-l", "--learner", type=int)
    index = parser.parse_args().learner - 1
    rows = np.load("rows.npz")
    learner = LinearLearner(rows[f"x{{index}}"], rows[f"y{{index}}"])
    app(learner, get_learner_server_params(index),
        ClientParams(hostname=controller_params.hostname, port=controller_params.port))
"""
DRIVER = """
from controller import controller_params
from hansa.compat.metisfl import DriverSession, ServerParams, TerminationSingals

def get_learner_server_params(learner_index):
    return ServerParams(hostname="localhost", port=50002 + learner_index)

if __name__ == "__main__":
    session = DriverSession(
        controller=controller_params,
        learners=[get_learner_server_params(i) for i in range(3)],
        termination_signals=TerminationSingals({signals}),
        {more}
    )
    session.run()
"""


def rows() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(11)
    found = []
    for number, size in enumerate(SIZES):
        x = rng.normal(size=(size, 3)).astype(np.float32) + np.float32(number - 1)
        found.append((x, x @ np.float32([1.0, -2.0, 0.5]) + np.float32(number)))
    return found


def expected(rounds: int, weights: Sequence[float] = SIZES, epochs: int = 3) -> np.ndarray:
    """Return FedAvg's model by its definition, in float64."""
    w = np.array([0.5, -1.25, 3.0])
    for _ in range(rounds):
        trained = []
        for x, y in rows():
            own = w.copy()
            for _ in range(epochs):
                own = own - 0.1 * x.T @ (x @ own - y) / len(y)
            trained.append(own)
        w = np.average(trained, axis=0, weights=weights)
    return w


class Programs(Started):
    """The programs of one federation in a folder, each a process as its user starts it."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder)
        self.port = port
        self.home = folder / "home"
        found = {f"{k}{i}": v for i, part in enumerate(rows()) for k, v in zip("xy", part)}  # noqa: B905
        np.savez(folder / "rows.npz", **found)

    def write(
        self, *, config: str = "", signals: str = "federation_rounds=3", more: str = ""
    ) -> None:
        texts = {"controller": CONTROLLER, "learner": LEARNER, "driver": DRIVER}
        for name, text in texts.items():
            text = text.format(port=self.port, config=config, signals=signals, more=more)
            (self.folder / f"{name}.py").write_text(text, encoding="utf-8")

    def start(self, name: str, *words: str, home: Path | None = None) -> subprocess.Popen[str]:
        key = " ".join((name, *words))
        with open(self.log(key), "a") as log:
            self._running[key] = subprocess.Popen(
                [sys.executable, f"{name}.py", *words],
                cwd=self.folder,
                env={**os.environ, "HANSA_HOME": str(home or self.home)},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return self._running[key]

    def start_all(self) -> None:
        for number in (1, 2, 3):
            self.start("learner", "-l", str(number))
        self.start("controller")

    def until_said(self, key: str, words: str, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while words not in self.said(key):
            assert time.monotonic() < until, f"{key} said {self.said(key)}"
            time.sleep(0.05)

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return found
