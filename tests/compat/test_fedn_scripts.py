"""Goal: a script of FEDn's `FednClient` is a site, word for word, and trains in its own process.

Method: a server over TLS and two scripts as processes of their own, each with its own HANSA_HOME;
FedAvg's closed form in NumPy, with signed data and unequal num_examples.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fedn_scripts import ROWS, Scripts, closed_form

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
    """Train once by the worker of this process, and return the reason of the failure."""
    import io
    import tempfile

    from hansa.compat.fedn import FednClient
    from hansa.compat.fedn.present import HAND_OVER, Settings, bring
    from hansa.compat.fedn.sessions import _LOCAL
    from hansa.compat.own_process import OwnProcess
    from hansa.site.policy import Policy
    from hansa.site.settings import SiteSettings

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "site"))
    from site_cases import case_of  # type: ignore[attr-defined]

    scope = {"np": np, "sys": sys, "io": io}
    exec(  # noqa: S102 - lines of this file
        "def train(model):\n"
        "    found = np.load(model)\n"
        "    trained, metadata = [found['0'], found['1']], {'num_examples': 2}\n"
        f"    {line}\n"
        "    out = io.BytesIO()\n"
        "    np.savez(out, *trained)\n"
        "    return out, metadata\n",
        scope,
    )
    bring(FednClient(scope["train"]))
    return ""
