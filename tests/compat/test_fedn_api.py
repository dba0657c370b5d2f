"""Goal: scripts of FEDn's `APIClient` run word for word against a server of Hansa, over TLS.

Method: a server and two sites as processes; FEDn's own notebook as a script, in which only the
address is another one; and each call's answer, with the closed form of the package's training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fedn_packages import archived, npz, package, rows

from hansa.compat.fedn import APIClient
from hansa.compat.fedn.sessions import Wanted, plan_changes
from hansa.compat.fedn.writing import Import, import_package
from hansa.dev import Rehearsal
from hansa.errors import HansaError, IdentityError, PlanError, RunError
from hansa.plan import read_plan
from hansa.remote.asking import invite
from hansa.site.ledger import LEDGER_FILE, Ledger

pytestmark = pytest.mark.skipif(os.name == "nt", reason="packages are lines for a POSIX shell")

NOTEBOOK = """\
import json
import time
from fedn import APIClient

DISCOVER_HOST = 'localhost'
DISCOVER_PORT = {port}
client = APIClient(DISCOVER_HOST, DISCOVER_PORT)

client.set_active_package('package.tgz', 'numpyhelper')
client.set_active_model('seed.npz')
seed_model = client.get_active_model()

session_id = "experiment_fedavg"
session_config = {{
    "helper": "numpyhelper",
    "id": session_id,
    "aggregator": "fedavg",
    "model_id": seed_model['model'],
    "rounds": 2,
    "min_clients": 2,
}}
result_fedavg = client.start_session(**session_config)
assert result_fedavg['success'], result_fedavg

while not client.session_is_finished(session_config['id']):
    time.sleep(0.2)

models = client.get_model_trail()
acc = []
for model in models:
    validations = client.get_validations(model_id=model['model'])
    a = [json.loads(x['data'])['error'] for x in validations['result']]
    acc.append(a)
client.download_model(models[-1]['model'], 'final.npz')
print(json.dumps({{"trail": [m['model'] for m in models], "error": acc}}))
"""


class ServerFunctions:
    """A session's own, which leaves what the clients have trained."""

    def aggregate(self, previous_global: list, client_updates: dict) -> list:
        assert len(client_updates) == 2
        return [np.asarray(array / 2 + 1, array.dtype) for array in previous_global]


SEED = {"0": np.array([[1.0, -2.0]], np.float32), "1": np.array(0.5, np.float32)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with package.tgz and seed.npz, where the sites' rows lie too."""
    folder = tmp_path_factory.mktemp("fedn")
    source = package(folder / "client")
    text = (source / "entrypoint.py").read_text()
    # As FEDn's newer examples do: the data are where FEDN_DATA_PATH says.
    text = text.replace('options[0] + "/rows.csv"', 'os.environ["FEDN_DATA_PATH"] + "/rows.csv"')
    (source / "entrypoint.py").write_text(text.replace("import sys\n", "import os\nimport sys\n"))
    (source / "python_env.yaml").unlink()
    (source / "fedn.yaml").write_text(
        (source / "fedn.yaml").read_text().replace("python_env: python_env.yaml\n", "")
    )
    archived(folder / "package.tgz", source, "client")
    (folder / "seed.npz").write_bytes(npz(**SEED))
    return folder


@pytest.fixture(scope="module")
def federation(place: Path) -> Iterator[Rehearsal]:
    asked = Import(place / "package.tgz", place / "study", data=str(rows(place / "sites")))
    project = import_package(asked).folder
    text = (project / "plan.toml").read_text()
    (project / "data").symlink_to(place / "sites", target_is_directory=True)
    (project / "plan.toml").write_text(text.replace(json.dumps(str(place / "sites")), '"data"'))
    # A second, two short heartbeats, is over on a busy machine, and a round then goes on without
    # the site; nothing is killed here, so nobody need be missed soon.
    settings = {"heartbeat_s": 2.0, "gather_s": 5.0}
    with Rehearsal(place / "r", project, settings=settings) as rehearsal:
        yield rehearsal


@pytest.fixture(scope="module")
def ran(federation: Rehearsal, place: Path) -> dict[str, list[object]]:
    """What the notebook has printed."""
    (place / "notebook.py").write_text(NOTEBOOK.format(port=federation.port))
    done = subprocess.run(
        [sys.executable, "-m", "hansa.compat.fedn", "notebook.py"],
        cwd=place,
        env={**os.environ, **federation.environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed: dict[str, list[object]] = json.loads(done.stdout.splitlines()[-1])
    return printed


@pytest.fixture
def client(federation: Rehearsal, ran: object, monkeypatch: pytest.MonkeyPatch) -> APIClient:
    monkeypatch.setenv("HANSA_HOME", federation.environment["HANSA_HOME"])
    return APIClient("localhost", federation.port)


def test_the_notebook_of_fedn_runs_word_for_word(ran: dict[str, list[object]], place: Path) -> None:
    assert ran["trail"] == [f"experiment_fedavg-1:{n}" for n in range(3)]
    # Each client goes to its own mean, 4 of 2 rows and -8 of 6 rows: -5, which errs by 9 and 3.
    assert [sorted(errors) for errors in ran["error"]] == [[], [3.0, 9.0], [3.0, 9.0]]  # type: ignore[call-overload]
    with np.load(place / "final.npz") as model:
        assert model["0"].tolist() == [[-5.0, -5.0]] and model["1"].item() == -5.0


def test_every_answer_has_the_shape_of_fedns(client: APIClient) -> None:
    for listing in (client.get_clients, client.get_combiners, client.get_models,
                    client.get_packages, client.get_rounds, client.get_sessions,
                    client.get_statuses, client.get_validations):  # fmt: skip
        found = listing()
        assert found.keys() == {"count", "result"} and found["count"] == len(found["result"]) > 0
        assert len(listing(n_max=1)["result"]) == 1
    assert client.get_clients_count() == 2 and client.get_combiners_count() == 1
    assert client.get_active_clients()["count"] == 2
    assert client.get_client("north")["status"] == "online"
    assert client.get_controller_status() == {"state": "idle"}
    assert client.get_models_count() == len(client.get_models()["result"])
    session = client.get_session("experiment_fedavg")
    assert (session["status"], session["session_config"]["rounds"]) == ("Finished", 2)
    assert client.get_session_status("experiment_fedavg") == "Finished"
    newest = client.get_rounds()["result"][0]
    assert newest["combiners"][0]["data"]["accepted"] == 2
    only = client.get_validations(sender_name="south", model_id="experiment_fedavg-1:1")
    assert [json.loads(v["data"])["error"] for v in only["result"]] == [3.0]
    failed = client.get_statuses(session_id="experiment_fedavg", event_type="ENDED")
    assert failed["count"] == 1 and failed["result"][0]["log_level"] == "INFO"


def test_packages_and_checksums_are_those_that_were_set(client: APIClient, place: Path) -> None:
    assert client.get_active_package()["helper"] == "numpyhelper"
    client.download_package(str(place / "again.tgz"))
    assert (place / "again.tgz").read_bytes() == (place / "package.tgz").read_bytes()
    assert len(client.get_package_checksum()["checksum"]) == 64
    (place / "bad.tgz").write_bytes(b"no archive")
    with pytest.raises(HansaError):
        client.set_active_package(str(place / "bad.tgz"), "numpyhelper")
    with pytest.raises(PlanError, match="helper"):
        client.set_active_package(str(place / "package.tgz"), "nosuchhelper")


def wait(client: APIClient, session: str) -> None:
    until = time.monotonic() + 120
    while not client.session_is_finished(session):
        assert time.monotonic() < until, f"{session} does not end"
        time.sleep(0.1)


def test_a_session_goes_on_from_its_newest_model_and_another_from_any(
    client: APIClient, place: Path
) -> None:
    client.continue_session("experiment_fedavg", rounds=1)
    wait(client, "experiment_fedavg")
    line = [m["model"] for m in client.get_model_trail()]
    assert line[2:] == [
        f"experiment_fedavg-1:{2}",
        "experiment_fedavg-2:0",
        "experiment_fedavg-2:1",
    ]
    assert client.get_session("experiment_fedavg")["session_config"]["rounds"] == 3
    started = client.start_session(name="branch", model_id="experiment_fedavg-1:1", rounds=1)
    wait(client, started["session_id"])
    ancestors = [m["model"] for m in client.get_model_ancestors("branch-1:1")]
    assert ancestors == ["branch-1:0", "experiment_fedavg-1:1", "experiment_fedavg-1:0"]
    below = [m["model"] for m in client.get_model_descendants("experiment_fedavg-1:2")]
    assert below == ["experiment_fedavg-2:0", "experiment_fedavg-2:1"]
    with pytest.raises(PlanError, match="second session"):
        client.start_session(name="branch")


def test_validation_asks_only_the_clients_that_were_chosen(client: APIClient) -> None:
    """FEDn's argument stands in the wrong slot: it validates with all clients."""
    started = client.start_session(name="one", rounds=1, client_ids="south")
    wait(client, started["session_id"])
    assert {v["sender"]["name"] for v in client.get_validations(session_id="one")["result"]} == {
        "south"
    }
    assert client.get_model("one-1:1")["parent_model"] == "one-1:0"


def test_a_validation_is_stored_with_all_that_the_package_wrote(client: APIClient) -> None:
    found = client.get_validation("experiment_fedavg-1:1:north")
    assert json.loads(found["data"]) == {
        "error": 9.0, "by": {"row": 3}, "note": "text", "rows": [1, 2],
    }  # fmt: skip


def test_predictions_of_any_model_come_back_and_stand_in_the_ledger(
    client: APIClient, federation: Rehearsal
) -> None:
    """FEDn's round thread ends for good at a prediction request with its default storage."""
    started = client.start_predictions("tomorrow", model_id="experiment_fedavg-1:2")
    wait(client, started["prediction_id"])
    found = client.get_predictions(prediction_id="tomorrow")
    assert {e["model_id"] for e in found["result"]} == {"experiment_fedavg-1:2"}
    said = {e["sender"]["name"]: json.loads(e["data"])["predicted"] for e in found["result"]}
    # The package adds the second tensor, -5, to each row.
    assert said == {"north": [-2.0, 0.0], "south": [-13.0] * 6}
    left = list(Ledger(federation.site_folder("south") / LEDGER_FILE).entries())
    run = found["result"][0]["correlation_id"]
    assert any(e.run == run and e.size > 0 and "predict" in e.detail for e in left), left
    assert client.get_predictions(sender_name="nobody") == {"count": 0, "result": []}
    again = client.start_session(name="after", rounds=1)  # the server goes on
    wait(client, again["session_id"])
    assert client.get_session_status("after") == "Finished"


def test_a_sessions_own_server_functions_aggregate(client: APIClient, tmp_path: Path) -> None:
    """Its class alone is sent, as FEDn's APIClient sends it."""
    client.download_model("experiment_fedavg-1:0", str(tmp_path / "before.npz"))
    started = client.start_session(
        name="halves", model_id="experiment_fedavg-1:0", rounds=1, server_functions=ServerFunctions
    )
    wait(client, started["session_id"])
    assert client.get_session_status("halves") == "Finished"
    client.download_model("halves-1:1", str(tmp_path / "after.npz"))
    before, after = np.load(tmp_path / "before.npz"), np.load(tmp_path / "after.npz")
    for name in before.files:
        assert np.allclose(after[name], before[name] / 2 + 1), name


def test_a_session_goes_on_as_it_was_begun(
    client: APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went on as fedavg of all clients, whatever it was begun as."""
    options = {"learning_rate": 0.5}
    client.start_session("narrow", "fedopt", options, rounds=1, client_ids="south", validate=False)
    wait(client, "narrow")
    wanted: list[Wanted] = []
    with monkeypatch.context() as patched:
        patched.setattr(
            "hansa.compat.fedn.api_client.start", lambda *words: wanted.append(words[2])
        )
        client.continue_session("narrow", rounds=2, min_clients=3)
    (told,) = wanted
    assert (told.aggregator, told.aggregator_kwargs, told.client_ids) == (
        "fedopt", options, "south",
    )  # fmt: skip
    assert (told.rounds, told.min_clients, told.validate) == (2, 3, False)
    assert told.package == "remote" and told.uploaded == client.get_active_package()["id"]
    assert told.model_id == "narrow-1:1"
    # The text of its functions is kept, not where it stood.
    client.start_session(
        name="again", model_id="narrow-1:0", rounds=1, server_functions=ServerFunctions
    )
    wait(client, "again")
    client.continue_session("again", rounds=1)
    wait(client, "again")
    client.download_model("again-1:1", str(tmp_path / "before.npz"))
    client.download_model("again-2:1", str(tmp_path / "after.npz"))
    before, after = np.load(tmp_path / "before.npz"), np.load(tmp_path / "after.npz")
    for name in before.files:
        assert np.allclose(after[name], before[name] / 2 + 1), name
    run = client.start_predictions("of again", model_id="narrow-1:0")["prediction_id"]
    wait(client, run)
    with pytest.raises(PlanError, match="how 'of again' was begun"):
        client.continue_session("of again")


def test_a_run_with_server_functions_predicts(client: APIClient) -> None:
    """The plan of its predictions kept them, and was refused: they act in training alone."""
    started = client.start_session(name="served", rounds=1, server_functions=ServerFunctions)
    wait(client, started["session_id"])
    asked = client.start_predictions("by served", model_id="served-1:1")
    wait(client, asked["prediction_id"])
    found = client.get_predictions(prediction_id="by served")["result"]
    assert {entry["sender"]["name"] for entry in found} == {"north", "south"}


def test_what_cannot_be_had_is_refused_with_the_way_of_hansa(client: APIClient) -> None:
    for call, way in [
        (lambda: client.add_attributes({}), "site.toml"),
        (lambda: client.get_client_config(), "hansa server invite"),
        (lambda: client.start_session(name="x", server_functions=object), "stands in a file"),
        (
            lambda: client.start_session(
                name="x", server_functions=ServerFunctions, package="local"
            ),
            "take no run that brings code",
        ),
        (lambda: client.start_splitlearning_session("x"), "client.start_session("),
        (lambda: client.start_splitlearning_session("x", model_id="a"), "start anew"),
        (lambda: client.start_splitlearning_session("x", aggregator="fedavg"), "Leave it out"),
        (lambda: client.start_session(name="x", round_buffer_size=2), "cohort.over"),
        (lambda: client.start_session(name="x", aggregator="splitlearningagg"), "fedopt"),
    ]:
        with pytest.raises(PlanError) as caught:
            call()
        assert caught.value.code == "import-refused" and way in caught.value.hint
    with pytest.raises(RunError):
        client.get_session("nosuch")
    with pytest.raises(RunError) as caught_run:
        client.download_model("one-1:99", "x.npz")
    assert caught_run.value.code == "model-missing"


def test_a_token_is_an_invitation_and_nobody_looks_without_one(
    federation: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FEDn answers many calls to anybody, as long as nobody sets a secret."""
    monkeypatch.setenv("HANSA_HOME", str(tmp_path / "home"))
    with pytest.raises(IdentityError, match="hansa server invite"):
        APIClient("localhost", federation.port, secure=False, verify=False)
    line = invite(federation.connection, "grace", role="viewer")
    grace = APIClient("localhost", federation.port, token=line)
    assert grace.get_clients_count() == 2
    assert APIClient("localhost", federation.port).get_sessions_count() >= 1  # no token any more
    with pytest.raises(HansaError):
        APIClient("localhost", federation.port, token="x").start_session(name="y")


def test_parameters_of_a_session_become_a_plan() -> None:
    wanted = Wanted("a b/c", aggregator="fedopt", aggregator_kwargs={"serveropt": "yogi"},
                    rounds=7, round_timeout=9, validate=False, min_clients=3)  # fmt: skip
    plan = read_plan({}, changes=plan_changes(wanted)).plan
    assert (plan.name, plan.rounds, plan.cohort.minimum, plan.cohort.deadline_s) == (
        "a-b-c", 7, 3, 9.0,
    )  # fmt: skip
    assert plan.algorithm == {"name": "fed_yogi", "lr": 1e-3, "beta1": 0.9, "beta2": 0.99,
                              "tau": 1e-4}  # fmt: skip
    assert plan.evaluate.clients == 0 and plan.keep.every == 1
