"""Whole simulated runs of commands: failures are the client's, models the same, any language."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from projects import run

from hansa.cli.init import command as init_command
from hansa.code import read_code
from hansa.errors import DataError, RunError
from hansa.project import open_project
from hansa.runs import RunFolder
from hansa.simulation import Placed, Simulation, continue_run, open_run, project_population

PLAN = """
name = "commands"
rounds = 2
seed = 5
[learner]
kind = "command"
train = ["sh", "train.sh"]
init = ["cp", "seed.safetensors", "{model_out}"]
time_s = 20
[data]
set = "digits"
split = { scheme = "iid", clients = 3 }
[stop]
metric = "loss"
"""
TENSORS = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
SEED = len(TENSORS).to_bytes(8, "little") + TENSORS + np.array([1.0, -2.0], "<f4").tobytes()


def project(folder: Path, train: str, *, plan: str = PLAN, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
    (folder / "train.sh").write_text(train, encoding="utf-8")
    (folder / "seed.safetensors").write_bytes(SEED)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def problems(folder: RunFolder) -> list[dict[str, Any]]:
    return [p for e in folder.log.events if e["kind"] == "round" for p in e.get("problems", [])]


COPY = 'cp "$HANSA_MODEL_IN" "$HANSA_UPDATE_OUT"\n'


def test_the_template_learns_and_gives_one_model_in_either_engine(tmp_path: Path) -> None:
    made = tmp_path / "study"
    assert init_command.callback is not None
    init_command.callback(made, "command")
    assert "hansa" not in (made / "train.py").read_text().replace("HANSA", "").split('"""')[2]
    sets = ("rounds=3", "data.split.clients=3")
    inline = run(made, tmp_path / "runs", *sets)
    other = run(made, tmp_path / "runs", *sets, engine="processes")
    assert inline.commits()[-1]["model"] == other.commits()[-1]["model"]
    assert inline.rows()[-1]["test"]["accuracy"]["mean"] > 0.6


@pytest.mark.parametrize(
    ("mischief", "words"),
    [
        ("echo 'no calibration' >&2; exit 3", "status 3. It printed last: no calibration"),
        ("sleep 100", "0.5 s, its time limit"),
        ("head -c 100 /dev/zero > $HANSA_UPDATE_OUT", "cannot be used"),
        ("exit 0", "wrote no update.safetensors"),
        ("cp nan.safetensors $HANSA_UPDATE_OUT", "update-not-finite"),
        ("kill -9 $$", "signal 9"),
    ],
)
def test_a_command_that_fails_is_one_client_s_failure_with_its_reason(
    tmp_path: Path, mischief: str, words: str
) -> None:
    train = f'if [ "$HANSA_CLIENT" = client-1 ]; then {mischief}; exit $?; fi\n{COPY}'
    nan = SEED[:-8] + np.array([np.nan, 0.0], "<f4").tobytes()
    plan = PLAN.replace("time_s = 20", 'time_s = 20\nfiles = ["nan.safetensors"]')
    folder = project(tmp_path / "study", train, plan=plan, **{"nan.safetensors": nan})
    limit = "0.5" if mischief.startswith("sleep") else "20.0"
    made = run(folder, tmp_path / "runs", f"learner.time_s={limit}")
    assert [row["clients"]["accepted"] for row in made.rows()] == [2, 2]
    told = json.dumps(made.log.events)
    assert "client-1" in told and words in told


def test_a_run_whose_commands_all_fail_ends_failed_and_says_why(tmp_path: Path) -> None:
    folder = project(tmp_path / "study", "echo 'disk on fire' >&2; exit 4")
    with pytest.raises(RunError, match="disk on fire") as error:
        run(folder, tmp_path / "runs")
    assert error.value.code == "run-all-failed"


def test_files_of_clients_are_handed_over_unread_and_weigh_what_the_command_says(
    tmp_path: Path,
) -> None:
    # Each client moves the model to its own number; 10 examples of 4 and 30 of -8: mean -5.
    train = """
    value=$(sed -n 1p "$HANSA_DATA_PATH/value.txt"); n=$(sed -n 2p "$HANSA_DATA_PATH/value.txt")
    cp "./$value.safetensors" "$HANSA_UPDATE_OUT"
    echo "{\\"metrics\\": {\\"loss\\": $value}, \\"examples\\": $n}" > "$HANSA_RESULT_OUT"
    """
    plan = PLAN.replace("time_s = 20", 'rows = "path"\nfiles = ["4.safetensors", "-8.safetensors"]')
    plan = plan.replace('"digits"', '"hospitals"').partition("split =")[0]
    four, eight = (SEED[:-8] + np.array([v, v], "<f4").tobytes() for v in (4.0, -8.0))
    files = {"4.safetensors": four, "-8.safetensors": eight}
    folder = project(tmp_path / "study", train, plan=plan, **files)
    for name, text in {"north": "4\n10\n", "south": "-8\n30\n"}.items():
        (folder / "hospitals" / name).mkdir(parents=True)
        (folder / "hospitals" / name / "value.txt").write_text(text)
    made = run(folder, tmp_path / "runs", "rounds=1")
    model, _ = made.load(made.commits()[-1])
    assert model["w"].tolist() == [-5.0, -5.0]
    assert made.rows()[-1]["train"]["loss"]["mean"] == -5.0
    assert "hospitals" not in " ".join(read_code(folder, open_project(folder).plan.learner))


def test_places_of_clients(tmp_path: Path) -> None:
    (tmp_path / "client-10").mkdir()
    for name in ("client-2.dcm", ".hidden"):
        (tmp_path / name).write_text("x")
    places = Placed(tmp_path)
    assert places.names == ["client-2", "client-10"]
    assert places.place("client-2") == tmp_path.resolve() / "client-2.dcm"
    assert places.data("client-10").train.path == tmp_path.resolve() / "client-10"
    (tmp_path / "client-2").mkdir()
    with pytest.raises(DataError, match="two clients of one name"):
        Placed(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        Placed(tmp_path / "nowhere")


def test_the_package_is_what_the_plan_names_and_no_data(tmp_path: Path) -> None:
    folder = project(tmp_path / "study", COPY)
    (folder / "data").mkdir()
    for name in ("data/patients.csv", "secret.key", "notes.md", ".env", "lib.py"):
        (folder / name).write_text("x")
    opened = open_project(folder)
    assert sorted(opened.code) == ["lib.py", "seed.safetensors", "train.sh"]
    (folder / "plan.toml").write_text(PLAN.replace("time_s = 20", 'files = ["notes.md", "data/"]'))
    assert "data/patients.csv" in open_project(folder).code


def test_what_runs_is_what_was_recorded_even_if_edited_meanwhile(tmp_path: Path) -> None:
    folder = project(tmp_path / "study", COPY)
    opened = open_project(folder)
    (folder / "train.sh").write_text("exit 9")
    simulation = Simulation(tmp_path / "runs", new=True)
    made, population = open_run(opened, simulation, project_population(opened))
    continue_run(made, opened, population, simulation=simulation)
    made.reload()
    assert made.state == "finished"
    assert (made.path / "code" / "train.sh").read_text() == COPY


if sys.platform == "win32":
    pytestmark = pytest.mark.skip(reason="the programs are for a POSIX shell")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_simulation_leaves_no_command_of_its_workers(tmp_path: Path) -> None:
    """A worker that waits for a command does not read the pipe whose end tells it to go."""
    pids = tmp_path / "pids"
    folder = project(tmp_path / "p", f"echo $$ >> {pids}; exec sleep 600", plan=PLAN)
    words = ["run", str(folder), "--engine", "processes", "--workers", "2", "--set"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "hansa", *words, "learner.time_s=600"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    finally:
        process.kill()
        process.wait()
    until(lambda: not any(Path("/proc", pid).exists() for pid in pids.read_text().split()))


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_command_answers_a_named_task_with_tensors_and_facts(tmp_path: Path) -> None:
    # The model times -2 as the command's file has it; the facts say what it was told.
    asked = """
    cp double.safetensors "$HANSA_UPDATE_OUT"
    bins=$(grep -c '"bins": 7' "$HANSA_SETTINGS")
    echo "{\\"weight\\": 3, \\"told\\": $bins, \\"step\\": $HANSA_STEP}" > "$HANSA_RESULT_OUT"
    """
    workflow = '{ name = "broadcast_and_process", task = "moved", settings = { bins = 7 } }'
    plan = PLAN.replace("seed = 5", f"seed = 5\nworkflow = {workflow}").replace(
        "time_s = 20",
        'time_s = 20\ntasks = { moved = ["sh", "asked.sh"] }\nfiles = ["double.safetensors"]',
    )
    double = SEED[:-8] + np.array([-2.0, 4.0], "<f4").tobytes()
    files = {"asked.sh": asked.encode(), "double.safetensors": double}
    folder = project(tmp_path / "study", COPY, plan=plan, **files)
    made = run(folder, tmp_path / "runs", "rounds=1", 'workflow.process="collect"')
    facts = {"weight": 3, "told": 1, "step": 0}
    assert made.rows()[0]["report"] == {f"client-{n}": facts for n in range(3)}
    moved = run(folder, tmp_path / "runs", "rounds=1", 'workflow.process="mean"')
    model, _ = moved.load(moved.commits()[-1])
    assert model["w"].tolist() == [-2.0, 4.0]
