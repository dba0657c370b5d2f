"""Flower client code in a run, from `hansa import flower` to the model; the oracle is the weighted
mean of what the clients add."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from flower_projects import (
    MESSAGES,
    OLDER,
    SERVER,
    SIZES,
    after,
    message_project,
    older_project,
    write,
)
from projects import final_model, simulate

from hansa.compat import process
from hansa.compat.flower import FlowerApp
from hansa.compat.flower.shim import install
from hansa.compat.flower.writing import Import, import_project
from hansa.dev import Rehearsal
from hansa.errors import LearnerError, RunError
from hansa.learners.function import TrainContext
from hansa.metrics import Mean
from hansa.project import open_project
from hansa.seeds import Key


def imported(source: Path, **asked: object) -> Path:
    return import_project(Import(source, **asked)).folder  # type: ignore[arg-type]


def context(client: str, **values: object) -> TrainContext:
    facts = {"round": 1, "epochs": 1, "steps": None, "batch_size": 32, "lr": 0.5, "options": {}}
    return TrainContext(client, **{**facts, **values}, rng=Key.root(1).generator())  # type: ignore


def write_app(folder: Path, code: str, **options: object) -> FlowerApp:
    write(folder, {"client_app.py": code})
    options = {
        "client": "client_app:app",
        "clients": 3,
        "run_config": {"local-epochs": 1},
    } | options
    return FlowerApp(str(folder / "model.py"), **options)  # type: ignore[arg-type]


@pytest.fixture
def app(tmp_path):
    """Makes apps of the client code that is given, and ends their processes."""
    made = []

    def make(code: str = OLDER, **options: object) -> FlowerApp:
        made.append(write_app(tmp_path / f"app-{len(made)}", code, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def trained(app: FlowerApp, client: str = "client-0", **values: object):
    shard = app.data(client)["train"]
    params = app.init(Key.root(0).generator(), None)
    ctx = context(client, **values)
    arrays, metrics = app.train(params, shard, ctx)
    return arrays, metrics, ctx


@pytest.mark.parametrize("make", [older_project, message_project])
def test_imported_project_gives_the_weighted_mean_and_keeps_dtypes(make, tmp_path):
    run = simulate(imported(make(tmp_path / "flower")))
    w, n = final_model(run).values()
    assert (w.dtype, n.dtype, int(n)) == (np.float32, np.int64, 7)
    np.testing.assert_allclose(w, after(2), rtol=1e-6)
    assert "train_loss" in str(run.rows()[-1])


def test_both_engines_and_both_generations_give_the_same_bytes(tmp_path):
    older, newer = older_project(tmp_path / "older"), message_project(tmp_path / "newer")
    runs = [
        simulate(imported(source, target=tmp_path / f"{source.name}-{engine}"), engine=engine)
        for source in (older, newer)
        for engine in ("inline", "processes")
    ]
    models = [run.commits()[-1]["model"] for run in runs]
    assert models[0] == models[1] and models[2] == models[3]
    vectors = [next(iter(final_model(run).values())) for run in runs]
    assert all(np.array_equal(vectors[0], vector) for vector in vectors)


def test_a_rehearsed_federation_gives_the_model_of_the_simulation(tmp_path):
    folder = imported(older_project(tmp_path / "flower"))
    with Rehearsal(tmp_path / "rehearsed", folder, sites=3) as rehearsal:
        run = rehearsal.run()
        assert run.commits()[-1]["model"] == rehearsal.simulate().commits()[-1]["model"]


def test_the_plan_decides_epochs_and_learning_rate(tmp_path):
    older = imported(older_project(tmp_path / "older"))
    w, _ = final_model(simulate(older, "learner.epochs=3", "rounds=1")).values()
    np.testing.assert_allclose(w - [1, -2], 3 * (after(1) - [1, -2]), rtol=1e-6)
    newer = imported(message_project(tmp_path / "newer"))
    w, _ = final_model(simulate(newer, "learner.optimizer.lr=0.25", "rounds=1")).values()
    np.testing.assert_allclose(w - [1, -2], (after(1) - [1, -2]) / 2, rtol=1e-6)


def test_weights_and_metrics_count_the_examples_that_the_client_says(app):
    flower = app()
    arrays, metrics, ctx = trained(flower, "client-2")
    assert ctx.weight == SIZES[2]
    assert metrics == {"train_loss": Mean(0.25 * 7, 7.0)}  # "who" is no number
    assert arrays["0"].dtype == np.float32  # the client returned float64
    shard = flower.data("client-2")["validation"]
    told = flower.evaluate(arrays, shard)
    assert told["loss"] == Mean(float(arrays["0"][0]) * 7, 7.0)
    assert told["accuracy"].value == pytest.approx(0.2)


def test_older_client_fn_gets_its_number_and_mods_wrap_it(app):
    client = """
        import numpy as np
        from flwr.client import ClientApp, NumPyClient
        from flwr.common import ndarrays_to_parameters

        class Client(NumPyClient):
            def __init__(self, cid): self.cid = cid
            def get_parameters(self, config): return [np.zeros(1)]
            def fit(self, parameters, config):
                assert self.cid == "1" and config["server_round"] == 4
                return [parameters[0] + 1], 2.0, {}

        def twice(message, context, call_next):
            reply = call_next(message, context)
            if message.metadata.message_type == "train":
              reply.content.metric_records["fitres.num_examples"]["num_examples"] *= 2
            return reply

        def client_fn(cid: str): return Client(cid).to_client()

        app = ClientApp(client_fn=client_fn, mods=[twice])
    """
    arrays, _, ctx = trained(app(client), "client-1", round=4)
    assert arrays["0"].tolist() == [1.0] and ctx.weight == 4.0
    assert app(client).evaluate(arrays, app(client).data("client-1")["train"]) == {}


def test_a_client_that_speaks_fit_ins_and_fit_res_trains(app):
    client = """
        import numpy as np
        from flwr.client import Client
        from flwr.common import (Code, FitRes, GetParametersRes, Status, ndarrays_to_parameters,
                                 parameters_to_ndarrays)

        class Low(Client):
            def get_parameters(self, ins):
                return GetParametersRes(Status(Code.OK, ""), ndarrays_to_parameters([np.ones(2)]))
            def fit(self, ins):
                arrays = [a * 3 for a in parameters_to_ndarrays(ins.parameters)]
                return FitRes(Status(Code.OK, ""), ndarrays_to_parameters(arrays), 5, {})
    """
    arrays, _, ctx = trained(app(client, client="client_app:Low"))
    assert arrays["0"].tolist() == [3.0, 3.0] and ctx.weight == 5.0


def test_a_script_that_calls_start_client_is_run_once_for_each_client(tmp_path):
    script = """
        import argparse
        import numpy as np
        import flwr as fl

        parser = argparse.ArgumentParser()
        parser.add_argument("--partition-id", type=int)
        number = parser.parse_args().partition_id
        calls = []

        class Client(fl.client.NumPyClient):
            def get_parameters(self, config): return [np.zeros(1, np.float32)]
            def fit(self, parameters, config):
                calls.append(number)
                return [parameters[0] + number], 1, {"calls": len(calls)}

        if __name__ == "__main__":
            fl.client.start_numpy_client(server_address="[::]:8080", client=Client())
            raise SystemExit("went on after start_numpy_client")
    """
    source = write(tmp_path / "flower", {"client.py": script})
    folder = imported(source, client="client.py", clients=3)
    assert "--partition-id {partition}" in (folder / "model.py").read_text()
    run = simulate(folder, "rounds=2")
    assert final_model(run)["0"].tolist() == [2.0]  # (0 + 1 + 2) / 3, twice


def test_context_state_is_kept_between_rounds_and_refused_where_clients_move(tmp_path):
    keeping = MESSAGES.replace(
        '    number = context.node_config["partition-id"]\n    assert',
        '    seen = context.state.get("seen", MetricRecord({"n": 0}))["n"] + 1\n'
        '    context.state["seen"] = MetricRecord({"n": seen})\n'
        '    number = context.node_config["partition-id"]\n    assert',
    ).replace('"train_loss": SHIFTS[number]', '"train_loss": float(seen)')
    folder = imported(message_project(tmp_path / "flower", client=keeping))
    rows = simulate(folder).rows()
    assert [row["train"]["train_loss"]["mean"] for row in rows] == [1.0, 2.0]
    with pytest.raises(RunError, match="--engine inline"):
        simulate(folder, engine="processes")


def test_flwr_means_the_stand_in_there_even_beside_a_real_one_and_nowhere_else(app, monkeypatch):
    # A package of that name on the path, as if Flower were installed.
    flower = app()
    real = write(Path(flower._process._setup.folder).parent / "real", {"flwr/__init__.py": "1 / 0"})
    monkeypatch.setenv("PYTHONPATH", str(real))
    assert trained(flower)[2].weight == SIZES[0]
    assert "flwr" not in sys.modules
    assert not any(
        "Finder" in type(f).__name__ and "stand_in" in type(f).__module__ for f in sys.meta_path
    )


@pytest.mark.parametrize(
    ("client", "code", "says"),
    [
        ("import nowhere_to_be_found", "learner-missing-package", "nowhere_to_be_found"),
        ("from flwr.supercore import x", "learner-module", "flwr.supercore"),
        ("from flwr.common import no_such_name", "learner-module", "no_such_name"),
        ("app = 3", "learner-incomplete", "int"),
        ("x = 3", "learner-incomplete", "app"),
        ("1 / 0", "client-failed", "client_app.py, line 1 raised ZeroDivisionError"),
        (OLDER.replace("return [w, n + 1], SIZES[self.number], ", "return "), "learner-params",
         "three things"),
        (OLDER.replace("return [w, n + 1]", "return 3"), "learner-params", "int"),
        (OLDER.replace("+ 1], SIZES[self.number]", "+ 1], 'many'"), "learner-metrics", "many"),
        (OLDER.replace("def get_parameters", "def get_others"), "learner-incomplete", "seed model"),
        (OLDER.replace("ClientApp(client_fn)", "ClientApp(lambda context: 3)"),
         "learner-incomplete", "int"),
        (OLDER.replace("ClientApp(client_fn)", "ClientApp(lambda a, b: 3)"),
         "learner-incomplete", "2 arguments"),
        (OLDER.replace("ClientApp(client_fn)", "ClientApp(client_fn, mods=[secaggplus_mod])")
         + "\n", "client-failed", "NameError"),
        ("from flwr.client.mod import secaggplus_mod\n"
         + OLDER.replace("ClientApp(client_fn)", "ClientApp(client_fn, mods=[secaggplus_mod])"),
         "learner-capability", "secure aggregation"),
        (OLDER.replace("w, n = parameters", "import os; os._exit(3)"), "client-lost", "status 3"),
    ],
)  # fmt: skip
def test_what_a_client_does_wrong_is_told(app, client, code, says):
    with pytest.raises(LearnerError) as caught:
        trained(app(client))
    assert caught.value.code == code
    assert says in str(caught.value)


def test_a_process_that_died_is_started_again(app, tmp_path):
    mark = tmp_path / "died"
    dying = f"import os, pathlib\nM = pathlib.Path({str(mark)!r})\n" + OLDER.replace(
        "w, n = parameters", "w, n = parameters\n        if not M.exists(): M.touch(); os._exit(3)"
    )
    flower = app(dying)
    with pytest.raises(LearnerError, match="status 3"):
        trained(flower)
    assert trained(flower)[2].weight == SIZES[0]


def test_an_interruption_at_the_start_leaves_no_answer_behind(app, monkeypatch):
    """Its answer would be taken for that to the next question."""
    real, calls = process.receive_with, []

    def interrupted(*words):
        calls.append(words)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(*words)

    monkeypatch.setattr(process, "receive_with", interrupted)
    flower = app(OLDER)
    with pytest.raises(KeyboardInterrupt):
        trained(flower)
    assert trained(flower)[2].weight == SIZES[0]


def test_code_that_was_changed_since_the_run_was_opened_is_not_run(app):
    flower = app()
    (Path(flower._process._setup.folder) / "client_app.py").write_text(OLDER + "# edited\n")
    with pytest.raises(LearnerError, match="has changed") as caught:
        trained(flower)
    assert caught.value.code == "run-changed"


def test_a_site_of_another_name_is_told_where_to_name_its_part(app):
    with pytest.raises(LearnerError, match="which one is north's") as caught:
        app().data("north")
    assert caught.value.code == "learner-data"
    named = app(nodes={"north": {"partition-id": 2}})
    assert trained(named, "north")[2].weight == SIZES[2]
    with pytest.raises(LearnerError, match="read their data themselves"):
        named.evaluate({}, object())


def test_message_without_its_weight_is_refused(tmp_path):
    lacking = MESSAGES.replace(
        ', "num-examples": SIZES[number]})\n    return Message(content=R',
        "})\n    return Message(content=R",
    )
    folder = imported(message_project(tmp_path / "flower", client=lacking))
    with pytest.raises(RunError, match="no 'num-examples'"):
        simulate(folder)


def test_weights_and_records_go_by_the_names_that_the_server_class_is_given(tmp_path):
    client = MESSAGES.replace('"num-examples": SIZES', '"tokens": SIZES')
    client = client.replace('content["arrays"]', 'content["model"]').replace(
        'content["config"]', 'content["told"]'
    )
    keys = 'weighted_by_key="tokens", arrayrecord_key="model", configrecord_key="told", '
    server = SERVER.replace("FedAvg(", f"FedAvg({keys}")
    source = message_project(tmp_path / "flower", client=client, server=server)
    w, _ = final_model(simulate(imported(source))).values()
    np.testing.assert_allclose(w, after(2), rtol=1e-6)


def test_a_project_is_opened_without_running_client_code(tmp_path):
    folder = imported(older_project(tmp_path / "flower", client=OLDER + "\n1 / 0\n"))
    assert open_project(folder).plan.rounds == 2


DRAWING = """
    import numpy as np, random
    from flwr.client import NumPyClient

    class Client(NumPyClient):
        def get_parameters(self, config): return [np.random.normal(size=2)]
        def fit(self, parameters, config):
            return [parameters[0] + np.random.normal() + random.random()], 1, {}
"""


@pytest.mark.parametrize("torch", [False, True])
def test_what_client_code_draws_depends_on_seed_round_and_client_alone(app, torch):
    code = DRAWING
    if torch:
        pytest.importorskip("torch")
        code = code.replace("import numpy as np, random", "import numpy as np, random, torch")
        code = code.replace("np.random.normal(size=2)", "torch.randn(2).numpy()")
    one, two = (app(code, client="client_app:Client") for _ in range(2))
    first, again = trained(one)[0]["0"], trained(two)[0]["0"]
    assert np.array_equal(first, again)
    assert np.array_equal(trained(one)[0]["0"], first)  # not by how much was drawn before
    other = context("client-0")
    other.rng = Key.root(2).generator()
    params = one.init(Key.root(0).generator(), None)
    assert not np.array_equal(
        one.train(params, one.data("client-0")["train"], other)[0]["0"], first
    )


def test_stand_in_is_not_put_over_a_module_that_is_there_already(monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr", sys)
    finders = list(sys.meta_path)
    with pytest.raises(LearnerError, match="before the stand-in"):
        install()
    assert sys.meta_path == finders


def test_process_ends_with_the_app(app):
    flower = app()
    trained(flower)
    process = flower._process._process
    flower.close()
    assert process.returncode == 0
