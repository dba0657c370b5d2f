"""Scripts of FLARE's client API, as executors of job folders of today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flare_apps import W0, write_app
from projects import simulate

from hansa.compat.nvflare.writing import import_app
from hansa.errors import RunError

SCRIPT = """
import argparse
import sys
import nvflare.client as flare
from nvflare.app_common.np.constants import NPConstants
from nvflare.client.tracking import SummaryWriter

parser = argparse.ArgumentParser()
parser.add_argument("--kind", default="full")
kind = parser.parse_args().kind

if __name__ == "__main__":
    flare.init()
    site = flare.system_info()["site_name"]
    writer = SummaryWriter()
    rounds = []
    while flare.is_running():
        assert flare.is_train() and not flare.is_evaluate()
        model = flare.receive()
        rounds.append(model.current_round)
        assert rounds == list(range(len(rounds))) and flare.get_site_name() == site
        step = {"site-1": 1.0, "site-2": -4.0}[site]
        w = model.params[NPConstants.NUMPY_KEY]
        writer.add_scalar("w", float(w.mean()), global_step=model.current_round)
        new = 0 * w + step if kind == "diff" else w + step
        flare.send(flare.FLModel(
            params={NPConstants.NUMPY_KEY: new},
            params_type=flare.ParamsType.DIFF if kind == "diff" else flare.ParamsType.FULL,
            metrics={"accuracy": 0.5, "who": site},
            meta={"NUM_STEPS_CURRENT_ROUND": 3 if site == "site-1" else 1},
        ))
    print("the loop has ended", file=sys.stderr)
"""


def job(folder: Path, script: str = SCRIPT, **options: Any) -> Path:
    """Write a job folder as a recipe exports it."""
    server = {
        "components": [
            {"id": "persistor",
             "path": "nvflare.app_common.np.np_model_persistor.NPModelPersistor",
             "args": {"model": W0.tolist()}},
        ],
        "workflows": [
            {"id": "controller",
             "path": "nvflare.app_common.workflows.fedavg.FedAvg",
             "args": {"num_clients": 2, "num_rounds": 2, "persistor_id": "persistor"}},
        ],
    }  # fmt: skip
    place = "nvflare.app_common.executors.in_process_client_api_executor"
    executor = {
        "path": f"{place}.InProcessClientAPIExecutor",
        "args": {"task_script_path": "client.py", "task_script_args": "", **options},
    }
    client = {"executors": [{"tasks": ["*"], "executor": executor}]}
    app = write_app(folder / "app", server=server, client=client)
    (app / "custom" / "client.py").write_text(script)
    (folder / "meta.json").write_text(json.dumps({"name": "job", "deploy_map": {"app": ["@ALL"]}}))
    return import_app(folder).folder


@pytest.mark.parametrize("kind", ["full", "diff"])
@pytest.mark.parametrize("transfer", ["FULL", "DIFF"])
def test_a_script_gives_the_weighted_mean(tmp_path: Path, kind: str, transfer: str) -> None:
    """Goal: (3 x 1 - 4) / 4 in each of two rounds, whole or as a difference."""
    folder = job(tmp_path / "job", task_script_args=f"--kind {kind}", params_transfer_type=transfer)
    run = simulate(folder)
    found = np.load(run.path / "models" / "server.npy", allow_pickle=False)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, W0 + 2 * (3 * 1.0 - 4.0) / 4, rtol=1e-6)
    assert run.rows()[-1]["train"]["accuracy"]["mean"] == pytest.approx(0.5)
    assert "who" not in run.rows()[-1]["train"]


DECORATED = """
import nvflare.client as flare
from nvflare.app_common.np.constants import NPConstants

KEY = NPConstants.NUMPY_KEY


@flare.train
def train(model=None, times=1):
    step = {"site-1": 1.0, "site-2": -4.0}[flare.get_site_name()]
    steps = 3 if step > 0 else 1
    return flare.FLModel(
        params={KEY: model.params[KEY] + times * step}, meta={"NUM_STEPS_CURRENT_ROUND": steps}
    )


@flare.evaluate()
def measure(model, scale=1.0):
    return SAID


flare.init()
config = flare.get_config()
assert config["site_name"] == flare.get_site_name()
assert config["TASK_EXCHANGE"]["transfer_type"] == "FULL"
while flare.is_running():
    model = flare.receive()
    said = measure(model, scale=2.0)
    assert flare.receive() is model
    print("sent", train(times=2).metrics, said)
"""


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ('{"accuracy": scale * float(model.params[KEY].mean())}', "accuracy"),
        ("scale * float(model.params[KEY].mean())", "metric"),  # without a name, as in FLARE
    ],
)
def test_decorated_functions_train_and_measure(tmp_path: Path, said: str, name: str) -> None:
    """Goal: (3 x 2 - 8) / 4 in each of two rounds, and metrics of what was received."""
    run = simulate(job(tmp_path / "job", DECORATED.replace("SAID", said)))
    found = np.load(run.path / "models" / "server.npy", allow_pickle=False)
    np.testing.assert_allclose(found, W0 + 2 * (3 * 2.0 - 8.0) / 4, rtol=1e-6)
    rows = [row["train"][name]["mean"] for row in run.rows() if "train" in row]
    assert rows == pytest.approx([2 * W0.mean(), 2 * (W0.mean() - 0.5)])


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (DECORATED.replace("SAID", "None"), "measure returned no metrics"),
        (DECORATED.replace("SAID", "1.0").replace("return flare.FLModel(", "return dict("),
         "train returned dict, and no FLModel"),
        ("raise ValueError('no data')", "no data"),
        ("import nvflare.client as flare\nflare.init()", "without sending"),
        (
            "import nvflare.client as flare\nflare.receive()\nflare.send(flare.FLModel())",
            "no parameters",
        ),
        ("import nvflare.client.lightning", "lightning"),
    ],
)  # fmt: skip
def test_a_script_that_goes_wrong_says_how(tmp_path: Path, script: str, said: str) -> None:
    with pytest.raises(RunError) as caught:
        simulate(job(tmp_path / "job", script))
    assert said in str(caught.value)


def test_a_script_outside_of_the_worker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="external_process"):
        simulate(job(tmp_path / "job", execution_mode="external_process"))
