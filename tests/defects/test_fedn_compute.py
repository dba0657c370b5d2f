"""What happens to FEDn's own packages under FEDn and must not here; see docs/explain/defects.md."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compat"))
import numpy as np
from fedn_packages import OLD_TRAIN, WITH_OPTIONS, npz, old_package, package, rows, write

from hansa.compat.fedn.writing import Import, import_package
from hansa.project import open_project
from hansa.runs import RunFolder
from hansa.simulation import Simulation, continue_run, open_run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="packages are lines for a POSIX shell")


def ran(asked: Import, runs: Path) -> RunFolder:
    opened = open_project(import_package(asked).folder, ("rounds=1",))
    simulation = Simulation(runs, new=True)
    made, population = open_run(opened, simulation)
    continue_run(made, opened, population, simulation=simulation)
    made.reload()
    return made


def test_two_clients_do_not_share_an_unpacked_package(tmp_path: Path) -> None:
    """12: packages write beside their own file, as FEDn's examples do with their data."""
    source = package(tmp_path / "client")
    code = (source / "entrypoint.py").read_text()
    seen = tmp_path / "seen"
    write(
        source,
        **{
            "entrypoint.py": f"""import os, sys
here = os.path.dirname(os.path.realpath(__file__))
if sys.argv[1] == "train":
    open({str(seen)!r}, "a").write(f"{{here}} {{os.path.exists(here + '/mine')}}\\n")
    open(here + "/mine", "w").close()
    open(__file__, "a").close()
{code}"""
        },
    )
    data = str(rows(tmp_path / "sites"))
    ran(Import(source, tmp_path / "mine", data=data, env=WITH_OPTIONS), tmp_path / "runs")
    lines = seen.read_text().splitlines()
    assert len(set(lines)) == 2 and all(line.endswith(" False") for line in lines)


def test_an_update_without_num_examples_is_told_and_not_dropped_in_silence(tmp_path: Path) -> None:
    source = package(tmp_path / "client")
    text = (source / "entrypoint.py").read_text()
    key = '"num_examples": len(x), "rate"'
    text = text.replace(key, '("num_examples" if len(x) > 2 else "n"): len(x), "rate"')
    write(source, **{"entrypoint.py": text})
    data = str(rows(tmp_path / "sites"))
    asked = Import(source, tmp_path / "mine", data=data, env=WITH_OPTIONS)
    made = ran(asked, tmp_path / "runs")
    assert made.rows()[-1]["clients"]["accepted"] == 1
    told = json.dumps(made.log.events)
    assert "north" in told and "no num_examples" in told
    assert made.load(made.commits()[-1])[0]["1"].item() == -8.0


def test_the_status_of_a_package_of_the_first_generation_counts(tmp_path: Path) -> None:
    """FEDn up to 0.8 ignored it and took whatever file was there."""
    bad = (
        OLD_TRAIN
        + "sys.exit(3 if weights[0][0] == 0 and '4' in open('../data/value.txt').read() else 0)\n"
    )
    source = write(old_package(tmp_path / "client"), **{"train.py": bad})
    write(tmp_path / "places", **{"north/value.txt": "4", "south/value.txt": "-8"})
    seed = tmp_path / "seed.npz"
    seed.write_bytes(npz(**{"0": np.zeros(2, np.float32)}))
    data = str(tmp_path / "places")
    made = ran(Import(source, tmp_path / "mine", seed_model=seed, data=data), tmp_path / "runs")
    assert made.load(made.commits()[-1])[0]["0"].tolist() == [-8.0, -8.0]
    assert "status 3" in json.dumps(made.log.events)


def test_what_a_package_installs_of_fedn_is_nothing(tmp_path: Path) -> None:
    """61 packages and 239 MB, and a fedn[flower] that can no longer be installed."""
    source = package(tmp_path / "client")
    write(source, **{"python_env.yaml": "dependencies:\n  - fedn[flower]==0.9\n"})
    folder = import_package(Import(source, tmp_path / "mine")).folder
    assert not (folder / "requirements.txt").exists()
