"""What `hansa import nvflare` takes from where; nothing of the app is executed by it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from flare_apps import TRAINER, client_config, server_config, write_app

from hansa.cli.import_nvflare import nvflare as command
from hansa.compat.nvflare import exchange, read_app
from hansa.compat.nvflare.names import ReturnCode
from hansa.compat.nvflare.shim import PARTS, is_there, place_of
from hansa.compat.nvflare.writing import import_app
from hansa.errors import PlanError
from hansa.params import Params
from hansa.plan import check_plan, read_plan
from hansa.runs.export import write_numpy

LOG_CONFIG = """
[loggers]
keys=root,modelLogger
[handlers]
keys=consoleHandler
[formatters]
keys=fullFormatter
[logger_root]
level=INFO
handlers=consoleHandler
[logger_modelLogger]
level=DEBUG
handlers=consoleHandler
qualname=modelLogger
[handler_consoleHandler]
class=StreamHandler
args=(__import__("os").abort(),)
"""


def test_files_are_copied_unchanged_and_nothing_is_executed(tmp_path: Path) -> None:
    source = write_app(tmp_path / "hello-numpy-sag", "raise SystemExit('executed')\n" + TRAINER)
    (source / "resources").mkdir()
    (source / "resources" / "log.config").write_text(LOG_CONFIG)
    (source / "custom" / "rows.csv").write_text("a,b\n")
    done = CliRunner().invoke(command, [str(source)])
    assert done.exit_code == 0, done.output
    made = tmp_path / "hello-numpy-sag-hansa"
    for path in source.rglob("*.py"):
        assert (made / path.relative_to(source)).read_bytes() == path.read_bytes()
    assert "custom/rows.csv" in done.output and "log.config" not in done.output
    plan = tomllib.loads((made / "plan.toml").read_text())
    check_plan(read_plan(plan).plan)
    assert (plan["rounds"], plan["cohort"], plan["data"]["clients"]) == (
        3,
        {"minimum": 2, "grace_s": 10.0},
        2,
    )
    assert (plan["weighting"], plan["keep"]["as_numpy"]) == ("user", "models/server.npy")
    assert "num_rounds in config_fed_server.json" in (made / "plan.toml").read_text()
    assert '"root": "INFO", "modelLogger": "DEBUG"' in (made / "model.py").read_text()
    again = CliRunner().invoke(command, [str(source)])
    assert isinstance(again.exception, PlanError) and again.exception.code == "project-exists"


def changed(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> tuple[Any, Any]:
    server, client = server_config(), client_config()
    change(server, client)
    return server, client


REFUSED: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "no workflow": (lambda s, c: s.update(workflows=[]), "none"),
    "its own workflow": (lambda s, c: s["workflows"][0].update(path="mine.ScatterAndGather"),
                         "the app's own"),
    "a workflow that is not known": (
        lambda s, c: s["workflows"][0].update(path="nvflare.app_common.workflows.x.Swarm"),
        "Swarm"),
    "two that train": (lambda s, c: s["workflows"].append(s["workflows"][0]), "one that trains"),
    "a filter of the server": (
        lambda s, c: s.update(task_result_filters=[
            {"tasks": ["train"], "filters": [{"path": "nvflare.app_opt.he.HEFilter"}]}]),
        "HEFilter"),
    "weights of nobody": (
        lambda s, c: s["workflows"].insert(0, {
            "path": "nvflare.app_common.workflows.x.InitializeGlobalWeights",
            "args": {"weight_method": "client"}}),
        "weight_client_name"),
    "its own aggregator": (lambda s, c: s["components"][2].update(path="mine.Median"),
        "mine.Median"),
    "a collection": (lambda s, c: s["components"][2]["args"].update(expected_data_kind={"a": "b"}),
                     "expects"),
    "left out variables": (lambda s, c: s["components"][2]["args"].update(exclude_vars="bias"),
                           "exclude_vars"),
    "values that are weighted already": (
        lambda s, c: s["components"][2]["args"].update(weigh_by_local_iter=False),
        "weigh_by_local_iter"),
    "an argument that is not known": (
        lambda s, c: s["components"][2]["args"].update(trim=0.1), "trim, which is not known"),
    "left out variables beside a generator of its own": (
        lambda s, c: (s["components"][1].update(path="mine.Generator"),
                      s["components"][2]["args"].update(exclude_vars="bias")),
        "exclude_vars"),
    "weighted already, beside a generator of its own": (
        lambda s, c: (s["components"][1].update(path="mine.Generator"),
                      s["components"][2]["args"].update(weigh_by_local_iter=False)),
        "weigh_by_local_iter"),
    "an order that is not known": (
        lambda s, c: s.update(server_config(
            "CyclicController", order="RANDOM_WITHOUT_SAME_IN_A_ROW")),
        "RANDOM_WITHOUT_SAME_IN_A_ROW"),
    "a negative weight": (
        lambda s, c: s["components"][2]["args"].update(aggregation_weights={"site-1": -1}),
        "weights"),
    "no persistor": (lambda s, c: s["components"].pop(0), "'persistor'"),
    "a persistor that is no name": (
        lambda s, c: s["workflows"][0]["args"].update(persistor_id=["persistor"]), "persistor"),
    "a persistor without a module": (
        lambda s, c: s["components"][0].update(path="MyPersistor"), "no stand-in for MyPersistor"),
    "another persistor of FLARE's": (
        lambda s, c: s["components"][0].update(path="nvflare.app_opt.tf.TFModelPersistor"),
        "no stand-in"),
    "another executor of FLARE's": (
        lambda s, c: c["executors"][0]["executor"].update(path="nvflare.app_opt.xgboost.X"),
        "no stand-in"),
    "a filter of FLARE's": (
        lambda s, c: c.update(task_result_filters=[
            {"tasks": ["train"], "filters": [{"path": "nvflare.app_common.ConvertWeights"}]}]),
        "ConvertWeights"),
    "nobody who trains": (lambda s, c: c["executors"][0].update(tasks=["validate"]), "'train'"),
    "no rounds": (lambda s, c: s["workflows"][0]["args"].update(num_rounds=0), "num_rounds"),
    "rounds in words": (lambda s, c: s["workflows"][0]["args"].update(num_rounds="3"),
        "num_rounds"),
    "text for a list": (lambda s, c: c.update(components="none"), "components"),
    "a component without a name": (lambda s, c: c.update(components=[{"id": "x"}]), "neither path"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_counterpart_is_refused_and_nothing_is_written(
    tmp_path: Path, what: str
) -> None:
    change, said = REFUSED[what]
    server, client = changed(change)
    source = write_app(tmp_path / "app", server=server, client=client)
    with pytest.raises(PlanError, match=said) as caught:
        import_app(source)
    assert caught.value.code == "import-refused" and "Nothing was written" in caught.value.happened
    assert not (tmp_path / "app-hansa").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, {}), ({"order": "FIXED"}, {}), ({"order": "RANDOM"}, {"order": "random"}),
    ],
)  # fmt: skip
def test_the_order_of_a_cyclic_workflow_is_taken_over(
    tmp_path: Path, asked: dict[str, str], told: dict[str, str]
) -> None:
    server = server_config("CyclicController", num_rounds=2, **asked)
    made = import_app(write_app(tmp_path / "app", server=server)).folder
    plan = tomllib.loads((made / "plan.toml").read_text())
    assert plan["workflow"] == {"name": "cyclic", "cycles": 2, **told}


@pytest.mark.parametrize("text", ["{", "[]", '{"a": ' * 100_000, "\x00"])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    source = write_app(tmp_path / "app")
    (source / "config" / "config_fed_client.json").write_text(text)
    with pytest.raises(PlanError) as caught:
        read_app(source)
    assert caught.value.code == "import-refused"


def test_values_of_the_first_level_stand_in_for_their_names(tmp_path: Path) -> None:
    server = server_config() | {"rounds": 7}
    server["workflows"][0]["args"]["num_rounds"] = "{rounds}"
    app = read_app(write_app(tmp_path / "app", server=server))
    assert app.server["workflows"][0]["args"]["num_rounds"] == 7
    assert (app.name, app.meta, app.log_levels) == ("app", {}, {})


def test_a_job_with_an_app_for_the_server_and_like_ones_for_clients_is_one_project(
    tmp_path: Path,
) -> None:
    """As FLARE's job API writes it for named clients."""
    job = tmp_path / "job"
    for name in ("app_server", "app_site-1", "app_site-2"):
        app = write_app(job / name, client=client_config(delta=2.5))
        own = "config_fed_client.json" if name == "app_server" else "config_fed_server.json"
        (app / "config" / own).unlink()
        (app / "custom" / ("np_trainer.py" if name == "app_server" else "np_model_persistor.py")
         ).unlink()  # fmt: skip
    deployed = {"app_server": ["server"], "app_site-1": ["site-1"], "app_site-2": ["site-2"]}
    (job / "meta.json").write_text(json.dumps({"name": "job", "deploy_map": deployed}))
    made = import_app(job).folder
    assert {p.relative_to(made / "apps").as_posix() for p in made.glob("apps/*/custom/np_*")} == {
        "app_server/custom/np_model_persistor.py", "app_site-1/custom/np_trainer.py",
    }  # fmt: skip
    assert '"delta": 2.5' in (made / "model.py").read_text()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("num_rounds", "2.5", "2.5"), ("num_rounds", "NaN", "no number"), ("min_clients", "0", "is 0"),
     ("train_timeout", "Infinity", "no number"), ("train_timeout", "-1", "is -1"),
     ("num_rounds", "1e400", "inf"), ("train_task_name", '"\\ud800"', "cannot be read"),
     ("note", "[" * 700 + "]" * 700, "too deeply|recursion")],
)  # fmt: skip
def test_numbers_and_texts_that_cannot_be_are_refused_with_a_sentence(
    tmp_path: Path, key: str, value: str, said: str
) -> None:
    app = write_app(tmp_path / "app")
    path = app / "config" / "config_fed_server.json"
    table = json.loads(path.read_text())
    table["workflows"][0]["args"][key] = "HERE"
    path.write_text(json.dumps(table).replace('"HERE"', value))
    with pytest.raises(PlanError, match=said):
        import_app(app)


def test_a_null_among_arguments_is_none_and_no_text(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", client=client_config(delta=None, names=[None, True, 0.5]))
    text = (import_app(app).folder / "model.py").read_text()
    assert '"delta": None' in text and '"names": [None, True, 0.5]' in text


def test_train_timeout_and_clients_reach_the_plan(tmp_path: Path) -> None:
    source = write_app(tmp_path / "app", server=server_config(train_timeout=90, min_clients=1))
    plan = tomllib.loads((import_app(source, clients=5).folder / "plan.toml").read_text())
    assert (
        plan["cohort"] == {"minimum": 1, "grace_s": 10.0, "deadline_s": 90.0}
        and plan["data"]["clients"] == 5
    )


def test_a_reply_a_dxo_and_a_learnable_are_what_code_expects() -> None:
    reply = exchange.make_reply(ReturnCode.TASK_ABORTED)
    assert reply.get_return_code() == "TASK_ABORTED"
    assert exchange.Shareable().get_return_code() == "OK"
    reply.add_cookie("a", 1)
    assert reply.get_cookie("a") == 1 and reply.get_cookie("b", 2) == 2
    dxo = exchange.DXO("WEIGHTS", {"w": 1}, {"NUM_STEPS_CURRENT_ROUND": 3})
    back = exchange.from_shareable(dxo.to_shareable())
    assert (back.data_kind, back.data, back.get_meta_prop("NUM_STEPS_CURRENT_ROUND")) == (
        "WEIGHTS", {"w": 1}, 3,
    )  # fmt: skip
    with pytest.raises(ValueError, match="no DXO"):
        exchange.from_shareable(reply)
    with pytest.raises(ValueError, match="dict"):
        exchange.DXO("WEIGHTS", [1])  # type: ignore[arg-type]
    for refuse in (reply.to_bytes, dxo.to_bytes, exchange.Learnable().to_bytes):
        with pytest.raises(NotImplementedError, match="pickle"):
            refuse()
    learnable = exchange.make_model_learnable({"w": 1}, None)
    assert exchange.model_learnable_to_dxo(learnable).data == {"w": 1}
    with pytest.raises(ValueError, match="lacks"):
        exchange.model_learnable_to_dxo(exchange.ModelLearnable())


def test_short_names_lead_to_classes() -> None:
    assert place_of("NPTrainer") == "nvflare.app_common.np.np_trainer.NPTrainer"
    assert place_of("Nobody") is None and not is_there("nvflare.apis.dxo.Nobody")
    assert all(part == "nvflare" or part.rpartition(".")[0] in PARTS for part in PARTS)


@pytest.mark.parametrize(
    "name", ["../server.npy", "/x.npy", "run.json", "models/a.safetensors", ""]
)
def test_a_numpy_file_lies_in_the_run_folder(name: str) -> None:
    with pytest.raises(PlanError, match="as_numpy"):
        check_plan(read_plan({"keep": {"as_numpy": name}}).plan)


def test_a_numpy_file_holds_one_tensor_or_all(tmp_path: Path) -> None:
    two = Params.of({"w": np.array([1.5, -2.0]), "n": np.array(3)})
    write_numpy(tmp_path / "all.npz", two)
    with np.load(tmp_path / "all.npz", allow_pickle=False) as found:
        assert found["w"].tolist() == [1.5, -2.0] and int(found["n"]) == 3
    with pytest.raises(PlanError, match="2 tensors"):
        write_numpy(tmp_path / "one.npy", two)


def test_what_no_app_brings_and_is_not_installed_is_told_at_the_import(tmp_path: Path) -> None:
    """Said before, but only round by round, when the clients' process could not import it."""
    client = client_config()
    client["executors"].append(
        {"tasks": ["other"], "executor": {"path": "nonesuch.parts.Other", "args": {}}}
    )
    client["components"] = [
        {"id": "here", "path": "np_trainer.Another", "args": {}},
        {"id": "installed", "path": "json.JSONDecoder", "args": {}},
    ]
    filters = [{"path": "missing_filters.Noise", "args": {}}]
    client["task_result_filters"] = [{"tasks": ["train"], "filters": filters}]
    done = CliRunner().invoke(command, [str(write_app(tmp_path / "app", client=client))])
    assert done.exit_code == 0, done.output
    told = [line.split() for line in done.output.splitlines() if "not here" in line]
    assert [words[2] for words in told] == ["nonesuch.parts.Other:", "missing_filters.Noise:"]
    plain = CliRunner().invoke(command, [str(write_app(tmp_path / "plain"))])
    assert plain.exit_code == 0 and "not here" not in plain.output


@pytest.mark.parametrize("path", [".Trainer", "..a.B", "__main__.Trainer", "a..b", "x y.Z"])
def test_a_path_that_is_no_modules_is_told_as_not_here(tmp_path: Path, path: str) -> None:
    client = client_config()
    client["executors"].append({"tasks": ["other"], "executor": {"path": path, "args": {}}})
    done = CliRunner().invoke(command, [str(write_app(tmp_path / "app", client=client))])
    assert done.exit_code == 0, done.output
    assert f"not here     {path}:" in done.output
