"""The code that is recorded is the code that runs, whatever was imported before in the process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from projects import final_model, make_project, simulate

from hansa.code import identity, make_current, read_code
from hansa.errors import LearnerError
from hansa.project import build_project, open_project
from hansa.runs.reproduce import saved_project
from hansa.simulation import Simulation, continue_run, open_run


@pytest.fixture(autouse=True)
def caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python keep compiled code beside the source, as it does for users."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


def moving(folder: Path, train: str, first: str = "") -> Path:
    """Write a project whose clients all add the same to `w`, as `train` says."""
    make_project(folder, rounds=1, train=train)
    text = (folder / "model.py").read_text().replace("np.float32(VALUES", "0 * np.float32(VALUES")
    (folder / "model.py").write_text(first + text)
    return folder


def w0(folder: Path, *sets: str) -> float:
    return float(final_model(simulate(folder, *sets))["w"][0])


def test_a_module_edited_between_two_runs_runs_as_it_is_now(tmp_path: Path) -> None:
    folder = moving(tmp_path / "a", 'params["w"] += 1')
    assert w0(folder) == 1
    model = folder / "model.py"
    before = model.stat()
    model.write_text(model.read_text().replace('params["w"] += 1', 'params["w"] += 5'))
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))  # within the second
    assert w0(folder) == 5


def test_a_module_beside_it_edited_between_two_runs_runs_as_it_is_now(tmp_path: Path) -> None:
    folder = moving(tmp_path / "a", 'params["w"] += net.STEP', "import net\n")
    (folder / "net.py").write_text("STEP = 2\n")
    assert w0(folder) == 2
    (folder / "net.py").write_text("STEP = 7\n")
    assert w0(folder) == 7
    (folder / "net.py").write_text("STEP = 2\n")
    assert w0(folder) == 2


def test_two_projects_each_have_their_own_net_even_in_turns(tmp_path: Path) -> None:
    folders = []
    for name, step in [("a", 3), ("b", -4)]:
        late = "import late\n    params['w'] += net.STEP * late.FACTOR"
        folder = moving(tmp_path / name, late.replace("\n    ", "\n"), "import net\n")
        (folder / "net.py").write_text(f"STEP = {step}\n")
        (folder / "late.py").write_text(f"FACTOR = {abs(step)}\n")
        folders.append(folder)
    assert [w0(f) for f in folders] == [9, -16]
    assert [w0(f, "seed=8") for f in folders] == [9, -16]
    assert sum(str(f.resolve()) in sys.path for f in folders) == 1


def test_a_project_that_is_open_beside_another_gets_its_modules_back(tmp_path: Path) -> None:
    projects = []
    for name in "ab":
        folder = make_project(tmp_path / name)
        (folder / "late.py").write_text(f"NAME = {name!r}\n")
        text = "import late as early\n\n\ndef late():\n    import late\n\n    return late\n\n\n"
        (folder / "model.py").write_text(text + (folder / "model.py").read_text())
        projects.append(open_project(folder))
    for project in projects:
        assert project.folder is not None and project.module is not None
        make_current(project.folder, project.code)
        assert project.module.late() is project.module.early
        assert open_project(project.folder).module is project.module


def test_a_package_below_the_folder_changes_the_identity_and_is_reproduced(tmp_path: Path) -> None:
    first = "from nets.deep import small\nfrom plain import part\n"
    step = 'params["w"] += small.STEP * part.FACTOR'
    folder = moving(tmp_path / "a", step, first)
    for file, text in [
        ("nets/__init__.py", ""),
        ("nets/deep/__init__.py", ""),
        ("nets/deep/small.py", "STEP = 3\n"),
        ("plain/part.py", "FACTOR = 2\n"),  # a package without __init__.py
    ]:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text)
    project = open_project(folder)
    assert "nets/deep/small.py" in project.code
    run = simulate(folder)
    assert final_model(run)["w"][0] == 6
    (folder / "nets/deep/small.py").write_text("STEP = -8\n")
    assert identity(*_facts(open_project(folder))) != identity(*_facts(project))
    (folder / "plain/part.py").write_text("FACTOR = 1\n")
    edited = simulate(folder)
    assert final_model(edited)["w"][0] == -8
    again = saved_project(run)
    assert identity(again.plan, again.code) == run.about["identity"]
    simulation = Simulation(tmp_path / "again")
    once_more, population = open_run(again, simulation)
    continue_run(once_more, again, population, simulation=simulation)
    assert once_more.commits()[-1]["model"] == run.commits()[-1]["model"]


def test_what_somebody_imported_before_the_run_is_not_taken_for_the_projects_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = moving(tmp_path / "a", 'params["w"] += early.STEP', "import early\n")
    (folder / "early.py").write_text("STEP = 1\n")
    monkeypatch.syspath_prepend(folder)
    before = (folder / "early.py").stat()
    import early  # noqa: F401

    (folder / "early.py").write_text("STEP = 6\n")
    os.utime(folder / "early.py", ns=(before.st_atime_ns, before.st_mtime_ns))  # a .pyc looks fresh
    assert w0(folder) == 6


def test_the_bytes_that_were_read_are_the_bytes_that_run(tmp_path: Path) -> None:
    folder = moving(tmp_path / "a", "import later\nparams['w'] += later.STEP")
    (folder / "later.py").write_text("STEP = 4\n")
    project = open_project(folder)
    (folder / "later.py").write_text("STEP = 9\n")  # edited while the run goes on
    run, population = open_run(project, Simulation(tmp_path / "runs"))
    continue_run(run, project, population, simulation=Simulation(tmp_path / "runs"))
    assert final_model(run)["w"][0] == 4
    assert (run.path / "code" / "later.py").read_text() == "STEP = 4\n"


def test_runs_caches_hidden_folders_and_environments_are_no_code(tmp_path: Path) -> None:
    for file in [
        "model.py", "a/b/c.py", "pkg/runs/kept.py", "runs/x-1/code/model.py", ".venv/x.py",
        "env/lib/y.py", "__pycache__/z.py", "out/x-2/code/model.py", "notes.txt",
    ]:  # fmt: skip
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "out" / "x-2" / "run.json").write_text("{}")
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere.py")
    assert list(read_code(tmp_path)) == ["a/b/c.py", "model.py", "pkg/runs/kept.py"]


@pytest.mark.parametrize("limit", ["CODE_FILES_MAX", "CODE_BYTES_MAX"])
def test_a_folder_with_too_much_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    make_project(tmp_path)
    (tmp_path / "more.py").write_text("# more\n")
    monkeypatch.setattr(f"hansa.code.{limit}", 1)
    with pytest.raises(LearnerError, match="files of code") as error:
        open_project(tmp_path)
    assert error.value.code == "learner-module"


def test_code_that_fails_to_import_can_be_mended_in_the_same_process(tmp_path: Path) -> None:
    folder = moving(tmp_path / "a", 'params["w"] += 2', "1 / 0\n")
    with pytest.raises(LearnerError, match=r"model\.py, line 1 raised ZeroDivisionError"):
        open_project(folder)
    (folder / "model.py").write_text((folder / "model.py").read_text().removeprefix("1 / 0\n"))
    assert w0(folder) == 2


def test_projects_alike_in_two_folders_know_their_own_folder(tmp_path: Path) -> None:
    for name in "ab":
        project = open_project(make_project(tmp_path / name))
        assert project.module is not None
        assert Path(project.module.HERE) == (tmp_path / name).resolve()


def test_other_modules_stay_where_they_are(tmp_path: Path) -> None:
    there = {name: module for name, module in sys.modules.items() if "hansa_project" not in name}
    open_project(make_project(tmp_path / "a"))
    open_project(make_project(tmp_path / "b"))
    assert all(sys.modules.get(n) is m for n, m in there.items() if "early" not in n)
    assert np is sys.modules["numpy"]
    assert build_project  # imported as a name, not through the module


def _facts(project):
    return project.plan, project.code
