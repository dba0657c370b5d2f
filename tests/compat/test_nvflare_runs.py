"""FLARE apps in a run, from `hansa import nvflare` to the model; the oracles are the table that
the tutorial's semantics give, and weighted means."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from flare_apps import (
    DELTAS,
    STEPS,
    TRAINER,
    UNEQUAL,
    W0,
    client_config,
    saved,
    server_config,
    write_app,
)
from projects import simulate

from hansa.compat.nvflare import FlareApp
from hansa.compat.nvflare.components import Signal
from hansa.compat.nvflare.engine import Engine
from hansa.compat.nvflare.writing import import_app
from hansa.dev import Rehearsal
from hansa.errors import LearnerError, RunError
from hansa.learners.function import TrainContext
from hansa.seeds import Key


def imported(source: Path, **asked: object) -> Path:
    return import_app(source, **asked).folder  # type: ignore[arg-type]


def executor(body: str, more: str = "") -> str:
    """Return a trainer whose `execute` is the body."""
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    return (
        "import threading\n"
        "from constants import KEY\n"
        "from nvflare.apis.dxo import DXO, DataKind, from_shareable\n"
        "from nvflare.apis.event_type import EventType\n"
        "from nvflare.apis.executor import Executor\n"
        "from nvflare.apis.fl_constant import ReturnCode\n"
        "from nvflare.apis.shareable import Shareable, make_reply\n\n\n"
        f"class NPTrainer(Executor):\n{more}"
        "    def execute(self, task_name, shareable, fl_ctx, abort_signal):\n"
        f"        site, dxo = fl_ctx.get_identity_name(), from_shareable(shareable)\n{lines}"
    )


@pytest.mark.parametrize("rounds", [3, 10])
def test_hello_numpy_gives_the_table_exactly_and_saves_it(tmp_path: Path, rounds: int) -> None:
    app = write_app(tmp_path / "hello", server=server_config(num_rounds=rounds))
    run = simulate(imported(app), "keep.every=1")
    for commit in run.commits():
        found = dict(run.load(commit)[0].items())["numpy_key"]
        assert found.dtype == np.float32 and np.array_equal(found, W0 + commit["round"])
    assert len(run.commits()) == rounds + 1
    assert saved(run).dtype == np.float32 and np.array_equal(saved(run), W0 + rounds)


def test_engines_and_a_rehearsed_federation_give_the_same_bytes(tmp_path: Path) -> None:
    app = write_app(tmp_path / "hello")
    runs = [
        simulate(imported(app, target=tmp_path / engine), engine=engine)
        for engine in ("inline", "processes")
    ]
    folder = imported(app, target=tmp_path / "rehearsed-project")
    with Rehearsal(tmp_path / "rehearsed", folder, sites=2) as rehearsal:
        runs.append(rehearsal.run())
    assert len({run.commits()[-1]["model"] for run in runs}) == 1
    assert all(np.array_equal(saved(run), W0 + 3) for run in runs)


@pytest.mark.parametrize("kind", ["WEIGHTS", "WEIGHT_DIFF"])
def test_weights_are_aggregation_weight_times_steps_above_and_below(
    tmp_path: Path, kind: str
) -> None:
    """Goal: sum w n x / sum w n.  Version 2.0.0 divided by sum n."""
    mine = {"site-1": 0.5, "site-2": 3.0}
    aggregator = {"expected_data_kind": kind, "aggregation_weights": mine}
    app = write_app(
        tmp_path / "app",
        UNEQUAL,
        server=server_config(min_clients=3, num_rounds=2, aggregator=aggregator),
        client=client_config(kind=kind),
    )
    weights = [mine.get(site, 1.0) * STEPS[site] for site in DELTAS]
    mean = np.average(list(DELTAS.values()), weights=weights)
    run = simulate(imported(app))
    assert saved(run).dtype == np.float32
    np.testing.assert_allclose(saved(run), W0 + 2 * mean, rtol=1e-6)


FAILING = {
    "raises": ("raise ValueError('no data here')", "ValueError: no data here"),
    "return code": ("return make_reply(ReturnCode.EXECUTION_EXCEPTION)", "EXECUTION_EXCEPTION"),
    "panic": ("self.system_panic('no scanner', fl_ctx)\nreturn Shareable()", "no scanner"),
    "nothing": ("return None", "no Shareable"),
    "unknown task": ("return make_reply(ReturnCode.TASK_UNKNOWN)", "TASK_UNKNOWN"),
    "no DXO": ("return Shareable()", "ValueError"),
    "wrong kind": ("return DXO('WEIGHT_DIFF', {KEY: 1.0}).to_shareable()", "WEIGHT_DIFF data"),
    "encrypted": (
        "return DXO('WEIGHTS', dxo.data, {'PROCESSED_ALGORITHM': 'HE'}).to_shareable()",
        "encrypted data",
    ),
    "objects": ("return DXO('WEIGHTS', {KEY: object()}).to_shareable()", "no tensor"),
}


@pytest.mark.parametrize("way", FAILING)
def test_a_client_that_fails_is_left_out_where_min_clients_are_met(
    tmp_path: Path, way: str
) -> None:
    """In FLARE one result that is not OK can end the run; here the minimum decides."""
    body, said = FAILING[way]
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    code = executor(
        f"if site == 'site-2':\n{indented}\ndxo.data[KEY] += 1\nreturn dxo.to_shareable()"
    )
    app = write_app(tmp_path / "app", code, server=server_config(min_clients=1, num_rounds=2))
    run = simulate(imported(app, clients=3))
    assert np.array_equal(saved(run), W0 + 2)
    trace = next((run.path / "failures").glob("*client-1*")).read_text()
    assert said in trace
    app = write_app(tmp_path / "strict", code, server=server_config(min_clients=3))
    with pytest.raises(RunError) as caught:
        simulate(imported(app))
    assert caught.value.code == "run-too-few"


def test_a_client_whose_process_dies_is_left_out_and_the_run_ends(tmp_path: Path) -> None:
    code = executor(
        "import os\nif site == 'site-2': os._exit(9)\ndxo.data[KEY] += 1\nreturn dxo.to_shareable()"
    )
    app = write_app(tmp_path / "app", code, server=server_config(min_clients=1, num_rounds=2))
    run = simulate(imported(app, clients=3))
    assert run.state == "finished" and np.array_equal(saved(run), W0 + 2)


def test_a_start_round_counts_on_from_there(tmp_path: Path) -> None:
    code = executor(
        "number = shareable.get_header('current_round')\n"
        "dxo.data[KEY] += number\nreturn dxo.to_shareable()"
    )
    app = write_app(tmp_path / "app", code, server=server_config(start_round=5, num_rounds=3))
    assert np.array_equal(saved(simulate(imported(app))), W0 + 5 + 6 + 7)


def test_cyclic_hands_the_model_from_site_to_site(tmp_path: Path) -> None:
    code = executor(
        "step = {'site-1': 1, 'site-2': 10}[site]\n"
        "dxo.data[KEY] = dxo.data[KEY] * 2 + step\n"
        "assert shareable.get_header('current_round') in (0, 1)\nreturn dxo.to_shareable()"
    )
    server = server_config("CyclicController", num_rounds=2)
    run = simulate(imported(write_app(tmp_path / "app", code, server=server)))
    expected = W0
    for step in (1, 10, 1, 10):
        expected = expected * 2 + step
    assert np.array_equal(saved(run), expected)


def test_cross_site_evaluation_measures_every_model_at_every_site(tmp_path: Path) -> None:
    server, client = server_config(), client_config()
    place = "nvflare.app_common.workflows.cross_site_model_eval.CrossSiteModelEval"
    server["workflows"].append({"id": "cse", "path": place, "args": {"model_locator_id": "l"}})
    client["executors"].append({"tasks": ["validate"], "executor": {"name": "NPValidator"}})
    code = executor("dxo.data[KEY] += 1\nreturn dxo.to_shareable()")
    run = simulate(imported(write_app(tmp_path / "app", code, server=server, client=client)))
    rows = [row["cross_site"] for row in run.rows() if "cross_site" in row]
    assert [row["model"] for row in rows] == ["global, last", "client-0", "client-1"]
    for row, added in zip(rows, (3, 4, 4), strict=True):
        model = W0 + added
        for accuracy in row["metrics"]["accuracy"].values():
            assert accuracy == pytest.approx(float(np.sum(model / model.max())), rel=1e-5)


def test_a_persistor_without_load_model_is_told_what_it_lacks(tmp_path: Path) -> None:
    source = write_app(tmp_path / "app")
    persistor = source / "custom" / "np_model_persistor.py"
    persistor.write_text(persistor.read_text().replace("def load_model", "def load_models"))
    folder = imported(source)
    with pytest.raises(
        LearnerError, match=r"NPModelPersistor of the app has no load_model"
    ) as said:
        simulate(folder)
    assert said.value.code == "learner-incomplete"
    (folder / "model.py").rename(folder / "other.py")
    module = folder / "other.py"
    module.write_text(module.read_text().replace("NPModelPersistor", "Nobody"))
    with pytest.raises(LearnerError, match=r"Correct the path in other\.py"):
        simulate(folder, "learner.module=other.py")


def test_a_job_folder_with_flares_own_trainer_runs(tmp_path: Path) -> None:
    own = {"persistor": "nvflare.app_common.np.np_model_persistor.NPModelPersistor"}
    app = write_app(
        tmp_path / "job" / "app",
        server=server_config(**own),
        client=client_config("nvflare.app_common.np.np_trainer.NPTrainer", delta=-2.5),
    )
    meta = {"name": "hello numpy", "deploy_map": {"app": ["@ALL"]}, "min_clients": 2}
    (app.parent / "meta.json").write_text(json.dumps(meta))
    run = simulate(imported(app.parent))
    assert run.name == "hello-numpy-1" and np.array_equal(saved(run), W0 - 7.5)


def test_learners_filters_and_events_work_as_components(tmp_path: Path) -> None:
    """Goal: 1 of the learner, then x 2 of a filter on results; events in their order."""
    code = executor("raise AssertionError('not this one')") + (
        "\n\nfrom nvflare.app_common.abstract.learner_spec import Learner\n"
        "from nvflare.apis.filter import Filter\n\n"
        "class Mine(Learner):\n"
        "    def initialize(self, parts, fl_ctx):\n"
        "        assert parts['mine'] is self\n"
        "        self.heard = []\n"
        "    def handle_event(self, event_type, fl_ctx):\n"
        "        if hasattr(self, 'heard'): self.heard.append(event_type)\n"
        "        if event_type == '_after_task_execution': raise ValueError('only in the log')\n"
        "    def train(self, data, fl_ctx, abort_signal):\n"
        "        assert self.heard[-1] == EventType.BEFORE_TASK_EXECUTION, self.heard\n"
        "        dxo = from_shareable(data)\n"
        "        dxo.data[KEY] += 1\n"
        "        return dxo.to_shareable()\n\n"
        "class Twice(Filter):\n"
        "    def process(self, shareable, fl_ctx):\n"
        "        dxo = from_shareable(shareable)\n"
        "        dxo.data[KEY] *= 2\n"
        "        return dxo.update_shareable(shareable)\n"
    )
    client = client_config("nvflare.app_common.executors.learner_executor.LearnerExecutor",
                           learner_id="mine")  # fmt: skip
    client["components"] = [{"id": "mine", "path": "np_trainer.Mine", "args": {}}]
    client["task_result_filters"] = [
        {"tasks": ["train"], "filters": [{"path": "np_trainer.Twice"}]}
    ]
    run = simulate(imported(write_app(tmp_path / "app", code, client=client)), "rounds=1")
    assert np.array_equal(saved(run), (W0 + 1) * 2)


def test_an_executor_that_looks_at_the_signal_ends_when_the_project_does(tmp_path: Path) -> None:
    """Goal: a task is aborted, and heard of.  Method: the pipe closes while an executor waits."""
    told = tmp_path / "told"
    code = executor(
        "print('at work', flush=True)\n"
        "place = fl_ctx.get_engine().get_workspace().get_run_dir(1)\n"
        f"open({str(told)!r} + '.began', 'w').write(place)\n"
        "for _ in range(2000):\n"
        "    if abort_signal.triggered: break\n"
        "    threading.Event().wait(0.01)\n"
        "return make_reply(ReturnCode.TASK_ABORTED)",
        more="    def handle_event(self, event_type, fl_ctx):\n"
        "        if event_type == EventType.ABORT_TASK:\n"
        f"            open({str(told)!r}, 'w').write(fl_ctx.get_identity_name())\n\n",
    )
    folder = imported(write_app(tmp_path / "app", code))
    app = FlareApp(
        str(folder / "model.py"),
        executors=[{"tasks": ["train"], "executor": {"path": "np_trainer.NPTrainer"}}],
        persistor={"path": "np_model_persistor.NPModelPersistor"},
    )
    params = app.init(Key.root(0).generator(), None)
    ctx = TrainContext("client-0", 1, 1, None, 32, 0.1, {}, Key.root(1).generator())

    def ask() -> None:
        with pytest.raises(LearnerError):
            app.train(params, app.data("client-0")["train"], ctx)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(3000):
        if Path(f"{told}.began").exists() and Path(f"{told}.began").read_text():
            break
        threading.Event().wait(0.01)
    process = app._processes[""]._process
    place = Path(Path(f"{told}.began").read_text()).parents[2]
    assert place.name.startswith("hansa-clients-") and place.is_dir()
    process.stdin.close()
    asking.join(30)
    process.wait(30)
    assert not place.exists()  # as after a kill -9 of the project's process
    assert told.read_text() == "site-1"
    assert not asking.is_alive()


def test_nvflare_means_the_stand_in_there_and_nowhere_else(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    real = tmp_path / "real" / "nvflare"
    real.mkdir(parents=True)
    (real / "__init__.py").write_text("1 / 0")
    monkeypatch.setenv("PYTHONPATH", str(real.parent))
    assert np.array_equal(saved(simulate(imported(write_app(tmp_path / "app")))), W0 + 3)
    assert "nvflare" not in sys.modules


def test_what_is_not_stood_in_for_is_named(tmp_path: Path) -> None:
    code = "from nvflare.fuel.f3 import cellnet\n" + TRAINER
    with pytest.raises(RunError) as caught:
        simulate(imported(write_app(tmp_path / "app", code)))
    assert "nvflare.fuel" in str(caught.value.__cause__ or caught.value)


def test_a_context_keeps_what_is_sticky_and_refuses_other_attributes() -> None:
    engine = Engine("site-1", Path("/nowhere"), Path("/nowhere"))
    ctx = engine.new_context()
    assert ctx.set_prop("mine", 1, private=True, sticky=True)
    assert ctx.set_prop("passing", 2, sticky=False)
    assert not ctx.set_prop("mine", 3, private=False)
    engine.keep(ctx)
    later = engine.new_context()
    assert (later.get_prop("mine"), later.get_prop("passing", "gone")) == (1, "gone")
    assert later.get_identity_name() == "site-1" and later.get_engine() is engine
    assert "__identity_name__" in later.get_all_public_props()
    assert "mine" not in later.get_all_public_props()
    with pytest.raises(LearnerError, match="send_aux_request"):
        engine.send_aux_request("server")


def test_a_signal_says_when_it_was_triggered() -> None:
    signal = Signal()
    assert not signal.triggered and signal.trigger_time is None
    signal.trigger("stop")
    assert signal.triggered and signal.value == "stop" and signal.trigger_time
    signal.reset()
    assert not signal.triggered
