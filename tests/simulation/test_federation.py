"""What a simulated federation knows of a round before any client answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from projects import final_model, simulate

from hansa.runs import RunFolder

MODEL = """
import numpy as np

def data(client):
    return {"train": range(SIZE[client])}

SIZE = {"client-0": 3_000_000, "client-1": 1_000_000, "client-2": 2_000_000}

def init(rng, sample):
    return {"w": np.zeros(2, np.float32)}

def train(params, data, ctx):
    ctx.weight = len(data)
    return {"w": params["w"] + np.float32([len(data) / 1e6, -1.5])}
"""
PLAN = """
rounds = 1
[learner]
kind = "function"
module = "model.py"
[data]
clients = 3
"""


def run_with(folder: Path, *sets: str) -> RunFolder:
    (folder / "plan.toml").write_text(PLAN)
    (folder / "model.py").write_text(MODEL)
    return simulate(folder, *sets)


def codes(run: RunFolder) -> list[str]:
    return [e["code"] for e in run.log.events if e["kind"] == "problem"]


def test_millions_of_examples_that_only_clients_know_of_can_be_summed(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    assert codes(run) == []
    np.testing.assert_allclose(final_model(run)["w"], [(9 + 1 + 4) / 6, -1.5], rtol=1e-6)


def test_weights_of_the_users_own_need_a_limit_beyond_a_million(tmp_path: Path) -> None:
    refused = run_with(tmp_path, "weighting=user")
    assert codes(refused) == ["update-weight"] * 2
    assert "Set weight_limit in the plan" in refused.log.last("problem")["message"]
    run = run_with(tmp_path, "weighting=user", "weight_limit=1e7")
    assert codes(run) == []
    np.testing.assert_allclose(final_model(run)["w"], [(9 + 1 + 4) / 6, -1.5], rtol=1e-6)


@pytest.mark.parametrize("algorithm", ["scaffold", "fed_avg"])
def test_a_round_is_opened_with_the_weights_that_clients_send(
    tmp_path: Path, algorithm: str
) -> None:
    plan = (
        f'rounds = 1\nalgorithm = "{algorithm}"\n[data]\nset = "digits"\n'
        'split = { scheme = "iid", clients = 3 }\n[cohort]\ncount = 2'
    )
    (tmp_path / "plan.toml").write_text(plan)
    assert codes(simulate(tmp_path)) == []


def test_a_simulation_asks_the_wanted_clients_alone_whatever_the_spare_ones(tmp_path: Path) -> None:
    plain = run_with(tmp_path, "cohort.count=2", "rounds=4")
    over = run_with(tmp_path, "cohort.count=2", "rounds=4", "cohort.over=1.5")
    assert over.name != plain.name
    assert [c["model"] for c in over.commits()] == [c["model"] for c in plain.commits()]
    assert {c["row"]["clients"]["asked"] for c in over.commits()[1:]} == {2}


def test_a_simulation_has_no_deadline(tmp_path: Path) -> None:
    run = run_with(tmp_path, "cohort.deadline_s=1e-9")
    assert run.commits()[-1]["row"]["clients"]["accepted"] == 3
