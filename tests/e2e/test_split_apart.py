"""Parts of a split model that stay with their clients: over TLS as simulated, and after kills."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from federations import FAST, digest, eventually, orphans

from hansa.compat.fedn.writing import Import, import_package
from hansa.dev import SERVER, Rehearsal
from hansa.runs import RunFolder

sys.path.insert(0, str(Path(__file__).parents[1] / "workflows"))
sys.path.insert(0, str(Path(__file__).parents[1] / "compat"))
from fedn_packages import columns, split_package
from own_parts import MODEL, PLAN, kept
from split_projects import written

SHORT = PLAN.replace("rounds = 4", "rounds = 2").replace("steps = 3", "steps = 2")


def same(one: RunFolder, other: RunFolder) -> None:
    """See that both runs have the same head, and that each client has kept the same part."""
    assert digest(one) == digest(other)
    one.reload()
    other.reload()
    assert kept(one) == kept(other) and len(set(kept(one).values())) > 2


def test_a_federation_splits_as_a_simulation_does(tmp_path: Path) -> None:
    study = written(tmp_path / "study", MODEL, SHORT)
    with Rehearsal(tmp_path / "r", study, settings=FAST) as federation:
        folder = federation.run()
        same(folder, federation.simulate())
        assert folder.rows()[-1]["validation"]["loss"]["mean"] > 0
        wanted = kept(folder)
        sites = [federation.site_folder(c) for c in ("client-0", "client-1", "client-2")]

        def left() -> set[str]:
            return {path.name.split(".")[1] for s in sites for path in s.rglob("parts/*/*")}

        # Each owner has the trained part, which nobody else has.
        eventually(lambda: left() >= {wanted[site.name][7:] for site in sites})
    assert not orphans(federation)


@pytest.mark.parametrize(
    ("who", "point"),
    [
        (SERVER, "after_update_recorded:4"),
        (SERVER, "before_model_written:1"),
        ("client-2", "site_before_update_kept:2"),  # between forward and backward of a batch
        ("client-2", "site_after_update_kept:4"),
        ("client-0", "site_before_update_kept:4"),  # backward is done, and nobody knows
    ],
)
def test_a_kill_brings_no_part_ahead_of_another(tmp_path: Path, who: str, point: str) -> None:
    study = written(tmp_path / "study", MODEL, SHORT)
    with Rehearsal(tmp_path / "r", study, settings=FAST) as federation:
        federation.stop(who)
        federation.start(who, failpoint=point)
        folder = federation.submit()
        federation.children[who].wait(60)
        federation.start(who)
        assert federation.follow(folder, seconds=100) == "finished"
        same(folder, federation.simulate())


@pytest.mark.skipif(os.name == "nt", reason="packages are lines for a POSIX shell")
def test_a_fedn_package_of_split_learning_outlives_a_kill(tmp_path: Path) -> None:
    """FEDn's local parts lie in files of the client; a commit could not hold them."""
    data = str(columns(tmp_path / "sites"))
    asked = Import(split_package(tmp_path / "client"), tmp_path / "study", data=data, features=4)
    study = import_package(asked).folder
    text = (study / "plan.toml").read_text().replace("minimum = 2", "minimum = 3")
    (study / "plan.toml").write_text(text.replace("rounds = 5", "rounds = 2"))
    with Rehearsal(tmp_path / "r", study, settings=FAST) as federation:
        federation.stop("shop")
        federation.start("shop", failpoint="site_before_update_kept:2")
        folder = federation.submit()
        federation.children["shop"].wait(60)
        federation.start("shop")
        assert federation.follow(folder, seconds=100) == "finished"
        same(folder, federation.simulate())
