"""Server functions over TLS: the bytes of a simulation, also when the server is killed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from federations import FAST, as_simulated, orphans

from hansa.dev import Rehearsal

sys.path.insert(0, str(Path(__file__).parents[1] / "functions"))
from served_projects import PLAN, written

MOMENTUM = """
import numpy as np
def select(round, clients, memory):
    memory["rounds"] = memory.get("rounds", 0) + 1
    assert memory["rounds"] == round
    return clients
def settings(round):
    return {"rate": 1.0 / round}
def aggregate(model, updates, memory):
    mean = sum(u.model["w"] for u in updates.values()) / len(updates)
    memory["step"] = (mean - model["w"]) + 0.5 * memory.get("step", np.zeros(2))
    return {"w": model["w"] + memory["step"]}
"""
SITES = PLAN + "[cohort]\nminimum = 4\n"


@pytest.mark.parametrize("point", [None, "after_update_recorded:5", "after_round_closed:2"])
def test_a_federation_serves_as_a_simulation_does(tmp_path: Path, point: str | None) -> None:
    study = written(tmp_path / "study", MOMENTUM, SITES)
    with Rehearsal(tmp_path / "r", study, settings=FAST) as federation:
        folder = as_simulated(federation, point)
        asked = [row["server_functions"]["selected"] for row in folder.rows()]
        assert asked == [4, 4, 4]
    assert not orphans(federation)
