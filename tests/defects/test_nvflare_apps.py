"""What an app met in NVFlare and must not meet here, through `hansa import nvflare`.

Method: apps of the tests of `compat`, simulated; see docs/explain/defects.md for the list.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hansa.compat.nvflare.writing import import_app
from hansa.errors import RunError

sys.path.insert(0, str(Path(__file__).parents[1] / "compat"))

from flare_apps import TRAINER, UNEQUAL, W0, server_config, write_app
from projects import simulate


def saved(folder: Path) -> np.ndarray:
    run = simulate(folder)
    return np.load(run.path / "models" / "server.npy", allow_pickle=False)


def test_an_aggregation_weight_also_divides(tmp_path: Path) -> None:
    """2.0.0 summed w n x and divided by sum n: equal models came out scaled."""
    aggregator = {"expected_data_kind": "WEIGHTS", "aggregation_weights": {"site-1": 4.0}}
    code = UNEQUAL.replace('"site-2": -4.0', '"site-2": 1.5')
    server = server_config(num_rounds=1, aggregator=aggregator)
    found = saved(import_app(write_app(tmp_path / "app", code, server=server)).folder)
    assert np.array_equal(found, W0 + 1.5)


def test_ten_seconds_are_not_waited_after_the_last_answer(tmp_path: Path) -> None:
    folder = import_app(write_app(tmp_path / "app")).folder  # wait_time_after_min_received: 10
    began = time.monotonic()
    assert np.array_equal(saved(folder), W0 + 3)
    assert time.monotonic() - began < 25  # three times ten there


def test_an_executor_that_raises_names_the_line_and_not_only_a_code(tmp_path: Path) -> None:
    """`EXECUTION_EXCEPTION` was all that the server said."""
    code = TRAINER.replace("dxo.data[KEY] += self._delta", "dxo.data[KEY] += self._gone")
    with pytest.raises(RunError) as caught:
        saved(import_app(write_app(tmp_path / "app", code)).folder)
    assert "np_trainer.py, line" in str(caught.value) and "_gone" in str(caught.value)


def test_a_model_of_numpy_is_never_a_pickle(tmp_path: Path) -> None:
    run = simulate(import_app(write_app(tmp_path / "app")).folder)
    content = (run.path / "models" / "server.npy").read_bytes()
    assert content[:6] == b"\x93NUMPY" and len(content) == 128 + 36
    assert b"'descr': '<f4'" in content
