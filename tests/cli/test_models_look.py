"""What `hansa models show` tells of tensors that are no usual numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hansa.cli import main

MODEL = """
import numpy as np
def data(client): return [1, 2, 3]
def init(rng, sample):
    mask = np.array([np.inf, -np.inf], np.float32)
    return {"w": np.zeros(2, np.float32), "running_mean": mask}
def train(params, data, ctx): return params
def evaluate(params, data): return {"loss": 1.0}
"""
PLAN = """
name = "masked"
rounds = 1
[learner]
kind = "function"
module = "model.py"
[data]
clients = 2
"""


def test_infinity_in_a_model_is_null_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    for words in (["run"], ["models", "show", "masked-1", "--json"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert not ended.value.code
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    mask = next(row for row in told["tensors"] if row["tensor"] == "running_mean")
    assert [mask[key] for key in ("least", "most", "mean", "norm")] == [None] * 4
