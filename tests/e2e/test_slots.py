"""Two runs that want the same graphics card: kill -9 of the server changes nothing of it.

Oracle: what each task of each run saw, written by its own code, beside the models of simulations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from federations import CALM, digest, eventually, project, rows

from hansa.dev import SERVER, Rehearsal
from hansa.remote import asking

PLAN = """
name = "card"
rounds = 5000
[learner]
kind = "function"
module = "model.py"
[data]
clients = 2
[cohort]
minimum = 2
[resources]
gpu = 1
"""

MODEL = """
import os, time
import numpy as np

def data(client):
    return {"train": [client], "validation": [client]}

def init(rng, sample):
    return {"w": np.zeros(1, np.float32)}

def train(params, data, ctx):
    time.sleep(0.05)  # so that runs overlap if they could
    return {"w": params["w"] + 1}, {"card": float(os.environ.get("CUDA_VISIBLE_DEVICES", -1))}

def evaluate(params, data):
    return {"w": float(params["w"][0])}
"""


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Rehearsal]:
    folder = project(tmp_path / "card", PLAN, MODEL)
    with Rehearsal(tmp_path / "r", folder, settings={**CALM, "runs": 4}) as rehearsal:
        yield rehearsal


def spans(federation: Rehearsal, run: str) -> list[tuple[str, str]]:
    """When a run was at work: from an opening to the commit or end after it."""
    query = f"select kind, at, seq from events where run = '{run}' order by seq"
    found, since = [], ""
    for kind, at, _ in rows(federation, query):
        if kind == "opened" and not since:
            since = at
        if kind in ("committed", "ended") and since:
            found.append((since, at))
            since = ""
    return found


def test_a_card_is_lent_to_one_run_at_a_time_through_kill_9_of_the_server(
    federation: Rehearsal,
) -> None:
    first = federation.submit()
    one = (first.remote or {})["run"]
    eventually(lambda: spans(federation, one), what="the first run is at work")
    second = federation.submit(sets=["rounds=3"])
    other = (second.remote or {})["run"]

    def why() -> str:
        return asking.details(federation.connection, other).facts.reason

    eventually(lambda: "it needs 1 gpu" in why())
    for _ in range(2):
        before = len(spans(federation, one))
        eventually(lambda before=before: len(spans(federation, one)) > before)
        federation.kill(SERVER)
        federation.start(SERVER)
        eventually(lambda: f"to {one}" in why(), what="it waits for the same again")
    assert not spans(federation, other), "the second run has begun while the first had the card"
    asking.stop(federation.connection, one)
    assert federation.follow(first) == "stopped"
    assert federation.follow(second) == "finished"
    last = max(at for _, at in spans(federation, one))
    assert last <= min(at for at, _ in spans(federation, other))
    for folder in (first, second):
        assert {row["train"]["card"]["mean"] for row in folder.rows()} == {0.0}, "each had card 0"
    assert digest(second) == digest(federation.simulate(sets=["rounds=3"]))
