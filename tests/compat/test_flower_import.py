"""What `hansa import flower` takes from where; nothing of the Flower project is executed."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from flower_projects import PYPROJECT, SERVER, message_project, older_project, write

from hansa.cli.import_flower import flower as command
from hansa.compat import stand_in
from hansa.compat.flower.records import (
    Array,
    ArrayRecord,
    ConfigRecord,
    MetricRecord,
    RecordDict,
)
from hansa.compat.flower.strategies import COUNTERPARTS, WITHOUT, counterpart
from hansa.compat.flower.writing import Import, import_project
from hansa.errors import PlanError
from hansa.plan import build_method, read_plan


def plan_of(folder: Path) -> dict:
    return tomllib.loads((folder / "plan.toml").read_text())


def serving(call: str, module: str = "flwr.server.strategy", before: str = "") -> str:
    """Return an older server app that uses a server class in this way."""
    name = call.partition("(")[0]
    return (
        f"from {module} import {name}\nfrom flwr.server import ServerAppComponents\n{before}\n"
        f"def server_fn(context):\n    return ServerAppComponents(strategy={call})\n"
    )


def test_files_are_copied_unchanged_and_nothing_is_executed(tmp_path):
    source = message_project(tmp_path / "flower")  # its server app ends the process when executed
    (source / "rows.csv").write_text("a,b\n")
    done = CliRunner().invoke(command, [str(source), "--to", str(tmp_path / "mine")])
    assert done.exit_code == 0, done.output
    for path in source.rglob("*.py"):
        assert (tmp_path / "mine" / path.relative_to(source)).read_bytes() == path.read_bytes()
    assert "rows.csv" in done.output and not (tmp_path / "mine" / "rows.csv").exists()
    plan = plan_of(tmp_path / "mine")
    assert (plan["rounds"], plan["data"]["clients"], plan["weighting"]) == (2, 3, "user")
    assert plan["learner"]["epochs"] == 1 and plan["learner"]["optimizer"] == {"lr": 0.5}
    assert plan["stop"]["metric"] == "eval_acc"
    text = (tmp_path / "mine" / "plan.toml").read_text()
    assert "num-server-rounds in pyproject.toml" in text and "server_app.py, line" in text


@pytest.mark.parametrize(
    ("config", "rounds", "place"),
    [
        ("ServerConfig(num_rounds=25)", 25, "server_app.py, line 3"),
        ("ServerConfig(7)", 7, "server_app.py, line 3"),
        ('ServerConfig(int(context.run_config["num-server-rounds"]))', 2, "pyproject.toml"),
        ('ServerConfig(context.run_config.get("rounds", 9))', 9, "server_app.py, line 3"),
        ("ServerConfig(num_rounds=measured())", 2, "pyproject.toml"),
    ],
)
def test_rounds_are_those_that_the_server_app_asks_for(tmp_path, config, rounds, place):
    text = f"def server_fn(context):\n    return ServerAppComponents(config={config})\n"
    server = "from flwr.server.strategy import FedAvg\n" + text + "strategy = FedAvg()\n"
    made = import_project(Import(older_project(tmp_path / "flower", server=server))).folder
    assert plan_of(made)["rounds"] == rounds
    said = next(row for row in (made / "plan.toml").read_text().splitlines() if "rounds" in row)
    assert said.endswith(place), said


def test_settings_of_messages_follow_the_plan_where_run_config_did(tmp_path):
    made = import_project(Import(message_project(tmp_path / "flower"))).folder
    call = next(n for n in ast.walk(ast.parse((made / "model.py").read_text()))
                if isinstance(n, ast.Call))  # fmt: skip
    told = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    assert told["train_config"] == {"lr": 0.5}
    assert told["from_plan"]["lr"] == told["from_plan"]["learning-rate"] == "lr"
    assert told["model"] == "hansa_seed:initial"
    seed = (made / "hansa_seed.py").read_text()
    assert "from tiny.task import make" in seed and "return arrays" in seed
    assert "ArrayRecord" not in seed and "strategy" not in seed


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_what_exists_is_never_written_over(tmp_path, there):
    source, target = older_project(tmp_path / "flower"), tmp_path / "mine"
    if there == "folder":
        target.mkdir()
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PlanError) as caught:
        import_project(Import(source, target))
    assert caught.value.code == "project-exists"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", sorted(COUNTERPARTS))
@pytest.mark.parametrize("older", [True, False])
def test_every_counterpart_is_a_method_that_can_be_built(name, older):
    chosen = counterpart(name, {}, older=older)
    plan = read_plan(
        {
            "algorithm": {"name": chosen.counterpart.algorithm, **chosen.options},
            "aggregator": {"name": chosen.counterpart.aggregator, **chosen.rule},
        }
    ).plan
    assert build_method(plan, lambda _: None).algorithm.name == chosen.counterpart.algorithm


@pytest.mark.parametrize(
    ("call", "algorithm", "aggregator"),
    [
        ("FedAvg(fraction_fit=0.5)", "fed_avg", None),
        ("FedAdam(eta=0.02, beta_2=0.9)",
         {"name": "fed_adam", "lr": 0.02, "beta1": 0.9, "beta2": 0.9, "tau": 1e-9}, None),
        ("FedAvgM(server_momentum=0.8)", {"name": "fed_avg_m", "lr": 1.0, "momentum": 0.8}, None),
        ("FedTrimmedAvg(beta=0.1)", "fed_avg", {"name": "trimmed_mean", "fraction": 0.1}),
        ("FedMedian()", "fed_avg", "median"),
        ("Krum(num_malicious_clients=1)", "fed_avg", {"name": "krum", "byzantine": 1}),
        ("Krum(num_malicious_clients=1, num_clients_to_keep=3)", "fed_avg",
         {"name": "multi_krum", "byzantine": 1, "keep": 3}),
    ],
)  # fmt: skip
def test_server_class_and_its_arguments_are_read(tmp_path, call, algorithm, aggregator):
    source = older_project(tmp_path / "flower", server=serving(call))
    plan = plan_of(import_project(Import(source)).folder)
    assert (plan["algorithm"], plan.get("aggregator")) == (algorithm, aggregator)
    if "fraction_fit" in call:
        assert plan["cohort"]["fraction"] == 0.5


NEWER = "flwr.serverapp.strategy"


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ('FedAvgM(server_momentum=TABLE["a"])', "server_momentum"),
        ('FedAvg(weighted_by_key=TABLE["key"])', "weighted_by_key"),
        ('FedAvg(fraction_train=TABLE["a"])', "fraction_train"),
        ("FedAvg(**TABLE)", r"\*\*"),
        ("FedAvg(*TABLE)", r"\*"),
        ("FedAdam(0.1)", "argument 1"),
    ],
)
def test_an_argument_that_decides_and_is_not_known_is_refused(tmp_path, call, where):
    """It was taken as Flower's default, and nothing said so."""
    source = older_project(tmp_path / "flower", server=serving(call, NEWER, 'TABLE = {"a": 0.9}'))
    with pytest.raises(PlanError, match=f"given as {where} is not known") as caught:
        import_project(Import(source))
    assert caught.value.code == "import-refused" and "server_app.py, line" in str(caught.value)


def test_arguments_without_a_name_are_those_of_their_places(tmp_path):
    call = 'FedProx(0.5, 0.0, 1, 1, 1, "tokens", "model", "told", None, None, 0.25)'
    source = older_project(tmp_path / "flower", server=serving(call, NEWER))
    made = import_project(Import(source, clients=8)).folder
    plan = plan_of(made)
    assert plan["cohort"] == {"fraction": 0.5, "minimum": 1} and plan["evaluate"]["clients"] == 0
    module = (made / "model.py").read_text()
    for said in ('weighted_by="tokens"', 'arrays_in="model"', 'config_in="told"', '-mu": 0.25'):
        assert said in module


def test_what_nothing_stands_for_is_said(tmp_path):
    call = "FedAvg(evaluate_fn=tried, accept_failures=True, initial_parameters=None, extra=2)"
    source = older_project(tmp_path / "flower", server=serving(call))
    facts = import_project(Import(source)).facts
    assert ("to add", "extra of FedAvg, evaluate_fn of FedAvg: not taken over") in facts
    call = serving("Bulyan(fraction_fit=0.1)")
    facts = import_project(
        Import(older_project(tmp_path / "other", server=call), strategy="FedAvg")
    ).facts
    assert ("to add", "fraction_fit of Bulyan: not taken over") in facts


@pytest.mark.parametrize(
    ("call", "cohort"),
    [
        ("FedAvg(fraction_train=0.1, min_train_nodes=10)", {"count": 10, "minimum": 10}),
        ("FedAvg(fraction_train=0.02)", {"count": 2}),
        ("FedAvg(fraction_train=0.33)", {"count": 6}),  # 6.6, which Flower cuts and Hansa rounds
        ("FedAvg(fraction_train=0.5, min_available_nodes=15)", {"fraction": 0.5, "minimum": 10}),
        ("FedAvg(min_available_nodes=4)", {"minimum": 4}),
        ("FedAvg(min_train_nodes=2)", {"minimum": 2}),
        ("FedAvg()", None),
    ],
)
def test_a_round_asks_as_many_clients_as_flower_would(tmp_path, call, cohort):
    source = older_project(tmp_path / "flower", server=serving(call, NEWER))
    assert plan_of(import_project(Import(source, clients=20)).folder).get("cohort") == cohort


@pytest.mark.parametrize(
    ("call", "cohort"),
    [
        ("FedAvg(fraction_fit=0.0, min_fit_clients=7)", {"count": 7, "minimum": 7}),
        ("FedAvg(fraction_fit=0.5, accept_failures=False)", {"fraction": 0.5, "minimum": 10}),
        ("FaultTolerantFedAvg(min_completion_rate_fit=0.3)", {"minimum": 6}),
    ],
)
def test_a_round_of_the_older_classes_asks_as_many(tmp_path, call, cohort):
    source = older_project(tmp_path / "flower", server=serving(call))
    assert plan_of(import_project(Import(source, clients=20)).folder).get("cohort") == cohort


def test_a_server_class_that_trains_nobody_is_refused(tmp_path):
    call = serving("FedAvg(fraction_train=0.0)", NEWER)
    with pytest.raises(PlanError, match="no client would train"):
        import_project(Import(older_project(tmp_path / "flower", server=call)))


def script_with(folder: Path, *options: str) -> Path:
    lines = [f"parser.add_argument({option})" for option in options]
    said = "\n".join(["def get_parameters(self, config): ...", *lines, "fl.start_client()"])
    return write(folder, {"client.py": said})


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (['"--num-clients"', '"--client-id"'],
         "--client-id {partition} --num-clients {partitions}"),
        (['"--num_partitions"', '"-p", "--partition"', '"--server"'],
         "--partition {partition} --num_partitions {partitions}"),
        (['"--client-lr"', '"--min-clients"', '"--cid"', '"--node-id", action="store_true"'],
         "--cid {partition}"),
        (['"--server-address"'], None),
    ],
)  # fmt: skip
def test_a_script_is_told_which_client_it_is_and_of_how_many(tmp_path, options, arguments):
    """The first option about clients was given the number: `--num-clients 0`."""
    source = script_with(tmp_path / "flower", *options)
    made = import_project(Import(source, client="client.py")).folder
    text = (made / "model.py").read_text()
    assert (f'arguments="{arguments}"' in text) if arguments else ("arguments" not in text)


@pytest.mark.parametrize("options", [['"--num-clients"'], ['"--client-id"', '"--node-id"']])
def test_a_script_that_may_train_the_same_client_each_time_is_refused(tmp_path, options):
    source = script_with(tmp_path / "flower", *options)
    with pytest.raises(PlanError, match="all of them would train on the same data") as caught:
        import_project(Import(source, client="client.py"))
    assert "--arguments" in str(caught.value.hint)
    words = [str(source), "--client", "client.py", "--arguments", "--rank {partition}"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert 'arguments="--rank {partition}"' in (tmp_path / "flower-hansa/model.py").read_text()


def test_the_class_that_is_chosen_among_several_keeps_its_arguments(tmp_path):
    server = (
        "from flwr.server.strategy import FedAdam, FedAvg\nfast = False\n"
        "def make():\n    if fast:\n        return FedAvg(fraction_fit=0.25)\n"
        "    return FedAdam(eta=0.02, beta_1=0.8, tau=0.001, fraction_fit=0.5)\n"
    )
    source = older_project(tmp_path / "flower", server=server)
    with pytest.raises(PlanError, match="more than one"):
        import_project(Import(source))
    plan = plan_of(import_project(Import(source, strategy="FedAdam")).folder)
    assert plan["algorithm"] == {
        "name": "fed_adam", "lr": 0.02, "beta1": 0.8, "beta2": 0.99, "tau": 0.001,
    }  # fmt: skip
    assert plan["cohort"]["fraction"] == 0.5


def test_proximal_mu_is_sent_to_the_client_whose_code_uses_it(tmp_path):
    source = older_project(tmp_path / "flower", server=serving("FedProx(proximal_mu=0.3)"))
    made = import_project(Import(source)).folder
    assert plan_of(made)["algorithm"] == "fed_avg"
    assert '"proximal_mu": 0.3' in (made / "model.py").read_text()


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_what_has_no_counterpart_is_refused_and_can_be_replaced(tmp_path, name):
    source = older_project(tmp_path / "flower", server=serving(f"{name}()"))
    with pytest.raises(PlanError, match=name) as caught:
        import_project(Import(source))
    assert caught.value.code == "import-refused"
    assert not (tmp_path / "flower-hansa").exists()
    assert plan_of(import_project(Import(source, strategy="FedAvg")).folder)["rounds"] == 2


@pytest.mark.parametrize(
    ("server", "says"),
    [
        (serving("Mine()").replace("import Mine", "import FedAvg")
         .replace("def server_fn", "class Mine(FedAvg): pass\ndef server_fn"), "own server class"),
        (serving("FedAvg()") + serving("FedMedian()").replace("server_fn", "other"), "more than"),
        ("app = 3", "none of Flower's server classes"),
        ("def broken(:", "cannot be read as Python"),
    ],
)  # fmt: skip
def test_a_server_app_that_is_not_understood_is_refused(tmp_path, server, says):
    with pytest.raises(PlanError, match=says):
        import_project(Import(older_project(tmp_path / "flower", server=server)))


def test_initial_arrays_made_in_a_loop_are_refused_and_can_be_named(tmp_path):
    looped = SERVER.replace(
        "    model = make(float(1))\n", "    for start in range(2):\n        model = make(start)\n"
    )
    source = message_project(tmp_path / "flower", server=looped)
    with pytest.raises(PlanError, match=r"--model my_package\.task"):
        import_project(Import(source))
    made = import_project(Import(source, model="tiny.task:make")).folder
    assert 'model="tiny.task:make"' in (made / "model.py").read_text()


@pytest.mark.parametrize(
    ("pyproject", "says"),
    [("", "names no client app"), ("[tool", "cannot be read"), (PYPROJECT, "has no file for")],
)
def test_a_folder_that_is_no_flower_project_is_refused(tmp_path, pyproject, says):
    source = write(tmp_path / "flower", {"pyproject.toml": pyproject})
    with pytest.raises(PlanError, match=says):
        import_project(Import(source))
    with pytest.raises(PlanError, match="There is no folder"):
        import_project(Import(tmp_path / "nowhere"))


def test_a_project_with_a_model_file_of_its_own_keeps_it(tmp_path):
    source = older_project(tmp_path / "flower")
    (source / "model.py").write_text("class Net: pass\n")
    made = import_project(Import(source)).folder
    assert plan_of(made)["learner"]["module"] == "hansa_model.py"
    assert (made / "model.py").read_text() == "class Net: pass\n"


@pytest.mark.parametrize(
    "array",
    [np.array([[1.5, -2.0]], np.float16), np.array(7), np.zeros((0, 3), np.int8), np.array([True])],
)
def test_arrays_keep_dtype_and_shape(array):
    back = Array(array).numpy()
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array)
    assert [a.dtype for a in ArrayRecord([array]).to_numpy_ndarrays()] == [array.dtype]


def test_an_array_of_objects_is_refused_both_ways():
    with pytest.raises(ValueError, match=r"[Pp]ickle|[Oo]bject"):
        Array(np.array([object()]))
    with pytest.raises(TypeError, match=r"only .numpy\.ndarray"):
        Array("float32", (1,), "pickle", b"x").numpy()


def test_records_hold_what_flower_lets_them_hold():
    with pytest.raises(TypeError):
        MetricRecord({"a": "text"})
    with pytest.raises(TypeError):
        MetricRecord({"a": True})
    with pytest.raises(TypeError):
        ConfigRecord({"a": [1, "b"]})
    with pytest.raises(TypeError):
        RecordDict({"a": {}})
    content = RecordDict({"m": MetricRecord({"a": 1.0}), "c": ConfigRecord({"b": [True]})})
    content.config_records["d"] = ConfigRecord()
    assert list(content.config_records) == ["c", "d"] and "d" in content
    assert "m" not in content.array_records


def test_torch_state_dict_comes_back_as_it_was():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    back = ArrayRecord(net.state_dict()).to_torch_state_dict()
    assert list(back) == list(net.state_dict())
    for name, tensor in net.state_dict().items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor)


def test_names_of_the_servers_side_can_be_used_and_do_nothing():
    server = stand_in._not_executed("ServerApp")
    app = server(server_fn=print)
    assert app.main()(test_records_hold_what_flower_lets_them_hold)
    assert issubclass(type("Mine", (stand_in._not_executed("FedAvg"),), {}), stand_in.NotExecuted)
    assert list(app.start(1, two=2)) == []
