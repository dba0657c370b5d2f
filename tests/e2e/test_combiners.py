"""Goal: combiners change who speaks to whom, and nothing else: the same model, to the byte.

Method: real processes; the digest of a simulation, which knows no combiner, is the oracle.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from federations import FAST, digest, project

from hansa.dev import Rehearsal

PLAN = """
name = "tiers"
rounds = 3
seed = 7
algorithm = { name = "fed_adam", lr = 0.01 }
transforms = [{ name = "clip", norm = 1.0 }]
[learner]
kind = "numpy"
[data]
set = "digits"
split = { scheme = "dirichlet", alpha = 0.5, clients = 4 }
[cohort]
minimum = 4
"""


@pytest.mark.parametrize("combiners", [1, 2])
def test_a_federation_with_combiners_gives_the_simulations_model(
    tmp_path: Path, combiners: int
) -> None:
    study = project(tmp_path / "study", PLAN)
    with Rehearsal(tmp_path / "r", study, settings=FAST, combiners=combiners) as federation:
        folder = federation.run()
        simulated = federation.simulate()
        assert digest(folder) == digest(simulated)
        for here, there in zip(folder.rows(), simulated.rows(), strict=True):
            assert here["clients"] == there["clients"]
            assert here["train"] == there["train"]
