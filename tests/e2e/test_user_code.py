"""Code that raises, hangs or exits at one site does not stop the others, and says why it failed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from federations import FAST, eventually, project, rows, workers

from hansa.dev import Rehearsal
from hansa.site.settings import SiteLimits

PLAN = """
name = "code"
rounds = 2
[learner]
kind = "function"
module = "model.py"
[data]
set = "digits"
split = { scheme = "iid", clients = 3 }
[stop]
metric = "loss"
"""

MODEL = """
import os
import time

import numpy as np


def init(rng, sample):
    return {"w": np.zeros(4, np.float32)}


def train(params, data, ctx):
    if ctx.client in WHO:
        MISCHIEF
    params["w"] += 1.0
    return params, {"loss": 1.0}
"""

MISCHIEF = {
    "raises": "raise ValueError('the scanner has no calibration')",
    "hangs": "time.sleep(600)",
    "exits": "os._exit(3)",
    "floods": "os.write(1, b'x' * 5_000_000); os.abort()",
    "is no number": "params['w'] += np.nan",
}


def model(who: str, mischief: str) -> str:
    return MODEL.replace("WHO", who).replace("MISCHIEF", MISCHIEF[mischief])


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """One federation for all cases: it has to survive each of them."""
    folder = tmp_path_factory.mktemp("code")
    study = project(folder / "study", PLAN, model("()", "raises"))
    limits = SiteLimits(task_s=4.0)
    with Rehearsal(folder / "r", study, settings=FAST, limits=limits) as rehearsal:
        yield rehearsal


def write(federation: Rehearsal, text: str) -> None:
    (federation.project_folder / "model.py").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("mischief", MISCHIEF)
def test_code_that_fails_at_one_site_stops_neither_agent_nor_round(
    federation: Rehearsal, mischief: str
) -> None:
    write(federation, model("('client-1',)", mischief))
    agent = federation.children["client-1"]
    pid = agent.pid
    folder = federation.submit()
    assert federation.follow(folder) == "finished"
    assert [row["clients"]["accepted"] for row in folder.rows()] == [2, 2]
    assert agent.alive and agent.pid == pid
    federation.wait_for("client-1")
    told = federation.command("log", folder.name, "--runs", str(federation.runs)).stdout
    words = {
        "raises": "the scanner has no calibration",
        "hangs": "4 s",
        "exits": "status 3",
        "floods": "signal 6",
        "is no number": "update-not-finite",
    }[mischief]
    assert any("client-1" in line and words in line for line in told.splitlines()), told
    eventually(lambda: not workers(federation), what="a worker stays after its run")


def test_a_run_in_which_every_client_fails_ends_failed_with_who_and_why(
    federation: Rehearsal,
) -> None:
    write(federation, model("ctx.client", "raises"))
    done = federation.command(*federation.run_words("--new"))
    assert done.returncode == 1
    text = done.stdout + done.stderr
    assert "the scanner has no calibration" in text and "client-" in text
    assert "Traceback" not in text
    state, reason = rows(federation, "select state, reason from runs order by created_at, run")[-1]
    assert state == "failed"
    assert "client-" in reason and "the scanner has no calibration" in reason
    shown = federation.command("show", "--runs", str(federation.runs), "--json")
    record = json.loads(shown.stdout)
    assert record["state"] == "failed" and "client-" in record["reason"]
    told = federation.command("log", "--runs", str(federation.runs)).stdout
    for site in federation.names:
        assert site in told
    assert all(child.alive for child in federation.children.values())
