"""FEDn's tutorial of the compute package: alone, and at two clients started as a container does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from walks import Walk

from hansa.data import load
from hansa.dev.rehearsal import free_port
from hansa.errors import DataError
from hansa.store.files import load_params

pytest.importorskip("torch")


def test_the_package_trains_at_two_clients_and_its_validations_are_kept(
    tmp_path: Path, walk: Walk
) -> None:
    try:
        load("mnist5k")
    except DataError as error:
        pytest.skip(str(error))
    told = walk("fedn-compute-package", 1, free_port())
    (run,) = (tmp_path / "runs").iterdir()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 1 and all(row["clients"]["accepted"] == 2 for row in rows)
    assert set(rows[-1]["validation"]["test_accuracy"]["by_client"]) == {"client1", "client2"}
    before = float(re.findall(r"test_accuracy (\S+)", told)[0])
    assert before < 0.25  # of the seed model; chance is 0.1
    assert rows[-1]["validation"]["test_accuracy"]["mean"] > 0.5
    model = load_params(tmp_path / "model.safetensors")
    assert {name: array.shape for name, array in model.items()}["5.weight"] == (10, 32)
    assert all(array.dtype == np.float32 for array in model.values())
