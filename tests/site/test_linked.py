"""Packages of `pip install -e`: in the sandbox they are found, and what lies beside them is not."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

from hansa.hosting.linked import linked_packages
from hansa.hosting.sandbox import environment, sandbox_command


def sources(folder: Path) -> Path:
    """Make a project's folder as people have them: code, and data beside it."""
    for name in ("ward", "ward/deep", "rows", "names"):
        (folder / name).mkdir(parents=True)
    (folder / "ward" / "__init__.py").write_text("BEDS = 7\n")
    (folder / "alone.py").write_text("BEDS = 8\n")
    (folder / "rows" / "patients.csv").write_text("x\n")
    (folder / "notes.txt").write_text("x")
    (folder / "names" / "inside.py").write_text("")
    return folder


def test_a_line_of_a_path_file_leads_to_packages_and_modules_and_not_to_data(
    tmp_path: Path,
) -> None:
    sources(tmp_path / "ward-project")
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "a.pth").write_text(
        f"# a comment\n\nimport os; os.getcwd()\n{tmp_path / 'gone'}\n\0\n../ward-project\n"
    )
    found = list(linked_packages([str(packages), str(tmp_path / "none")]))
    assert found == [tmp_path / "ward-project" / name for name in ("alone.py", "ward")]


def test_the_finder_of_setuptools_names_its_packages(tmp_path: Path) -> None:
    folder = sources(tmp_path / "ward-project")
    text = (
        "import sys\nMAPPING: dict[str, str] = "
        f"{{'ward': {str(folder / 'ward')!r}, 'alone': {str(folder / 'alone')!r}, 'x': '/gone'}}\n"
        "NAMESPACES: dict[str, list[str]] = {'names': ['" + str(folder / "names") + "']}\n"
    )
    (tmp_path / "__editable___ward_0_1_finder.py").write_text(text)
    (tmp_path / "__editable___torn_finder.py").write_text("MAPPING = {")
    assert list(linked_packages([str(tmp_path)])) == [folder / "ward", folder / "alone.py"]


def test_a_finder_or_a_line_leads_to_no_folder_that_is_more_than_a_package(
    tmp_path: Path, home: Path
) -> None:
    """As where a package is the folder of its project, or the mapping names what only holds it."""
    (home / "__init__.py").touch()
    (home / "packages").mkdir()
    (home / "rows").mkdir()
    places = [home, home.parent, home / "rows", Path("/")]
    mapping = {f"p{i}": str(place) for i, place in enumerate(places)}
    (home / "packages" / "__editable___p_finder.py").write_text(f"MAPPING = {mapping!r}")
    (home / "packages" / "p.pth").write_text(f"{home.parent}\n/\n")
    assert list(linked_packages([str(home / "packages")])) == []


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bubblewrap")
def test_a_linked_package_is_in_the_sandbox_to_be_read_and_the_data_beside_it_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sources(tmp_path / "ward-project")
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "a.pth").write_text(str(folder))
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(packages)])
    code = (
        f"import os, sys; sys.path.append({str(folder)!r}); import ward, alone\n"
        "print(ward.BEDS, alone.BEDS, sorted(os.listdir(os.path.dirname(alone.__file__))))\n"
        "try: open(ward.__file__, 'a')\nexcept OSError as error: print(error.strerror)"
    )
    done = subprocess.run(
        sandbox_command([sys.executable, "-P", "-s", "-c", code], readable={}),
        capture_output=True, text=True, env=environment(), timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["7 8 ['alone.py', 'ward']", "Read-only file system"], done


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bubblewrap")
def test_data_of_the_site_inside_a_linked_package_are_seen_only_where_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sources(tmp_path / "ward-project") / "ward"
    (folder / "beds.csv").write_text("beds\n")
    (folder / "other.csv").write_text("other\n")
    (folder / "scans").mkdir()
    (folder / "scans" / "one.png").write_text("one")
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "a.pth").write_text(str(folder.parent))
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(packages)])
    words = (
        f"cat /data/beds.csv; cat {folder}/beds.csv {folder}/other.csv; ls {folder}/scans; "
        f"wc -l {folder}/__init__.py"
    )
    private = [folder / name for name in ("beds.csv", "other.csv", "scans")]
    done = subprocess.run(
        sandbox_command(["/bin/sh", "-c", words], readable={"/data/beds.csv": private[0]},
                        private=private),
        capture_output=True, text=True, env=environment(), timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["beds", f"1 {folder}/__init__.py"], done
