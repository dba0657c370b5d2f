"""Split learning over TLS gives the bytes of a simulation, whoever is killed in a batch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from federations import FAST, digest, orphans

from hansa.dev import SERVER, Rehearsal

sys.path.insert(0, str(Path(__file__).parents[1] / "workflows"))
from split_projects import PLAN, written

SHORT = PLAN.replace("rounds = 4", "rounds = 2").replace("steps = 3", "steps = 2")


def test_a_federation_splits_as_a_simulation_does(tmp_path: Path) -> None:
    study = written(tmp_path / "study", plan=SHORT)
    with Rehearsal(tmp_path / "r", study, settings=FAST) as federation:
        folder = federation.run()
        assert digest(folder) == digest(federation.simulate())
        assert folder.rows()[-1]["validation"]["loss"]["mean"] > 0
    assert not orphans(federation)


@pytest.mark.parametrize(
    ("who", "point"), [(SERVER, "after_update_recorded"), ("client-2", "site_after_update_kept")]
)
def test_a_kill_in_a_batch_changes_nothing(tmp_path: Path, who: str, point: str) -> None:
    study = written(tmp_path / "study", plan=SHORT)
    with Rehearsal(tmp_path / "r", study, settings=FAST) as federation:
        federation.stop(who)
        federation.start(who, failpoint=f"{point}:4")
        folder = federation.submit()
        federation.children[who].wait(60)
        federation.start(who)
        assert federation.follow(folder, seconds=100) == "finished"
        assert digest(folder) == digest(federation.simulate())
