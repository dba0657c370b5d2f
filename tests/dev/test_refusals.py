"""A rehearsal whose sites refuse the run ends and says why; it does not wait for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_dev_command import hansa

from hansa.dev.refusals import Refusals
from hansa.project import open_project

PLAN = """
name = "shy"
rounds = 2
[learner]
kind = "function"
module = "model.py"
[data]
clients = 2
[cohort]
minimum = 2
"""

MODEL = """
import os
import numpy as np

def data(client):
    if os.environ.get("USER") == "site":
        raise ValueError("the ward has no data")
    return {"train": [1.0], "validation": [1.0]}

def init(rng, sample):
    return {"w": np.zeros(1, np.float32)}

def train(params, data, ctx):
    return params, {}

def evaluate(params, data):
    return {}
"""


@pytest.fixture
def shy(home: Path) -> Path:
    (home / "shy").mkdir()
    (home / "shy" / "plan.toml").write_text(PLAN, encoding="utf-8")
    (home / "shy" / "model.py").write_text(MODEL, encoding="utf-8")
    return home / "shy"


def word(site: str, state: str, reason: str = "") -> dict[str, str]:
    return {"kind": "standing", "site": site, "state": state, "reason": reason}


def test_a_run_is_hopeless_once_fewer_than_its_minimum_can_take_part(shy: Path) -> None:
    found = Refusals(3, open_project(shy))
    assert not found.leave_too_few(word("a", "refused", "no data."))
    assert not found.leave_too_few({"kind": "waiting"})
    assert not found.leave_too_few(word("a", "ready"))
    assert not found.leave_too_few(word("b", "refused", "no data."))
    assert found.leave_too_few(word("a", "refused", "no data."))
    told = str(found.error("shy-1"))
    assert "2 of 3 sites refuse shy-1, which needs 2. b, a: no data." in told


def test_more_combiners_than_sites_are_refused_with_a_sentence(shy: Path) -> None:
    done = hansa(shy.parent, "dev", "shy", "--sites", "2", "--combiners", "9")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "9 combiners for 2 sites" in done.stderr and "--combiners 2" in done.stderr


def test_a_rehearsal_that_every_site_refuses_ends_and_names_the_reason(shy: Path) -> None:
    done = hansa(shy.parent, "dev", "shy", "--sites", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the ward has no data" in done.stderr and "It was ended." in done.stderr
    assert "[run-too-few]" in done.stderr and "Traceback" not in done.stderr
