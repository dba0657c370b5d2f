"""`hansa package`: one file that cannot be two things, its faults by line, and a trial of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa.cli import main
from hansa.params import Params
from hansa.project import open_project
from hansa.remote.submit import build_archive, project_files
from hansa.store.files import load_params, save_params

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the programs are for a POSIX shell")

PLAN = """\
name = "tried"
[learner]
kind = "command"
train = ["sh", "train.sh"]
validate = ["sh", "validate.sh", "{result_out}"]
init = ["cp", "seed.safetensors", "{model_out}"]
predict = ["sh", "-c", 'cp "$HANSA_DATA_PATH" "$HANSA_PREDICTIONS_OUT"']
[data]
set = "digits"
split = { scheme = "iid", clients = 3 }
"""


@pytest.fixture
def cli(home: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as end:
            main(["package", *words])
        captured = capsys.readouterr()
        assert end.value.code == status, captured.out + captured.err
        return captured.out + captured.err

    return call


@pytest.fixture
def study(home: Path) -> Path:
    folder = home / "study"
    folder.mkdir()
    (folder / "plan.toml").write_text(PLAN)
    (folder / "train.sh").write_text(
        'echo "working on $HANSA_CLIENT"; cp "$HANSA_MODEL_IN" "$HANSA_UPDATE_OUT"\n'
    )
    (folder / "validate.sh").write_text('echo \'{"metrics": {"mae": 0.25}}\' > "$1"\n')
    seed = Params.of({"w": np.array([[1.0, -2.0]], np.float32)})
    save_params(folder / "seed.safetensors", seed)
    (folder / "patients.csv").write_text("never to be packed\n")
    return folder


def test_the_same_files_are_the_same_bytes_and_those_that_a_run_uploads(
    cli: Any, study: Path, home: Path
) -> None:
    text = cli("build", "study")
    first = (home / "tried.zip").read_bytes()
    os.utime(study / "train.sh", (0, 0))
    (study / "train.sh").chmod(0o777)
    facts = json.loads(cli("build", "study", "-o", "again.zip", "--json"))
    assert (home / "again.zip").read_bytes() == first
    assert first == build_archive(project_files(open_project(study)))
    assert facts["digest"] in text and b"never to be packed" not in first
    assert sorted(facts["files"]) == ["plan.toml", "seed.safetensors", "train.sh", "validate.sh"]


def test_show_lists_commands_files_and_digest_of_a_folder_or_a_file(cli: Any, study: Path) -> None:
    cli("build", "study")
    text = cli("show", "study")
    assert cli("show", "tried.zip") == text
    assert "train    sh train.sh" in text and "validate.sh" in text and "blake3:" in text


def test_another_package_than_the_one_that_was_named_is_refused(cli: Any, study: Path) -> None:
    cli("build", "study")
    digest = json.loads(cli("show", "tried.zip", "--json"))["digest"]
    cli("check", "tried.zip", "--digest", digest[: len("blake3:") + 12])
    for wrong in ("blake3:" + "0" * 64, digest[:15], ""):
        for verb in (["show"], ["check"], ["run", "train"]):
            text = cli(*verb, "tried.zip", "--digest", wrong, status=1)
            assert "package-identity" in text


@pytest.mark.parametrize("at", [0, 40, 200, -30])
def test_a_damaged_archive_is_not_opened(cli: Any, study: Path, home: Path, at: int) -> None:
    cli("build", "study")
    content = bytearray((home / "tried.zip").read_bytes())
    content[at] ^= 1
    (home / "tried.zip").write_bytes(content)
    text = cli("run", "train", "tried.zip", status=1)
    assert "package-archive" in text or "package-name" in text


FAULTS = {
    "a file that is missing": (
        ("train = [", 'train = ["sh", "gone.sh", '), "plan.toml:4: train names gone.sh"),
    "a program that is missing": (
        ('"sh", "train.sh"', '"./bin/tool"'), "plan.toml:4: train starts ./bin/tool"),
    "an unknown place": (("{result_out}", "{metrics_out}"), "plan.toml:5: "),
    "a wrong value": (("[data]", "time_s = -1\n[data]"), "plan.toml:8: "),
    "files that are not there": (("[data]", 'files = ["lib"]\n[data]'), "plan.toml:8: it names"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_check_tells_faults_by_file_and_line(cli: Any, study: Path, case: str) -> None:
    (old, new), words = FAULTS[case]
    assert cli("check", "study").strip() == "Nothing in it is wrong."
    (study / "plan.toml").write_text(PLAN.replace(old, new, 1))
    assert words in cli("check", "study", status=1)


def test_check_looks_into_the_files_without_running_them(cli: Any, study: Path) -> None:
    (study / "bad.py").write_text("import os\nos.mkdir('ran')\nif True print(1)\n")
    (study / "train.sh").write_bytes(b"#!/bin/sh\r\necho $HANSA_UPDATE_OUT\r\n")
    text = cli("check", "study", status=1)
    assert "bad.py:3: is not valid Python" in text
    assert "train.sh:1: ends its lines as Windows does" in text
    assert not Path("ran").exists()


def test_check_warns_of_a_train_that_writes_no_update(cli: Any, study: Path) -> None:
    (study / "train.sh").write_text("true\n")
    found = json.loads(cli("check", "study", "--json"))
    assert found["sound"] is True
    assert [f["line"] for f in found["faults"]] == [4]
    assert "HANSA_UPDATE_OUT" in found["faults"][0]["what"]


def test_each_command_can_be_tried_as_a_client_runs_it(cli: Any, study: Path, home: Path) -> None:
    text = cli("run", "train", "study", "--client", "client-2", "-o", "t.safetensors")
    assert "working on client-2" in text and "tensor   w F32 [1, 2]" in text
    assert "change   norm 0" in text
    assert load_params(home / "t.safetensors")["w"].tolist() == [[1.0, -2.0]]
    found = json.loads(cli("run", "validate", "study", "--model", "t.safetensors", "--json"))
    assert found["metrics"] == {"mae": 0.25} and found["seconds"] >= 0
    assert "tensor   w" in cli("run", "init", "study", "-o", "i.safetensors")
    cli("run", "predict", "study", "-o", "rows.npz")
    assert np.load(home / "rows.npz", allow_pickle=False)["x"].shape[1] == 64
    cli("build", "study")
    assert "working on" in cli("run", "train", "tried.zip")


def test_what_clients_measured_is_named_where_it_is_not_the_plan_s_metric(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for metric, told in (("mae", False), ("accuracy", True)):
        with pytest.raises(SystemExit):
            main(["run", str(study), "--rounds", "1", "--set", f"stop.metric={metric}"])
        text = capsys.readouterr().out
        assert ("At clients: mae" in text) == told and "Finished" in text
    assert "hansa show tried-2 --validations" in text


def test_a_site_s_own_file_can_be_given(cli: Any, study: Path, home: Path) -> None:
    x, classes = np.ones((10, 64), np.float32), list("abcdefghij")
    np.savez(home / "own.npz", x=x, y=np.arange(10), classes=classes)
    found = json.loads(cli("run", "train", "study", "--data", "own.npz", "--json"))
    assert found["client"] == "local" and found["examples"] == 9  # one is kept for validation


def test_a_trial_that_fails_shows_what_was_printed(cli: Any, study: Path) -> None:
    (study / "train.sh").write_text("seq 5000; echo no such scanner >&2; exit 3\n")
    text = cli("run", "train", "study", status=1)
    assert "\n4999\n" in text and "status 3" in text and "command-failed" in text


def test_a_model_of_another_shape_is_refused(cli: Any, study: Path, home: Path) -> None:
    save_params(home / "m.safetensors", Params.of({"w": np.zeros(3, np.float32)}))
    assert "plan-impossible" in cli("run", "train", "study", "--model", "m.safetensors", status=1)


def test_an_unknown_client_and_a_predict_without_a_file_are_told(cli: Any, study: Path) -> None:
    assert "data-missing" in cli("run", "train", "study", "--client", "nobody", status=1)
    assert "-o FILE" in cli("run", "predict", "study", status=2)
