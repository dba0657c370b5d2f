"""FEDn's first tutorial: a package without a description, in simulation and as processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from walks import Walk

from hansa.data import load
from hansa.errors import DataError

pytest.importorskip("yaml")


def last_row(runs: Path) -> dict[str, Any]:
    (run,) = runs.iterdir()
    row: dict[str, Any] = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return row


def test_train_py_and_validate_py_run_as_they_are(tmp_path: Path, walk: Walk) -> None:
    try:
        load("mnist5k")
    except DataError as error:
        pytest.skip(str(error))
    told = walk("fedn-tutorial-mnist", 3)
    assert "there is no fedn.yaml" in told and "Not numbers, and sent only where" in told
    simulated, rehearsed = last_row(tmp_path / "runs"), last_row(tmp_path / "rehearsal")
    assert simulated["round"] == 3 and simulated["clients"]["accepted"] == 2
    assert rehearsed["clients"]["accepted"] == 2
    assert simulated["validation"]["test_accuracy"]["mean"] > 0.5  # chance is 0.1
    one = rehearsed["validation"]["test_accuracy"]["mean"]
    assert 0.2 < one < simulated["validation"]["test_accuracy"]["mean"]
