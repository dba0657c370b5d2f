"""X6: the same plan and seeds give the same model in a real federation as in a simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from federations import FAST, SCAFFOLD, check_books, digest, orphans, project

from hansa.dev import Rehearsal
from hansa.store.files import load_params

TEN_ROUNDS = SCAFFOLD.replace("rounds = 3", "rounds = 10")

MOMENTUM = """
name = "momentum"
rounds = 10
seed = 3
algorithm = { name = "fed_adam", lr = 0.01 }
aggregator = { name = "trimmed_mean", fraction = 0.34 }
transforms = [{ name = "clip", norm = 1.0 }]
[learner]
kind = "numpy"
model = "mlp"
hidden = [16]
optimizer = { name = "sgd", lr = 0.1, momentum = 0.9 }
[data]
set = "breast_cancer"
split = { scheme = "iid", clients = 4 }
[cohort]
fraction = 0.75
minimum = 3
"""

CHAINS = """
name = "chains"
rounds = 10
seed = 3
[algorithm]
name = "fed_opt"
lr = 0.05
chain = ["adam", { name = "gaussian_noise", std = 0.001 }, { name = "warmup", length = 4 }]
regularizers = [{ name = "ridge", strength = 0.001 }]
[learner]
kind = "numpy"
model = "mlp"
hidden = [16]
[learner.optimizer]
lr = 0.1
chain = [
  { name = "clip_tensor", norm = 1.0 },
  "nesterov",
  { name = "gaussian_noise", std = 0.01 },
  { name = "cosine", length = 10, by = "round" },
]
regularizers = [{ name = "fed_prox", mu = 0.1 }]
[data]
set = "breast_cancer"
split = { scheme = "iid", clients = 4 }
"""


@pytest.mark.parametrize(
    "plan", [TEN_ROUNDS, MOMENTUM, CHAINS], ids=["scaffold", "fed_adam, clipped", "chains"]
)
def test_a_federation_gives_the_simulations_model_over_ten_rounds(
    tmp_path: Path, plan: str
) -> None:
    with Rehearsal(tmp_path / "r", project(tmp_path / "study", plan), settings=FAST) as federation:
        folder = federation.run()
        simulated = federation.simulate()
        assert digest(folder) == digest(simulated)
        assert len(folder.rows()) == 10
        for here, there in zip(folder.rows(), simulated.rows(), strict=True):
            assert here["clients"] == there["clients"]
            assert here["train"] == there["train"]
        check_books(federation, folder)
    assert not orphans(federation)


@pytest.mark.torch
@pytest.mark.slow
def test_a_torch_project_gives_the_simulations_model_within_rounding(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from hansa.cli import main

    with pytest.raises(SystemExit):
        main(["init", str(tmp_path / "study"), "--template", "torch"])
    sets = ["rounds=2"]
    with Rehearsal(
        tmp_path / "r", tmp_path / "study", sites=3, sets=sets, settings=FAST
    ) as federation:
        folder = federation.run(timeout_s=240)
        simulated = federation.simulate()
        here = load_params(folder.model_path(2)).to_dict()
        there = load_params(simulated.model_path(2)).to_dict()
    assert here.keys() == there.keys()
    for name in here:
        np.testing.assert_allclose(here[name], there[name], rtol=1e-4, atol=1e-5)
