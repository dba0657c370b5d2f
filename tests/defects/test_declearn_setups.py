"""What a set-up met in declearn and must not meet here, through `hansa import declearn`.

The facts stand in the seeds' contract with declearn 2.9.1: each was seen by running it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "compat"))
sys.path.insert(0, str(Path(__file__).parents[1] / "simulation"))

from declearn_setups import CONFIG, SKLEARN, write_setup
from projects import final_model, simulate

from hansa.compat.declearn.writing import import_setup
from hansa.errors import PlanError

NORMALISED = """
import torch

from declearn.model.torch import TorchModel

model = TorchModel(
    torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)), torch.nn.MSELoss()
)
"""


@pytest.mark.torch
def test_statistics_of_batch_norm_are_not_left_untrained(tmp_path: Path) -> None:
    """Buffers were never shared: the saved model had a mean of 0 and a variance of 1."""
    pytest.importorskip("torch")
    found = final_model(simulate(import_setup(write_setup(tmp_path / "bn", NORMALISED)).folder))
    assert np.abs(found["0.running_mean"]).min() > 0.01
    assert found["0.running_var"][1] > 1.5  # this column's deviation is 3


def test_a_mistyped_key_of_a_set_up_is_not_ignored(tmp_path: Path) -> None:
    """Quickrun dropped it without a word, and trained something else."""
    config = CONFIG.replace("drop_remainder", "").replace("n_steps", "n_step")
    with pytest.raises(PlanError, match="Did you mean 'n_steps'"):
        import_setup(write_setup(tmp_path / "typo", SKLEARN, config))


def test_a_whole_number_as_rate_is_no_type_error(tmp_path: Path) -> None:
    config = CONFIG.replace("lrate = 0.5", "lrate = 1")
    plan = (
        import_setup(write_setup(tmp_path / "one", config=config)).folder / "plan.toml"
    ).read_text()
    assert '"lr" = 1.0' in plan or "lr = 1.0" in plan
