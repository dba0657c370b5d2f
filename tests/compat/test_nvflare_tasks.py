"""FLARE apps: filters of both sides, named tasks, a first model of clients, PyTorch's persistor.

The oracles are the formulas of FLARE's filters in plain NumPy, and weighted means.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flare_apps import W0, client_config, saved, server_config, write_app
from projects import simulate

from hansa.compat.nvflare.components import FLContext
from hansa.compat.nvflare.exchange import DXO, from_shareable
from hansa.compat.nvflare.filters import PercentilePrivacy, SVTPrivacy
from hansa.compat.nvflare.writing import import_app
from hansa.errors import RunError
from hansa.params import Params
from hansa.store.files import save_params

FILTERS = "nvflare.app_common.filters"
INITIAL = "nvflare.app_common.workflows.initialize_global_weights.InitializeGlobalWeights"

TRAINER = """
import numpy as np
from constants import KEY
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply

OWN = {"site-1": -2.5, "site-2": 7.0}


class NPTrainer(Executor):
    def __init__(self, kind="WEIGHT_DIFF"):
        super().__init__()
        self.kind = kind

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        site = fl_ctx.get_identity_name()
        if task_name == "get_weights":
            start = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
            return DXO(DataKind.WEIGHTS, {KEY: start * np.float32(OWN[site])}).to_shareable()
        if task_name == "count":
            if site == "site-2" and shareable.get("fails"):
                return make_reply(ReturnCode.BAD_TASK_DATA)
            reply = Shareable()
            reply["rows"] = np.int64(len(site) * shareable["factor"])
            return reply
        if task_name != "train":
            return make_reply(ReturnCode.TASK_UNKNOWN)
        model = from_shareable(shareable).data
        step = np.arange(-4, 5, dtype=np.float32).reshape(3, 3) * np.float32(0.01)
        made = step if self.kind == "WEIGHT_DIFF" else model[KEY] + step
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 2}
        return DXO(self.kind, data={KEY: made}, meta=meta).to_shareable()
"""
STEP = (np.arange(-4, 5, dtype=np.float32) * np.float32(0.01)).reshape(3, 3)


def app(folder: Path, *, kind: str = "WEIGHT_DIFF", **sides: Any) -> Path:
    server = server_config(num_rounds=1, aggregator={"expected_data_kind": kind})
    server["components"][0]["args"] = {}
    client = client_config(kind=kind)
    client["executors"][0]["tasks"] = ["train", "get_weights", "count", "odd"]
    for key, value in sides.items():
        side, _, part = key.partition("_")
        {"server": server, "client": client}[side][part] = value
    return import_app(write_app(folder / "app", TRAINER, server=server, client=client)).folder


def chain(name: str, **told: Any) -> list[dict[str, Any]]:
    return [{"tasks": ["train"], "filters": [{"path": f"{FILTERS}.{name}", "args": told}]}]


@pytest.mark.parametrize("side", ["client", "server"])
def test_percentile_privacy_of_either_side_is_its_formula(tmp_path: Path, side: str) -> None:
    told = {"percentile": 40, "gamma": 0.012}
    filters = {f"{side}_task_result_filters": chain("percentile_privacy.PercentilePrivacy", **told)}
    run = simulate(app(tmp_path, **filters))
    d = STEP / 2  # two steps
    cutoff = np.percentile(np.abs(d), 40)
    expected = np.clip(np.where(np.abs(d) < cutoff, 0, d), -0.012, 0.012) * 2
    np.testing.assert_allclose(saved(run) - W0, expected, atol=1e-6)
    assert np.count_nonzero(expected == 0) and np.max(np.abs(expected)) == pytest.approx(0.024)


def test_svt_privacy_is_its_formula_where_noise_is_nothing(tmp_path: Path) -> None:
    told = {"fraction": 1.0, "epsilon": 1e12, "noise_var": 1e12, "gamma": 0.025, "tau": 0.015}
    filters = {"client_task_result_filters": chain("svt_privacy.SVTPrivacy", **told)}
    run = simulate(app(tmp_path, **filters))
    clipped = np.clip(STEP, -0.025, 0.025)
    expected = np.where(np.abs(clipped) >= 0.015, clipped, 0)
    np.testing.assert_allclose(saved(run) - W0, expected, atol=1e-6)


def test_svt_privacy_with_noise_is_the_same_in_every_simulation(tmp_path: Path) -> None:
    filters = {"client_task_result_filters": chain("SVTPrivacy", gamma=0.01, epsilon=1.0)}
    runs = [simulate(app(tmp_path / str(i), **filters)) for i in (1, 2)]
    assert np.array_equal(saved(runs[0]), saved(runs[1]))
    assert np.count_nonzero(saved(runs[0]) != W0) in (1, 2)  # of each client at most one of nine


@pytest.mark.parametrize("kind", ["WEIGHTS", "WEIGHT_DIFF"])
@pytest.mark.parametrize("excluded", [["numpy_key"], "nump.*"])
def test_excluded_variables_stay_as_they_were(tmp_path: Path, kind: str, excluded: Any) -> None:
    filters = {"client_task_result_filters": chain("ExcludeVars", exclude_vars=excluded)}
    assert np.array_equal(saved(simulate(app(tmp_path, kind=kind, **filters))), W0)


def test_a_filter_of_tasks_on_the_server_changes_what_executors_get(tmp_path: Path) -> None:
    told = chain("ExcludeVars", exclude_vars="another")
    run = simulate(app(tmp_path, kind="WEIGHTS", server_task_data_filters=told))
    np.testing.assert_allclose(saved(run), W0 + STEP, rtol=1e-6)


@pytest.mark.parametrize(
    ("told", "own"),
    [({}, -2.5), ({"weight_method": "client", "weight_client_name": "site-2"}, 7.0)],
)
def test_the_first_model_comes_from_the_clients(
    tmp_path: Path, told: dict[str, Any], own: float
) -> None:
    training = server_config(num_rounds=1)["workflows"]
    workflows = [{"id": "pre", "path": INITIAL, "args": told}, *training]
    run = simulate(app(tmp_path, kind="WEIGHT_DIFF", server_workflows=workflows))
    np.testing.assert_allclose(saved(run), W0 * own + STEP, rtol=1e-6)


def test_any_named_task_is_done_by_the_executor_that_names_it(tmp_path: Path) -> None:
    folder = app(tmp_path)
    asked = 'workflow={name="broadcast_and_process", task="count", send_model=false, settings=%s}'
    run = simulate(folder, asked % "{factor=3, fails=false}")
    assert run.rows()[0]["report"] == {f"client-{i}": {"rows": 18} for i in (0, 1)}
    failing = simulate(folder, asked % "{factor=3, fails=true}", "cohort.minimum=1")
    assert list(failing.rows()[0]["report"]) == ["client-0"]
    told = next(e for e in failing.log.events if e["kind"] == "problem")
    assert told["client"] == "client-1" and "BAD_TASK_DATA" in told["message"]


def test_an_unknown_task_is_answered_task_unknown(tmp_path: Path) -> None:
    asked = 'workflow={name="broadcast_and_process", task="odd"}'
    with pytest.raises(RunError, match="TASK_UNKNOWN"):
        simulate(app(tmp_path), asked)


NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.line = torch.nn.Linear(3, width)
        self.seen = torch.nn.BatchNorm1d(width)
"""

TORCH_TRAINER = """
from net import Net
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.executor import Executor


class NetTrainer(Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        data = from_shareable(shareable).data
        assert data.keys() == Net().state_dict().keys()
        data["line.bias"] = data["line.bias"] + 1
        return DXO(DataKind.WEIGHTS, data).to_shareable()
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("checkpoint", [False, True])
def test_an_app_of_the_classic_layout_starts_from_pytorchs_persistor(
    tmp_path: Path, checkpoint: bool
) -> None:
    """The model is a component of the server, which the persistor names by its id."""
    told: dict[str, Any] = {"model": "model"}
    path = tmp_path / "start.safetensors"
    if checkpoint:
        told["source_ckpt_file_full_name"] = str(path)
        one = np.ones(2, np.float32)
        start = {"line.weight": np.full((2, 3), 0.5, np.float32)}
        start |= {"line.bias": np.array([-7.0, 2.0], np.float32), "seen.weight": one}
        start |= {"seen.bias": 0 * one, "seen.running_mean": 0 * one, "seen.running_var": one}
        save_params(path, Params.of(start | {"seen.num_batches_tracked": np.array(0)}))
    server = server_config(num_rounds=2)
    server["components"][0] = {
        "id": "persistor",
        "path": "nvflare.app_common.pt.pt_file_model_persistor.PTFileModelPersistor",
        "args": told,
    }
    server["components"].append({"id": "model", "path": "net.Net", "args": {"width": 2}})
    client = client_config("np_trainer.NetTrainer")
    source = write_app(tmp_path / "app", TORCH_TRAINER, server=server, client=client)
    (source / "custom" / "net.py").write_text(NET)
    run = simulate(import_app(source).folder)
    seed, _ = run.load(run.commits()[0])
    model, _ = run.load(run.commits()[-1])
    assert set(model) == {
        "line.weight", "line.bias", "seen.weight", "seen.bias", "seen.running_mean",
        "seen.running_var", "seen.num_batches_tracked",
    }  # fmt: skip
    np.testing.assert_allclose(model["line.bias"], seed["line.bias"] + 2, rtol=1e-6)
    if checkpoint:
        assert seed["line.bias"].tolist() == [-7.0, 2.0]


def test_a_counter_does_not_pass_the_privacy_filter_unprotected() -> None:
    """As in FLARE it is filtered with the others; it stays a whole number, within the bound."""
    for made in (PercentilePrivacy(0, 2.5), SVTPrivacy(1.0, 1e12, 1e12, 2.5, 0.0)):
        diff = DXO("WEIGHT_DIFF", {"batches": np.array([40, -1]), "w": np.array([-7.0, 0.25])})
        found = from_shareable(made.process(diff.to_shareable(), FLContext())).data
        assert found["batches"].dtype == np.int64
        np.testing.assert_allclose(found["w"], [-2.5, 0.25], atol=1e-9)
        assert found["batches"][0] == 2 and abs(found["batches"][1]) <= 1
