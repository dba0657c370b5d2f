"""FEDn packages train unchanged: closed forms, sidecars, predictions, and each client alone."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fedn_packages import WITH_OPTIONS, archived, npz, old_package, package, rows, write
from projects import run

from hansa.cli.package import command as package_command
from hansa.cli.predict import command as predict_command
from hansa.compat.fedn.writing import Import, import_package
from hansa.errors import HansaError
from hansa.runs import all_runs
from hansa.runs.result import validation_table

pytestmark = pytest.mark.skipif(os.name == "nt", reason="packages are lines for a POSIX shell")


def imported(tmp_path: Path, source: Path, **asked) -> Path:
    return import_package(
        Import(source, tmp_path / "mine", data=str(rows(tmp_path / "sites")), **asked)
    ).folder


@pytest.mark.parametrize("layout", ["folder", "client", ""])
def test_a_package_trains_to_its_closed_form(tmp_path, layout):
    source = package(tmp_path / "client")
    if layout != "folder":
        source = archived(tmp_path / "package.tgz", source, layout)
    made = run(imported(tmp_path, source, env=WITH_OPTIONS), tmp_path / "runs", "rounds=2")
    model, _ = made.load(made.commits()[-1])
    # Each goes to its own mean: 4 of 2 rows and -8 of 6 rows are -5.
    assert model["0"].tolist() == [[-5.0, -5.0]] and model["1"].item() == -5.0
    assert model["0"].dtype == np.float32
    told = json.dumps(made.rows()[-1])
    assert '"error"' in told and '"by.row"' in told and '"note"' not in told


def test_the_options_of_a_client_s_own_environment_reach_its_lines(tmp_path, monkeypatch):
    monkeypatch.setenv("ENTRYPOINT_OPTS", "--data_path={data}")
    folder = imported(tmp_path, package(tmp_path / "client"))
    made = run(folder, tmp_path / "runs", "rounds=1")
    assert made.load(made.commits()[-1])[0]["1"].item() == -5.0


def test_a_client_setting_reaches_the_package(tmp_path):
    source = package(tmp_path / "client")
    folder = imported(tmp_path, source, env=WITH_OPTIONS, settings=("rate=0.5",))
    made = run(folder, tmp_path / "runs", "rounds=1")
    model, _ = made.load(made.commits()[-1])
    assert model["0"].tolist() == [[-2.0, -3.5]]  # half the way from 1 and -2 to -5
    assert made.rows()[-1]["train"]["rate"]["mean"] == 0.5


def test_a_package_of_the_first_generation_finds_its_data_one_folder_up(tmp_path):
    seed = tmp_path / "seed.npz"
    seed.write_bytes(npz(**{"0": np.zeros(2, np.float32), "1": np.ones((1, 1), np.float32)}))
    source = old_package(tmp_path / "client")
    write(tmp_path / "places", **{"north/value.txt": "4", "south/value.txt": "-8"})
    made = import_package(
        Import(source, tmp_path / "mine", seed_model=seed, data=str(tmp_path / "places"))
    )
    done = run(made.folder, tmp_path / "runs", "rounds=1")
    model, _ = done.load(done.commits()[-1])
    # No metadata: each counts one, so 4 and -8 are -2.
    assert model["0"].tolist() == [-2.0, -2.0] and model["1"].tolist() == [[-2.0]]


def test_what_a_package_predicts_is_its_own_file(tmp_path):
    folder = imported(tmp_path, package(tmp_path / "client"), env=WITH_OPTIONS)
    out = tmp_path / "predicted.json"
    words = ["run", "predict", str(folder), "-o", str(out)]
    done = CliRunner().invoke(package_command, words)
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text()) == {"predicted": [3.5, 5.5]}  # rows 3 and 5, and 0.5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("print('no rows here'); raise SystemExit(7)", "status 7. It printed last: no rows here"),
        ("pass", "wrote nothing to model_out.npz"),
        ("open(paths[1], 'wb').write(b'\\x80\\x04.')", "a pickle"),
        ("helper.save(weights, paths[1]); save_metadata({'n': 1}, paths[1])", "no num_examples"),
        ("helper.save(weights, paths[1]); save_metadata({'num_examples': 0.5}, paths[1])", "0.5"),
        ("helper.save(weights[:1], paths[1])", "1 tensors; it was given 2"),
    ],
)
def test_a_package_that_fails_is_one_client_s_failure_with_its_reason(tmp_path, line, words):
    source = package(tmp_path / "client")
    text = (source / "entrypoint.py").read_text()
    bad = f'    if task == "train" and len(x) == 2:\n        {line}\n    elif task == "train":'
    (source / "entrypoint.py").write_text(text.replace('    if task == "train":', bad))
    made = run(imported(tmp_path, source, env=WITH_OPTIONS), tmp_path / "runs", "rounds=1")
    assert made.rows()[-1]["clients"]["accepted"] == 1
    assert words in json.dumps(made.log.events)


def test_startup_comes_first_and_its_failure_is_ignored(tmp_path):
    source = package(tmp_path / "client")
    text = (source / "fedn.yaml").read_text()
    start = "  startup: {command: cp entrypoint.py made.py; false}\n"
    text = text.replace("entrypoint.py", "made.py") + start
    (source / "fedn.yaml").write_text(text.replace("cp made.py", "cp entrypoint.py"))
    folder = imported(tmp_path, source, env=WITH_OPTIONS, init="python entrypoint.py init_seed")
    made = run(folder, tmp_path / "runs", "rounds=1")
    assert made.load(made.commits()[-1])[0]["1"].item() == -5.0
    plan = import_package(Import(source, tmp_path / "other", startup=False)).folder / "plan.toml"
    assert "--startup" not in tomllib.loads(plan.read_text())["learner"]["train"]


def test_other_content_of_a_validation_leaves_a_client_only_where_the_plan_says_so(tmp_path):
    folder = imported(tmp_path, package(tmp_path / "client"), env=WITH_OPTIONS)
    quiet = run(folder, tmp_path / "runs", "rounds=1")
    assert "reports" not in quiet.rows()[-1]
    told = run(folder, tmp_path / "runs", "rounds=1", "evaluate.reports=true")
    row = told.rows()[-1]
    assert row["reports"]["north"] == {
        "error": 9.0, "by": {"row": 3}, "note": "text", "rows": [1, 2],
    }  # fmt: skip
    for part in ("train", "validation"):  # and the numbers are the same
        assert row[part] == quiet.rows()[-1][part]
    assert told.commits()[-1]["model"] == quiet.commits()[-1]["model"]
    table = validation_table(told.name, told.rows())
    assert [(r["client"], r["report"]["note"]) for r in table] == [
        ("north", "text"), ("south", "text"),
    ]  # fmt: skip


def test_each_client_predicts_with_a_model_of_the_trail(tmp_path):
    folder = imported(tmp_path, package(tmp_path / "client"), env=WITH_OPTIONS)
    made = run(folder, tmp_path / "runs", "rounds=1")
    words = [f"{made.name}:1", "--runs", str(tmp_path / "runs"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(predict_command, words)
    assert done.exit_code == 0, done.output
    # The package adds its second tensor, -5, to each row: 3 and 5, and six times -8.
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").iterdir()}
    assert found == {"north": {"predicted": [-2.0, 0.0]}, "south": {"predicted": [-13.0] * 6}}
    (asked,) = [r for r in all_runs(tmp_path / "runs") if r.name != made.name]
    assert asked.about["seed_model"]["origin"] == f"{made.name}:1"
    assert asked.commits()[-1]["model"] == made.commits()[-1]["model"]  # nothing was trained


def test_a_package_that_predicts_no_json_fails_at_that_client_and_says_why(tmp_path):
    source = package(tmp_path / "client")
    text = (source / "entrypoint.py").read_text()
    text = text.replace(
        'save_metrics({"predicted"', 'open(paths[1], "w").write("x") or ({"predicted"'
    )
    (source / "entrypoint.py").write_text(text.replace("}, paths[1])\n\n\nmain", "})\n\n\nmain"))
    folder = imported(tmp_path, source, env=WITH_OPTIONS)
    made = run(folder, tmp_path / "runs", "rounds=1")
    done = CliRunner().invoke(predict_command, [made.name, "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 1 and isinstance(done.exception, HansaError)
    assert "no JSON" in str(done.exception)
