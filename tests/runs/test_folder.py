"""Run folders: naming, finding, the model trail, locks and damage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from projects import make_project, simulate

from hansa.errors import RunError
from hansa.runs import all_runs, find_run
from hansa.runs.result import model_file


def kept(path: Path) -> list[int]:
    return sorted(int(p.stem.removeprefix("round-")) for p in path.glob("models/*.safetensors"))


def test_runs_are_numbered_and_the_newest_is_found_without_a_name(tmp_path: Path) -> None:
    folder = make_project(tmp_path, rounds=1)
    names = [simulate(folder).name for _ in range(3)]
    assert names == ["steps-1", "steps-2", "steps-3"]
    assert find_run(folder / "runs", None).name == "steps-3"
    assert find_run(folder / "runs", "steps-2").name == "steps-2"
    assert [run.name for run in all_runs(folder / "runs")] == names


def test_a_run_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    folder = make_project(tmp_path, rounds=1)
    simulate(folder)
    with pytest.raises(RunError, match=r"no run 'digits-9'.*steps-1") as error:
        find_run(folder / "runs", "digits-9")
    assert error.value.code == "run-not-found"


def test_the_trail_keeps_every_nth_the_best_and_the_last_model(tmp_path: Path) -> None:
    # "first" rises with every round, so with lower_is_better the first round is the best.
    folder = make_project(tmp_path, rounds=8, more="lower_is_better = true\n[keep]\nevery = 3")
    run = simulate(folder)
    best = run.commits()[-1]["progress"]["best_round"]
    assert kept(run.path) == sorted({3, 6, best, 8})
    assert model_file(run, "best") == run.model_path(best)
    with pytest.raises(RunError, match=r"the rounds (1, )?3, 6, 8"):
        model_file(run, "5")


@pytest.mark.parametrize("position", [3, 80, -1])
def test_a_model_that_has_changed_on_disk_is_not_continued_from(
    tmp_path: Path, position: int
) -> None:
    run = simulate(make_project(tmp_path))
    commit = run.commits()[-1]
    path = run.model_path(commit["round"])
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError) as error:
        run.load(commit)
    assert error.value.code == "run-damaged"


def test_a_second_process_cannot_work_on_a_run_that_is_being_worked_on(tmp_path: Path) -> None:
    run = simulate(make_project(tmp_path, rounds=1))
    program = (
        "import sys; from pathlib import Path; from hansa.runs import RunFolder\n"
        "from hansa.errors import RunError\n"
        "try:\n    RunFolder(Path(sys.argv[1])).locked().__enter__()\n"
        "except RunError as error:\n    print(error.code)"
    )
    command = [sys.executable, "-c", program, str(run.path)]
    with run.locked():
        assert run.is_locked()
        busy = subprocess.run(command, capture_output=True, text=True, check=True)
    free = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (busy.stdout.strip(), free.stdout.strip()) == ("run-busy", "")
    assert not run.is_locked()


def test_plan_code_and_environment_are_kept_as_they_were(tmp_path: Path) -> None:
    folder = make_project(tmp_path, rounds=1)
    code = (folder / "model.py").read_bytes()
    run = simulate(folder, "learner.epochs=2")
    (folder / "model.py").write_text("changed = True")
    assert (run.path / "code" / "model.py").read_bytes() == code
    assert run.plan()["learner"]["epochs"] == 2
    assert run.plan_sources()["learner.epochs"] == "--set"
    assert set(run.environment()) >= {"python", "numpy", "hansa", "system"}
