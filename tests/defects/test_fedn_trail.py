"""What was found wrong in FEDn's trail, stores and selection must not happen here."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.dev import SERVER, Rehearsal
from hansa.remote.trail import server_trail

PLAN = """
name = "tiny"
rounds = 2
seed = 7
[learner]
kind = "numpy"
[data]
set = "digits"
split = { scheme = "iid", clients = 3 }
[data.attributes]
client-0 = { region = "eu" }
client-1 = { region = "eu" }
[cohort]
where = { region = "eu" }
[keep]
every = 1
"""


@pytest.fixture
def federation(tmp_path: Path) -> Rehearsal:
    project = tmp_path / "study"
    project.mkdir()
    (project / "plan.toml").write_text(PLAN)
    return Rehearsal(tmp_path / "r", project, settings={"heartbeat_s": 0.5, "gather_s": 5.0})


def test_the_sql_store_holds_runs_models_and_validations_over_a_kill(
    federation: Rehearsal,
) -> None:
    with federation:
        first = federation.run()
        before = [(m.name, m.digest, m.kept) for m in server_trail(federation.connection).models]
        assert [name for name, _, _ in before] == ["tiny-1:0", "tiny-1:1", "tiny-1:2"]
        federation.kill(SERVER)
        federation.start(SERVER)
        after = [(m.name, m.digest, m.kept) for m in server_trail(federation.connection).models]
        assert after == before and all(kept for _, _, kept in after)
        second = federation.run("--from", "tiny-1:2")
        assert second.commits()[0]["model"] == first.commits()[-1]["model"]


def test_clients_that_were_not_chosen_neither_train_nor_validate(federation: Rehearsal) -> None:
    with federation:
        for row in federation.run().rows():
            for part in ("train", "validation"):
                assert set(row[part]["loss"]["by_client"]) == {"client-0", "client-1"}
