"""Goal: a script of FEDn's `FednClient` is a site, word for word, and trains in its own process.

Method: a server over TLS and two scripts as processes of their own, each with its own HANSA_HOME;
FedAvg's closed form in NumPy, with signed data and unequal num_examples.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fedn_packages import archived, columns, joint, npz, package, rows, split_package
from fedn_scripts import ROWS, SEED, Scripts, closed_form

from hansa.client import failure_of
from hansa.compat.fedn import APIClient, FednClient, present
from hansa.compat.fedn.desk import Desk
from hansa.compat.fedn.sessions import Wanted, start
from hansa.errors import HansaError, PlanError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripts]:
    monkeypatch.setenv("HANSA_HOME", str(tmp_path / "home"))
    made = Scripts(tmp_path)
    yield made
    made.close()


def test_two_scripts_train_validate_and_predict_in_their_own_processes(scripts: Scripts) -> None:
    scripts.both()
    assert scripts.session("first", rounds=3) == "Finished"
    for got, want in zip(scripts.model("first-1:3"), closed_form(3), strict=True):
        assert got.dtype == np.float32 and np.allclose(got, want, atol=1e-6)
    # A validation is all that its callback said, of a model that the closed form knows, too.
    model = closed_form(2)
    for name, (to, _) in ROWS.items():
        found = scripts.client.get_validation(f"first-1:2:{name}")
        said = json.loads(found["data"])
        assert said["note"] == f"of {name}"
        error = sum(float(np.sum((to.reshape(w.shape) - w) ** 2)) for w in model)
        assert np.isclose(said["error"], error, rtol=1e-5)
    started = scripts.client.start_predictions("tomorrow", model_id="first-1:3")
    scripts.until(lambda: scripts.client.session_is_finished(started["prediction_id"]))
    entries = scripts.client.get_predictions(prediction_id="tomorrow")["result"]
    predicted = {e["sender"]["name"]: json.loads(e["data"])["predicted"] for e in entries}
    for name, (to, _) in ROWS.items():
        assert np.allclose(predicted[name], closed_form(3)[0] + to, atol=1e-5)
    # What the scripts say of themselves chooses among them, and what they log is a metric.
    assert {c["name"] for c in scripts.client.get_clients()["result"]} == set(ROWS)
    assert all("trained" in scripts.said(name) for name in ROWS)


def test_a_callback_that_raises_fails_its_client_alone_and_the_script_goes_on(
    scripts: Scripts,
) -> None:
    """FEDn's client process dies of it, and the round waits for its whole timeout."""
    mark = scripts.folder / "well"
    scripts.both(south=f"if not os.path.exists({str(mark)!r}): raise ZeroDivisionError('rows')")
    assert scripts.session("bad", rounds=1, min_clients=1, round_timeout=3600) == "Finished"
    only = {"north": ROWS["north"]}
    for got, want in zip(scripts.model("bad-1:1"), closed_form(1, only), strict=True):
        assert np.allclose(got, want, atol=1e-6)
    statuses = json.dumps(scripts.client.get_statuses(session_id="bad"))
    assert "ZeroDivisionError: rows" in statuses and scripts.alive("south")
    mark.touch()
    assert scripts.session("good", model_id="bad-1:0", rounds=2) == "Finished"
    for got, want in zip(scripts.model("good-1:2"), closed_form(2), strict=True):
        assert np.allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("metadata = {'training_metadata': {'rate': 1}}", "no num_examples"),
        ("metadata = {'num_examples': 2.5}", "2.5 and no whole number"),
        ("trained = trained[:1]", "1 tensors; it was given 2"),
        ("trained[0] = np.zeros(3)", "0 of shape [3]"),
        ("return b'\\x80\\x04.', metadata", "a pickle"),
        ("return trained", "not (model, metadata)"),
        ("sys.exit(5)", "SystemExit"),
    ],
)
def test_what_a_callback_must_not_give_is_that_clients_failure(line: str, words: str) -> None:
    told = in_one_process(line)
    assert words in told, told


def in_one_process(line: str) -> str:
    """Train once with a callback that has a line in it, and return the failure's words."""
    scope: dict[str, Any] = {"np": np, "sys": sys, "io": io}
    exec(  # a line of this file
        "def train(model):\n"
        "    found = np.load(model)\n"
        "    trained, metadata = [found['0'], found['1']], {'num_examples': 2}\n"
        f"    {line}\n"
        "    out = io.BytesIO()\n"
        "    np.savez(out, **{str(i): w for i, w in enumerate(trained)})\n"
        "    return out, metadata\n",
        scope,
    )
    present.bring(FednClient(scope["train"]))
    train = present.functions("{}")[2]
    given = {str(i): w for i, w in enumerate(SEED)}
    try:
        return repr(train(given, None, SimpleNamespace(settings={})))
    except (HansaError, SystemExit) as error:
        return f"{failure_of(error).message}"
    finally:
        present.bring(None)


def test_a_callback_of_one_argument_and_any_dtype_is_taken() -> None:
    """Callbacks before 0.20 got no settings; float64 of NumPy's promotion is rounded once."""
    told = in_one_process("trained = [w.astype(float) + 0.1 for w in trained]")
    assert "float32" in told and "1.6" in told and "-3.9" in told


def test_a_wrong_token_is_a_result_and_nothing_is_joined(scripts: Scripts) -> None:
    """And a token is redeemed once: of two scripts with the same one, the second is refused."""
    right = scripts.token("north")
    wrong = right.replace("#", "#A", 1)[: len(right)]
    for key, token in (("north", wrong), ("south", "eyJhbGciOiJIUzI1NiJ9.e30.x")):
        scripts.script(key, token=token)
        assert scripts.wait(key) == 3, scripts.said(key)
        said = scripts.said(key)
        assert "ConnectToApiResult.UnAuthorized" in said and "Traceback" not in said
        assert not list((scripts.folder / f"{key}-home").rglob("site.toml"))
    scripts.script("north")
    scripts.until(lambda: "takes part" in scripts.said("north"))
    scripts.script("south", token=right)
    assert scripts.wait("south") == 3 and "UnAuthorized" in scripts.said("south")
    assert {c["name"] for c in scripts.client.get_clients()["result"]} == {"north"}


def test_a_script_that_is_killed_goes_on_when_it_is_started_again(scripts: Scripts) -> None:
    gate = scripts.folder / "gate"
    wait = f"while not os.path.exists({str(gate)!r}): __import__('time').sleep(0.02)"
    scripts.both(south=wait)
    scripts.client.start_session(name="cut", rounds=4, min_clients=2, round_timeout=3600)
    scripts.until(lambda: "trained" in scripts.said("south"))
    scripts.kill("south")  # in the midst of its callback
    gate.touch()
    scripts.script("south", wait)  # with the token that it has redeemed
    scripts.until(lambda: scripts.client.session_is_finished("cut"))
    assert scripts.client.get_session_status("cut") == "Finished"
    for got, want in zip(scripts.model("cut-1:4"), closed_form(4), strict=True):
        assert np.allclose(got, want, atol=1e-6)
    assert {c["name"] for c in scripts.client.get_clients()["result"]} == set(ROWS)


def test_a_process_of_callbacks_runs_no_package_and_a_session_needs_a_seed(
    scripts: Scripts, tmp_path: Path
) -> None:
    scripts.both()
    packaged(scripts, package(tmp_path / "client"), "numpyhelper")
    seed = scripts.client.get_active_model()["model"]
    fitting_model(scripts, tmp_path)
    scripts.client.start_session(name="code", rounds=1, min_clients=1)

    def refused() -> list[str]:
        return [s.reason for run in scripts.facts() for s in run.sites if s.state == "refused"]

    scripts.until(lambda: len(refused()) == 2)  # already for the data that a package asks for
    assert all("does not have" in reason for reason in refused())
    assert all("trained" not in scripts.said(name) for name in ROWS)
    assert (
        scripts.session("local", rounds=1, package="local", model_id=seed) == "Finished"
    )  # beside a package
    with pytest.raises(PlanError, match="without a seed model"):
        start(scripts.client._membership, Desk(Elsewhere(tmp_path)), Wanted("x"))  # type: ignore[arg-type]


def test_a_client_of_packages_runs_each_session_s_and_no_callback(
    scripts: Scripts, tmp_path: Path
) -> None:
    """package = remote: the package comes with the session, from whom the client has named."""
    data = rows(tmp_path / "rows")
    for name in ROWS:
        scripts.remote(name, data / name)
    packaged(scripts, package(tmp_path / "client"), "numpyhelper")
    fitting_model(scripts, tmp_path)
    assert scripts.session("packages", rounds=1) == "Finished"
    # Each goes to its own mean: 4 of 2 rows and -8 of 6 rows are -5.
    assert scripts.model("packages-1:1")[0].tolist() == [[-5.0, -5.0]]
    settings = next((scripts.folder / "north-home").rglob("site.toml")).read_text()
    assert 'sandbox = "none"' not in settings and "ZeroDivision" not in scripts.said("north")


def test_a_package_of_somebody_who_is_not_named_waits_for_the_owner(
    scripts: Scripts, tmp_path: Path
) -> None:
    data = rows(tmp_path / "rows")
    scripts.remote("north", data / "north", ', "submitters": ["somebody-else"]')
    packaged(scripts, package(tmp_path / "client"), "numpyhelper")
    fitting_model(scripts, tmp_path)
    scripts.client.start_session(name="unasked", rounds=1, min_clients=1)

    def said() -> list[str]:
        return [site.state for run in scripts.facts() for site in run.sites]

    scripts.until(lambda: bool(said()) and said() != ["asked"])
    assert said() == ["refused"], said()


def test_split_learning_by_scripts_alone(scripts: Scripts, tmp_path: Path) -> None:
    """FEDn's notebook of split learning, word for word; the labels are at a third client."""
    data = columns(tmp_path / "columns")
    for name in ("bank", "shop", "labels"):
        scripts.remote(name, data / name)
    client = packaged(scripts, split_package(tmp_path / "client"), "splitlearninghelper")
    session_config = {
        "helper": "splitlearninghelper",
        "id": "1",
        "aggregator": "splitlearningagg",
        "rounds": 2,
        "round_timeout": 60,
    }
    client.start_splitlearning_session(**session_config, min_clients=2)
    scripts.until(lambda: client.session_is_finished("1"))
    assert client.get_session_status("1") == "Finished"
    client.download_model("1-1:1", str(tmp_path / "head.npz"))
    with np.load(tmp_path / "head.npz") as head:
        found = np.sign(head["head/weight"][0, :4])
    assert found.tolist() == np.sign(joint(1, 0.5)["v"]).tolist()
    measured = [json.loads(v["data"]) for v in client.get_validations("1")["result"]]
    assert [found["accuracy"] for found in measured] == [1.0, 1.0]  # of y_test, at the labels
    with pytest.raises(PlanError, match="such session"):
        client.start_session(name="2")


def fitting_model(scripts: Scripts, folder: Path) -> None:
    """Make a seed model of the package's shapes the active one."""
    shapes = {"0": np.zeros((1, 2), np.float32), "1": np.array(0, np.float32)}
    (folder / "other.npz").write_bytes(npz(**shapes))
    scripts.client.set_active_model(str(folder / "other.npz"))


def packaged(scripts: Scripts, source: Path, helper: str) -> APIClient:
    """Make the package in a folder the active one."""
    (source / "python_env.yaml").unlink(missing_ok=True)
    described = (source / "fedn.yaml").read_text().replace("python_env: python_env.yaml\n", "")
    (source / "fedn.yaml").write_text(described)
    path = archived(source.parent / "package.tgz", source, "client")
    env = ["ENTRYPOINT_OPTS=--data_path={data}"]
    scripts.client.set_active_package(str(path), helper, env=env)
    return scripts.client


class Elsewhere:
    """A membership whose desk is empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
