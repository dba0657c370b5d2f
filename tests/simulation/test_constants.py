"""Numbers that a float64 cannot hold stay as they are in both engines, and over an interruption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from projects import final_model, run, run_interrupted

from hansa.params import Params

CODES = [2**62 + 1, -(2**61) - 3]

PLAN = """
name = "codes"
rounds = 4
seed = 3
[learner]
kind = "function"
module = "model.py"
[data]
clients = 3
[stop]
metric = "first"
"""

MODEL = f"""
import numpy as np
def data(client): return {{"train": [1] * (2 + len(client)), "validation": [1]}}
def init(rng, sample): return {{"w": np.zeros(2, np.float32), "codes": np.array({CODES})}}
def train(params, data, ctx):
    assert params["codes"].tolist() == {CODES}, params["codes"]
    return {{**params, "w": params["w"] + np.float32(0.5)}}
def evaluate(params, data):
    return {{"first": float(params["w"][0]) + float(params["codes"].tolist() != {CODES})}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "plan.toml").write_text(PLAN)
    (tmp_path / "study" / "model.py").write_text(MODEL)
    return tmp_path / "study"


@pytest.mark.parametrize("how", ["inline", "processes", "interrupted"])
def test_constants_stay_to_the_bit(study: Path, how: str) -> None:
    if how == "interrupted":
        made = run_interrupted(study, study / "runs", "commit", call=3)
    else:
        made = run(study, study / "runs", engine=how)
    model = final_model(made)
    assert model["codes"].tolist() == CODES
    assert model["w"].tolist() == [2.0, 2.0]
    sent = Params.of({"delta": np.zeros(2, np.float32)})
    assert made.rows()[-1]["bytes"]["up"] == 3 * sent.nbytes
    assert not list(made.path.glob("scratch/*"))
