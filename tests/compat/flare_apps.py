"""Small FLARE apps, written on the spot; nothing here needs FLARE."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hansa.runs import RunFolder

W0 = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
DELTAS = {"site-1": 1.5, "site-2": -4.0, "site-3": 0.25}
STEPS = {"site-1": 3, "site-2": 1, "site-3": 7}

PERSISTOR = """
import numpy as np
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnable, make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor
from nvflare.app_common.app_constant import AppConstants
from constants import KEY


class NPModelPersistor(ModelPersistor):
    def __init__(self, model_dir="models", model_name="server.npy"):
        super().__init__()

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        start = fl_ctx.get_prop(AppConstants.START_ROUND, 0)
        self.logger.info(f"starts at {start}")
        return make_model_learnable({KEY: np.arange(1, 10, dtype=np.float32).reshape(3, 3)}, {})

    def save_model(self, model, fl_ctx):
        raise SystemExit("the server's side was executed")
"""

# Checks what it is told and given: in round r a client receives W0 + r.
TRAINER = """
import os
import numpy as np
from constants import KEY
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants


class NPTrainer(Executor):
    def __init__(self, delta=1):
        super().__init__()
        self._delta = delta

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        assert not abort_signal.triggered
        if task_name != "train":
            return make_reply(ReturnCode.TASK_UNKNOWN)
        dxo = from_shareable(shareable)
        assert dxo.data_kind == DataKind.WEIGHTS
        number = shareable.get_header(AppConstants.CURRENT_ROUND)
        start = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
        assert dxo.data[KEY].dtype == np.float32
        assert np.array_equal(dxo.data[KEY], start + self._delta * number), dxo.data
        assert shareable.get_header(AppConstants.NUM_ROUNDS) >= number
        assert fl_ctx.get_peer_context().get_prop(AppConstants.CURRENT_ROUND) == number
        dxo.data[KEY] += self._delta
        run = fl_ctx.get_prop(FLContextKey.CURRENT_RUN)
        folder = os.path.join(fl_ctx.get_engine().get_workspace().get_run_dir(run), "model")
        os.makedirs(folder, exist_ok=True)
        np.save(os.path.join(folder, "best_numpy.npy"), dxo.data[KEY])
        self.log_info(fl_ctx, f"{fl_ctx.get_identity_name()} has trained")
        return DXO(data_kind=dxo.data_kind, data=dxo.data, meta={}).to_shareable()
"""

# Each site moves the model by its own amount, signed and unequal; steps are part of the weights.
UNEQUAL = """
import numpy as np
from constants import KEY
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor

DELTAS = {"site-1": 1.5, "site-2": -4.0, "site-3": 0.25}
STEPS = {"site-1": 3, "site-2": 1, "site-3": 7}


class NPTrainer(Executor):
    def __init__(self, kind="WEIGHTS"):
        super().__init__()
        self.kind = kind

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        site = fl_ctx.get_identity_name()
        model = from_shareable(shareable).data
        if self.kind == "WEIGHTS":
            model[KEY] += DELTAS[site]
        else:
            model[KEY] *= 0  # what comes back is a difference from what was sent
            model[KEY] = model[KEY].astype(np.float64) + DELTAS[site]
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: STEPS[site]}
        return DXO(self.kind, data=model, meta=meta).to_shareable()
"""


def server_config(workflow: str = "ScatterAndGather", **asked: Any) -> dict[str, Any]:
    """Return config_fed_server.json of one workflow; `asked` are its arguments and the like."""
    aggregator = asked.pop("aggregator", {"expected_data_kind": "WEIGHTS"})
    persistor = asked.pop("persistor", "np_model_persistor.NPModelPersistor")
    place = {"ScatterAndGather": "scatter_and_gather", "CyclicController": "cyclic_ctl"}[workflow]
    arguments = {"min_clients": 2, "num_rounds": 3, "wait_time_after_min_received": 10} | asked
    if workflow == "CyclicController":
        arguments = {"num_rounds": 3, **asked}
    return {
        "format_version": 2,
        "server": {"heart_beat_timeout": 600},
        "components": [
            {"id": "persistor", "path": persistor, "args": {}},
            {
                "id": "shareable_generator",
                "path": "nvflare.app_common.shareablegenerators.full_model_shareable_generator"
                ".FullModelShareableGenerator",
            },
            {
                "id": "aggregator",
                "path": "nvflare.app_common.aggregators.intime_accumulate_model_aggregator"
                ".InTimeAccumulateWeightedAggregator",
                "args": aggregator,
            },
        ],
        "workflows": [
            {
                "id": "first",
                "path": f"nvflare.app_common.workflows.{place}.{workflow}",
                "args": arguments,
            }
        ],
    }


def client_config(trainer: str = "np_trainer.NPTrainer", **arguments: Any) -> dict[str, Any]:
    """Return config_fed_client.json with one executor that trains."""
    executor = {"path": trainer, "args": arguments}
    return {"format_version": 2, "executors": [{"tasks": ["train"], "executor": executor}]}


def write_app(
    folder: Path,
    trainer: str = TRAINER,
    *,
    server: dict[str, Any] | None = None,
    client: dict[str, Any] | None = None,
) -> Path:
    """Write an app folder."""
    files = {
        "config/config_fed_server.json": json.dumps(server or server_config()),
        "config/config_fed_client.json": json.dumps(client or client_config()),
        "custom/__init__.py": "",
        "custom/constants.py": 'KEY = "numpy_key"\n',
        "custom/np_model_persistor.py": PERSISTOR,
        "custom/np_trainer.py": trainer,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def saved(run: RunFolder) -> np.ndarray:
    """Return the last model, where FLARE's NumPy persistor keeps it."""
    return np.load(run.path / "models" / "server.npy", allow_pickle=False)


def write_job(
    folder: Path,
    deployed: Mapping[str, Any],
    clients: Mapping[str, Mapping[str, Any]],
    *,
    code: Mapping[str, Mapping[str, str]] | None = None,
    server: dict[str, Any] | None = None,
    **meta: Any,
) -> Path:
    """Write a job as FLARE's job API does: a folder for each app, with one side's configuration.

    Args:
      folder: is made.
      deployed: the deploy_map.
      clients: config_fed_client.json of each app but app_server.
      code: modules of custom/ by name, by app.
      server: config_fed_server.json.
      meta: more of meta.json.
    """
    found = {"name": "job", "deploy_map": deployed, "resource_spec": {}} | meta
    files = {
        "meta.json": json.dumps(found),
        "app_server/config/config_fed_server.json": json.dumps(server or server_config()),
    }
    for app, config in clients.items():
        files[f"{app}/config/config_fed_client.json"] = json.dumps(config)
    for app, modules in (code or {}).items():
        files |= {f"{app}/custom/{name}": text for name, text in modules.items()}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder
