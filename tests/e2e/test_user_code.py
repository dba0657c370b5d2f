"""Code that raises, hangs or exits at one site does not stop the others, and says why it failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from federations import FAST, digest, eventually, project, rows, workers

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


@pytest.fixture
def limits() -> Iterator[SiteLimits]:
    yield SiteLimits(task_s=4.0)


@pytest.mark.parametrize("mischief", MISCHIEF)
def test_code_that_fails_at_one_site_stops_neither_agent_nor_round(
    tmp_path: Path, limits: SiteLimits, mischief: str
) -> None:
    study = project(tmp_path / "study", PLAN, model("('client-1',)", mischief))
    with Rehearsal(tmp_path / "r", study, settings=FAST, limits=limits) as federation:
        pid = federation.children["client-1"].pid
        folder = federation.run()
        assert [row["clients"]["accepted"] for row in folder.rows()] == [2, 2]
        assert digest(folder) != "blake3:" and len(folder.rows()) == 2
        agent = federation.children["client-1"]
        assert agent.alive and agent.pid == pid
        federation.wait_for("client-1")
        told = federation.command("log", folder.name, "--runs", str(federation.runs)).stdout
        assert "client-1" in told
        words = {
            "raises": "the scanner has no calibration",
            "hangs": "4 s",
            "exits": "status 3",
            "floods": "signal 6",
            "is no number": "update-not-finite",
        }[mischief]
        assert words in told, told
        eventually(lambda: not workers(federation), what="a worker stays after its run")


def test_a_run_in_which_every_client_fails_ends_failed_with_who_and_why(
    tmp_path: Path, limits: SiteLimits
) -> None:
    study = project(tmp_path / "study", PLAN, model("ctx.client", "raises"))
    with Rehearsal(tmp_path / "r", study, settings=FAST, limits=limits) as federation:
        done = federation.command(*federation.run_words("--new"))
        assert done.returncode == 1
        text = done.stdout + done.stderr
        assert "the scanner has no calibration" in text and "client-" in text
        assert "Traceback" not in text
        assert rows(federation, "select state from runs") == [("failed",)]
        (reason,) = rows(federation, "select reason from runs")[0]
        assert "client-" in reason and "the scanner has no calibration" in reason
        shown = federation.command("show", "--runs", str(federation.runs), "--json")
        record = json.loads(shown.stdout)
        assert record["state"] == "failed" and "client-" in record["reason"]
        told = federation.command("log", "--runs", str(federation.runs)).stdout
        for site in federation.names:
            assert site in told
        assert all(child.alive for child in federation.children.values())
