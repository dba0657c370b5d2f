"""An app of another system is read once, as long as neither it nor its project changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hansa.console.imports import imported
from hansa.errors import PlanError

READ = [("algorithm", "fed_avg")]


class Importer:
    """Copies one file, and counts how often it did."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, source: Path, target: Path) -> Sequence[tuple[str, str]]:
        self.calls += 1
        if (source / "bad").exists():
            raise PlanError("import-refused", "It is bad.", "Make it good.")
        target.mkdir()
        (target / "plan.toml").write_text((source / "app.json").read_text())
        return READ


@pytest.fixture
def app(home: Path) -> Path:
    (home / "app").mkdir()
    (home / "app" / "app.json").write_text("one")
    return home / "app"


def test_an_app_that_is_as_it_was_is_not_read_again(app: Path, home: Path) -> None:
    importer, target = Importer(), home / "imported" / "app"
    assert [list(imported(importer, app, target)) for _ in range(3)] == [READ] * 3
    assert importer.calls == 1 and (target / "plan.toml").read_text() == "one"


def app_edited(app: Path, target: Path) -> None:
    before = (app / "app.json").stat()
    (app / "app.json").write_text("two")  # of the same size, and as old as it was
    os.utime(app / "app.json", ns=(before.st_atime_ns, before.st_mtime_ns))


def app_grown(app: Path, target: Path) -> None:
    (app / "app.json").write_text("two")
    (app / "new.py").touch()


def project_edited(app: Path, target: Path) -> None:
    app_edited(app, target)
    (target / "plan.toml").write_text("mine")


def project_gone(app: Path, target: Path) -> None:
    app_edited(app, target)
    (target / "plan.toml").unlink()


def mark_damaged(app: Path, target: Path) -> None:
    app_edited(app, target)
    (target.parent / ".app.json").write_text("{")


@pytest.mark.parametrize(
    "change", [app_edited, app_grown, project_edited, project_gone, mark_damaged]
)
def test_what_has_changed_is_read_again(
    app: Path, home: Path, change: Callable[[Path, Path], None]
) -> None:
    importer, target = Importer(), home / "imported" / "app"
    imported(importer, app, target)
    change(app, target)
    assert list(imported(importer, app, target)) == READ
    assert importer.calls == 2 and (target / "plan.toml").read_text() == "two"


def test_a_project_that_was_edited_is_made_again_of_the_same_app(app: Path, home: Path) -> None:
    importer, target = Importer(), home / "imported" / "app"
    imported(importer, app, target)
    (target / "plan.toml").write_text("mine")
    imported(importer, app, target)
    assert importer.calls == 2 and (target / "plan.toml").read_text() == "one"


def test_an_app_is_looked_at_whatever_its_files_are_called(app: Path, home: Path) -> None:
    importer, target = Importer(), home / "imported" / "app"
    for name in ("run.json", "plan.json", "pyvenv.cfg"):
        (app / name).touch()
    imported(importer, app, target)
    app_edited(app, target)
    imported(importer, app, target)
    assert importer.calls == 2
    (app / "site").mkdir()
    (app / "site" / "run.json").touch()
    imported(importer, app, target)
    assert importer.calls == 3


def test_an_app_that_is_edited_while_it_is_read_is_read_again(app: Path, home: Path) -> None:
    importer, target = Importer(), home / "imported" / "app"

    def slow(source: Path, target: Path) -> Sequence[tuple[str, str]]:
        read = importer(source, target)
        app_edited(source, target)
        return read

    imported(slow, app, target)
    imported(importer, app, target)
    assert importer.calls == 2 and (target / "plan.toml").read_text() == "two"


def test_an_app_that_was_refused_is_refused_again(app: Path, home: Path) -> None:
    importer, target = Importer(), home / "imported" / "app"
    imported(importer, app, target)
    (app / "bad").touch()
    for _ in range(2):
        with pytest.raises(PlanError):
            imported(importer, app, target)
    assert not target.exists()
