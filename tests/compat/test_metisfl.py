"""The parts of `hansa.compat.metisfl` one by one; see test_metisfl_runs.py for the whole."""

from __future__ import annotations

import ast
import socket
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from site_cases import make_case

import hansa.compat.metisfl
from hansa.compat.metisfl import (
    Controller,
    ControllerConfig,
    Learner,
    ModelStoreConfig,
    ServerParams,
    TerminationSignals,
    iid_partition,
    present,
)
from hansa.compat.metisfl.config import check_config, check_signals
from hansa.compat.metisfl.environment import import_environment
from hansa.compat.metisfl.place import is_here, learner_name, place_at
from hansa.compat.metisfl.plan_text import Wanted, plan_text
from hansa.compat.metisfl.present import Settings, functions
from hansa.compat.metisfl.project import (
    HAND_OVER,
    MODULE,
    is_ours,
    module_text,
    write_project,
)
from hansa.compat.own_process import OwnProcess
from hansa.errors import DataError, LearnerError, PlanError
from hansa.learners.function import TrainContext
from hansa.plan import read_plan
from hansa.seeds import Key
from hansa.server.settings import load_settings
from hansa.site.policy import Policy
from hansa.site.settings import SiteSettings
from hansa.store.files import load_params

LIMIT_OF_CHI_SQUARE = 40.0  # of 9 * 3 cells' 18 degrees of freedom, exceeded once in 500


class Adder(Learner):
    """Adds a constant; says what it is told to say."""

    def __init__(self, *, returned: Any = None) -> None:
        self.returned, self.configs = returned, []  # type: ignore[var-annotated]

    def get_weights(self) -> list[Any]:
        return [np.float32([1.0, -2.0]), np.float32(0.5)]

    def set_weights(self, parameters: list[Any]) -> None:
        raise AssertionError("train and evaluate are given the weights")

    def train(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        self.configs.append(config)
        if self.returned is not None:
            return self.returned
        return [np.float64(array) + 0.25 for array in parameters], {"loss": [3.0, 1.5]}

    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> dict[str, Any]:
        return {"first": float(parameters[0][0]), "name": "adder"}


def context(**values: Any) -> TrainContext:
    facts: dict[str, Any] = {"epochs": 1, "steps": None, "batch_size": 32, "lr": 0.5}
    return TrainContext(
        "learner-1", 1, **{**facts, **values}, options={}, rng=Key.root(1).generator()
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(present._Here, "learner", None)
    monkeypatch.setattr(present._Here, "first", None)


def trained(learner: Learner, settings: Settings, ctx: TrainContext) -> Any:
    present.bring(learner)
    text = module_text(settings)
    assert is_ours({MODULE: text.encode()})
    data, init, train, _ = functions(_said(settings))
    params = dict(zip("ab", init(None, None), strict=True))
    return train(params, data("learner-1")["train"], ctx)


def _said(settings: Settings) -> str:
    import msgspec

    return msgspec.json.encode(settings).decode()


# ---- the partition


def test_parts_have_every_row_once_and_sizes_that_differ_by_at_most_one() -> None:
    x = np.arange(3 * 1000 + 2)
    parts, labels = iid_partition(x, -x, num_partitions=3, seed=1990)
    assert [len(part) for part in parts] == [1001, 1001, 1000]
    assert sorted(np.concatenate(parts)) == list(x)
    assert all(np.array_equal(part, -label) for part, label in zip(parts, labels, strict=True))


def test_a_seed_is_a_partition() -> None:
    x = np.arange(300)
    first, again, other = (iid_partition(x, x, 3, seed=s)[0] for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_classes_of_a_sorted_set_are_spread_as_chance_does() -> None:
    y = np.repeat(np.arange(10), 300)
    _, labels = iid_partition(y, y, num_partitions=3, seed=1990)
    counts = np.array([np.bincount(part, minlength=10) for part in labels])
    assert ((counts - 100.0) ** 2 / 100.0).sum() < LIMIT_OF_CHI_SQUARE
    assert (counts != 100).any()  # dealt by chance, not counted out


@pytest.mark.parametrize(("labels", "parts"), [(4, 2), (5, 6), (5, 0)])
def test_what_cannot_be_divided_is_refused(labels: int, parts: int) -> None:
    with pytest.raises(DataError):
        iid_partition(np.arange(5), np.arange(labels), parts)


# ---- the learner's methods


def test_examples_are_what_the_learner_says_first_in_metadata(here: None) -> None:
    weights = [np.float32([0.0, 0.0]), np.float32(1.0)]
    learner = Adder(returned=(weights, {}, {"num_training_examples": 70}))
    learner.x_train = [0] * 9  # type: ignore[attr-defined]
    ctx = context()
    trained(learner, Settings("NumTrainingExamples"), ctx)
    assert ctx.weight == 70.0
    learner.returned, ctx = (weights, {}), context()
    trained(learner, Settings("NumTrainingExamples"), ctx)
    assert ctx.weight == 9.0


def test_completed_batches_weigh(here: None) -> None:
    weights = [np.float32([0.0, 0.0]), np.float32(1.0)]
    ctx = context()
    learner = Adder(returned=(weights, {}, {"num_completed_batches": 12}))
    trained(learner, Settings("NumCompletedBatches"), ctx)
    assert ctx.weight == 12.0
    with pytest.raises(LearnerError, match="num_completed_batches") as raised:
        trained(Adder(returned=(weights, {})), Settings("NumCompletedBatches"), context())
    assert raised.value.code == "learner-metrics"


def test_a_learner_that_says_zero_examples_does_not_weigh_the_length_of_its_data(
    here: None,
) -> None:
    weights = [np.float32([0.0, 0.0]), np.float32(1.0)]
    learner = Adder(returned=(weights, {}, {"num_training_examples": 0}))
    learner.x_train = np.zeros((40, 2))  # type: ignore[attr-defined]
    ctx = context()
    trained(learner, Settings("NumTrainingExamples"), ctx)
    assert ctx.weight == 0.0  # which the round refuses


def test_arrays_keep_their_dtype_and_a_history_ends_in_its_last_value(here: None) -> None:
    learner = Adder()
    learner.num_training_examples = 8  # type: ignore[attr-defined]
    arrays, metrics = trained(learner, Settings("NumTrainingExamples"), context())
    assert [a.dtype for a in arrays] == [np.float32, np.float32]
    assert arrays[0].tolist() == [1.25, -1.75] and arrays[1] == 0.75
    assert {n: (m.total, m.weight) for n, m in metrics.items()} == {"loss": (12.0, 8.0)}


def test_steps_are_told_when_the_scheduler_counts_them(here: None) -> None:
    learner = Adder()
    for steps in (True, False):
        settings = Settings("NumParticipants", {"batch_size": 64}, steps)
        trained(learner, settings, context(steps=17))
    assert learner.configs == [{"batch_size": 64, "num_local_updates": 17}, {"batch_size": 64}]


@pytest.mark.parametrize("returned", [3, ([1.0],), ("w", {}), ([np.zeros(2)], {}), ([1], "loss")])
def test_what_is_no_result_is_refused(here: None, returned: Any) -> None:
    with pytest.raises(LearnerError) as raised:
        trained(Adder(returned=returned), Settings("NumParticipants"), context())
    assert raised.value.code == "learner-params"


# ---- the worker in the learner's process


def package(tmp_path: Path, extra: str = "") -> Path:
    config, signals = ControllerConfig(scaling_factor="NumParticipants"), TerminationSignals(2)
    wanted = Wanted(config, ModelStoreConfig(), signals, 1)
    write_project(tmp_path / "code", plan_text(wanted), Settings("NumParticipants"))
    with open(tmp_path / "code" / MODULE, "a") as file:
        file.write(extra)
    return tmp_path / "code"


def own_process(tmp_path: Path) -> OwnProcess:
    (tmp_path / "site").mkdir()
    policy = Policy(submitters=("admin",), approve="submitters", sandbox="none")
    settings = SiteSettings(name="learner-1", policy=policy)
    return OwnProcess(tmp_path / "site", settings, hand_over=HAND_OVER)


def test_a_task_is_done_by_the_learner_of_this_process(here: None, tmp_path: Path) -> None:
    present.bring(Adder())
    case, workers = make_case(package(tmp_path)), own_process(tmp_path)
    result = workers.train(case.offer, case.package, 1, case.message, tmp_path / "update")
    assert result.state == "done", result.reason
    (delta,) = load_params(tmp_path / "update").to_dict().values()
    assert delta.tolist() == [0.25, 0.25, 0.25]
    result = workers.evaluate(case.offer, case.package, 1, case.message)
    assert result.metrics == {"first": (1.0, 1.0)}
    workers.close_all()


def test_a_failing_learner_is_a_result_and_the_next_task_works(here: None, tmp_path: Path) -> None:
    learner = Adder(returned=(1, 2, 3, 4))
    present.bring(learner)
    case, workers = make_case(package(tmp_path)), own_process(tmp_path)
    result = workers.train(case.offer, case.package, 1, case.message, tmp_path / "update")
    assert (result.state, result.code) == ("failed", "learner-params")
    learner.returned = None
    result = workers.train(case.offer, case.package, 2, case.message, tmp_path / "update")
    assert result.state == "done", result.reason
    workers.close_all()


def test_other_code_is_refused_before_it_is_imported(here: None, tmp_path: Path) -> None:
    present.bring(Adder())
    folder = package(tmp_path)
    case, workers = make_case(folder), own_process(tmp_path)
    mark = tmp_path / "imported"
    with open(folder / MODULE, "a") as file:
        file.write(f"open({str(mark)!r}, 'w')\n")
    result = workers.train(case.offer, case.package, 1, case.message, tmp_path / "update")
    assert (result.state, result.code) == ("failed", "site-request")
    assert not mark.exists()
    workers.close_all()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "import os\n",
        lambda text: text.replace("functions('", "functions(print() or '"),
        lambda text: text.replace("import functions", "import functions as functions"),
        lambda text: "",
    ],
)
def test_only_the_very_bytes_are_ours(change: Any) -> None:
    text = module_text(Settings("NumParticipants"))
    assert is_ours({MODULE: text.encode()})
    assert not is_ours({MODULE: change(text).encode()})
    assert not is_ours({MODULE: text.encode(), "other.py": b""})


# ---- configuration


def test_a_plan_says_all_that_was_configured() -> None:
    config = ControllerConfig(
        "FedStride", "SemiSynchronous", "NumCompletedBatches", 0.5, semi_sync_lambda=2.5,
        semi_sync_recompute_num_updates=True,
    )  # fmt: skip
    signals = TerminationSignals(7, 30.0, 'a"b\nc', 0.9)
    wanted = Wanted(config, ModelStoreConfig(lineage_length=2), signals, 6, {"batch_size": 16})
    plan = read_plan(tomllib.loads(plan_text(wanted))).plan
    workflow = {"name": "semi_synchronous", "multiple": 2.5, "remeasure": True}
    assert (plan.rounds, plan.workflow, plan.weighting) == (7, workflow, "user")
    assert (plan.cohort.fraction, plan.cohort.minimum) == (0.5, 2)
    assert (plan.stop.minutes, plan.stop.metric, plan.stop.target) == (30.0, 'a"b\nc', 0.9)
    assert plan.stop.over == "clients"
    assert (plan.keep.every, plan.keep.lineage, plan.learner.batch_size) == (0, 2, 16)
    assert (plan.keep.store, plan.keep.clients) == ("disk", None)


def test_a_scheduler_may_have_the_name_of_another_generation() -> None:
    config = ControllerConfig(communication_protocol="SemiSynchronous")
    assert config.scheduler == "SemiSynchronous"
    assert msgspec.json.decode(msgspec.json.encode(config), type=ControllerConfig) == config
    with pytest.raises(PlanError, match="scheduler"):
        check_config(ControllerConfig(communication_protocol="Sync"), ModelStoreConfig())


def test_a_store_of_its_own_has_learners_models_too() -> None:
    store = ModelStoreConfig("Redis", 3, "store.example.org", 6380)
    wanted = Wanted(ControllerConfig(), store, TerminationSignals(1), 2)
    keep = read_plan(tomllib.loads(plan_text(wanted))).plan.keep
    assert (keep.store, keep.lineage, keep.clients, keep.every) == ("redis", 3, 3, 0)
    assert store.redis == "redis://store.example.org:6380/0" and ModelStoreConfig().redis == ""


@pytest.mark.parametrize("rule", ["FedAvg", "FedStride", "FedRec"])
def test_every_rule_of_an_asynchronous_controller_is_fed_rec(rule: str) -> None:
    """Its rules all take every learner's latest model, whatever they are called."""
    config = ControllerConfig(rule, "Asynchronous", "NumParticipants", stride_length=2)
    check_config(config, ModelStoreConfig())
    wanted = Wanted(config, ModelStoreConfig(), TerminationSignals(9), 6)
    plan = read_plan(tomllib.loads(plan_text(wanted))).plan
    assert plan.workflow == {"name": "asynchronous", "rule": "fed_rec"}
    assert (plan.rounds, plan.weighting, plan.cohort.minimum) == (9, "uniform", 1)


def test_fed_rec_of_a_synchronous_controller_is_the_mean_of_the_round() -> None:
    check_config(config := ControllerConfig("FedRec"), ModelStoreConfig())
    text = plan_text(Wanted(config, ModelStoreConfig(), TerminationSignals(9), 6))
    plan = read_plan(tomllib.loads(text)).plan
    assert (plan.workflow, plan.aggregator) == ("synchronous", "mean")


@pytest.mark.parametrize(
    ("config", "store", "code"),
    [
        ({"scheduler": "Eventually"}, {}, "plan-bad-value"),
        ({"aggregation_rule": "SecAgg"}, {}, "plan-impossible"),
        ({"aggregation_rule": "FedAverage"}, {}, "plan-bad-value"),
        ({"participation_ratio": 0.0}, {}, "plan-bad-value"),
        ({"semi_sync_lambda": -1.0}, {}, "plan-bad-value"),
        ({}, {"model_store": "Mongo"}, "plan-bad-value"),
        ({}, {"lineage_length": -1}, "plan-bad-value"),
    ],
)
def test_what_hansa_does_not_do_is_refused(config: Any, store: Any, code: str) -> None:
    with pytest.raises(PlanError) as raised:
        check_config(ControllerConfig(**config), ModelStoreConfig(**store))
    assert raised.value.code == code


@pytest.mark.parametrize(
    "signals",
    [
        {},
        {"federation_rounds": 0},
        {"execution_cutoff_time_mins": 0},
        {"evaluation_metric_cutoff_score": 0.5},
    ],
)
def test_signals_that_never_come_are_refused(signals: Any) -> None:
    with pytest.raises(PlanError):
        check_signals(TerminationSignals(**signals))


def test_learners_of_two_hosts_have_two_names() -> None:
    hosts = ["localhost", "Node_1.example.org", "node-2.example.org"]
    names = [learner_name(ServerParams(host, 50002)) for host in hosts]
    assert names == ["learner-50002", "learner-node-1.example.org-50002",
                     "learner-node-2.example.org-50002"]  # fmt: skip


def test_a_host_is_the_same_however_it_is_spelled() -> None:
    for spelled in ("LocalHost", "[::1]", "0.0.0.0"):
        assert learner_name(ServerParams(spelled, 50002)) == "learner-50002"
        assert place_at(ServerParams(spelled, 7)).url == "https://localhost:7"
    for spelled in ("FD00::2", "[fd00::2]"):
        place = place_at(ServerParams(spelled, 7))
        assert (place.folder.name, place.url) == ("fd00__2-7", "https://[fd00::2]:7")


NAMES = {"node-7.example.org": "127.0.0.1", "elsewhere.example.org": "203.0.113.7"}
"""Whose addresses are of this machine, and of nobody."""


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("NODE-7", True),
        ("node-7", True),
        ("Node-7.example.org", True),
        ("elsewhere.example.org", False),
        ("203.0.113.7", False),
        ("unknown.example.org", False),
        ("a..b", False),
    ],
)
def test_who_is_of_this_machine_is_known_by_whatever_name(
    monkeypatch: pytest.MonkeyPatch, host: str, here: bool
) -> None:
    real = socket.getaddrinfo

    def known(name: str, *words: Any, **more: Any) -> Any:
        if name == "unknown.example.org":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(NAMES.get(name, name), *words, **more)

    monkeypatch.setattr(socket, "gethostname", lambda: "Node-7")
    monkeypatch.setattr(socket, "getaddrinfo", known)
    assert is_here(ServerParams(host, 50051)) is here


@pytest.mark.parametrize(
    ("host", "listens"),
    [
        ("localhost", "127.0.0.1"),
        ("192.0.2.2", "192.0.2.2"),
        ("[fd00::2]", "fd00::2"),
        ("Node-7.example.org", "0.0.0.0"),
    ],
)
def test_a_controller_listens_where_a_server_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, listens: str
) -> None:
    """A name is none of a socket's addresses, and this machine's own may stand for loopback."""
    monkeypatch.setenv("HANSA_HOME", str(tmp_path))
    controller = Controller(ServerParams(host, 50051))
    place = place_at(controller.server_params)
    controller._found(place)
    settings = load_settings(place.server)
    assert (settings.host, settings.url) == (listens, place.url)


# ---- the environment file

ENVIRONMENT = """
FederationEnvironment:
  DockerImage: some/image
  TerminationSignals: {FederationRounds: 4, MetricCutoffScore: 0.99}
  EvaluationMetric: accuracy
  CommunicationProtocol: {Name: SemiSynchronous, SemiSyncLambda: 2, EnableSSL: false}
  ModelStoreConfig: {ModelStore: InMemory, LineageLength: 1}
  GlobalModelConfig: {AggregationRule: FedStride, ScalingFactor: NumTrainingExamples}
  LocalModelConfig: {BatchSize: 32, LocalEpochs: 2}
  Controller:
    ConnectionConfig: {Hostname: a, Username: ana, Password: hunter2}
    GRPCServer: {Hostname: localhost, Port: 50051}
  Learners:
    - ConnectionConfig: {Hostname: a, Username: ana, Password: hunter2}
      GRPCServer: {Hostname: localhost, Port: 50052}
    - GRPCServer: {Hostname: localhost, Port: 50053}
"""


def test_an_environment_becomes_a_project(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "env.yaml").write_text(ENVIRONMENT)
    found = import_environment(tmp_path / "env.yaml", tmp_path / "study")
    assert found.left[:2] == ["DockerImage", "CommunicationProtocol.EnableSSL"]
    texts = {path.name: path.read_text() for path in (tmp_path / "study").iterdir()}
    assert set(texts) == {"README.md", "plan.toml", MODULE, "controller.py", "driver.py"}
    assert not any("hunter2" in text or "ana" in text.split() for text in texts.values())
    plan = read_plan(tomllib.loads(texts["plan.toml"])).plan
    assert (plan.rounds, plan.learner.epochs, plan.cohort.minimum) == (4, 2, 1)
    for name in ("controller.py", "driver.py"):
        compile(texts[name], name, "exec")
    assert "`plan.toml` is to look at." in texts["README.md"]  # the driver makes its own


@pytest.mark.parametrize(
    "change",
    [
        ("Name: SemiSynchronous", "Name: Eventually"),
        ("FederationRounds: 4", "FederationRounds: many"),
        ("FederationRounds: 4", "FederationRounds: .nan"),
        ("FederationRounds: 4", "FederationRounds: .inf"),
        ("Port: 50053", "Port: 50052"),
        ("Port: 50053", "Port: text"),
        ("  Learners:", "  Nobody:"),
        ("FederationEnvironment:", "- ["),
        ("image", "image\n  Bomb: !!python/object/apply:os.system [true]"),
    ],
)
def test_a_file_that_cannot_be_taken_over_writes_nothing(
    tmp_path: Path, change: tuple[str, str]
) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "env.yaml").write_text(ENVIRONMENT.replace(*change))
    with pytest.raises(PlanError):
        import_environment(tmp_path / "env.yaml", tmp_path / "study")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("login", ["ConnectionConfig", "ConnectionConfigs"])
def test_a_host_may_be_named_at_its_login_alone(tmp_path: Path, login: str) -> None:
    pytest.importorskip("yaml")
    one = f"{{{login}: {{Hostname: Far.example.org}}, GRPCServicer: {{Port: 50052}}}}"
    text = f"TerminationSignals: {{FederationRounds: 2}}\nController: {one}\nLearners: [{one}]\n"
    (tmp_path / "env.yaml").write_text(text)
    found = import_environment(tmp_path / "env.yaml", tmp_path / "study")
    assert [(p.hostname, p.port) for p in found.learners] == [("Far.example.org", 50052)]


def test_without_pyyaml_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(PlanError, match="PyYAML"):
        import_environment(tmp_path / "env.yaml", tmp_path / "study")


@pytest.mark.parametrize("name", ["controller.py", "driver.py", "learner.py"])
def test_the_example_names_only_what_there_is(name: str) -> None:
    folder = Path(__file__).resolve().parents[2] / "examples" / "metisfl"
    tree = ast.parse((folder / name).read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "hansa.compat.metisfl"
        for alias in node.names
    }
    assert imported and imported <= set(hansa.compat.metisfl.__all__)


def test_a_plan_that_names_a_command_runs_nothing_in_a_learner_s_process(
    here: None, tmp_path: Path
) -> None:
    """The code is to the byte what the driver writes, and the plan would run a line of a shell."""
    present.bring(Adder())
    case, workers = make_case(package(tmp_path)), own_process(tmp_path)
    mark = tmp_path / "run"
    learner = {**case.offer.plan["learner"], "kind": "command", "train": ["touch", str(mark)]}
    offer = msgspec.structs.replace(case.offer, plan={**case.offer.plan, "learner": learner})
    result = workers.train(offer, case.package, 1, case.message, tmp_path / "update")
    assert (result.state, result.code) == ("failed", "site-request"), result.reason
    assert "something else to run" in result.reason and not mark.exists()
    workers.close_all()
