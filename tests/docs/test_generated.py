"""The made pages are what the code says, and the check of that notices when they are not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "generate.py"


@pytest.fixture
def generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, over an empty folder of its own."""
    spec = importlib.util.spec_from_file_location("docs_generate", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DOCS", tmp_path / "docs")
    return module


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_passes_after_writing_and_fails_on_a_changed_page(
    generate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    page = generate.DOCS / "reference" / "plan.md"
    page.write_text(page.read_text(encoding="utf-8").replace("`rounds`", "`turns`"))
    assert generate.main(["--check"]) == 1
    assert "docs/reference/plan.md is stale" in capsys.readouterr().out


def test_what_is_written_by_hand_on_an_error_page_survives(generate: ModuleType) -> None:
    generate.main([])
    page = generate.DOCS / "errors" / "run-busy.md"
    page.write_text(page.read_text(encoding="utf-8").replace("## What to do", "## By hand"))
    assert generate.main(["--check"]) == 0
    generate.main([])
    assert "## By hand" in page.read_text(encoding="utf-8")


def test_check_fails_on_a_page_about_a_code_that_is_gone(generate: ModuleType) -> None:
    generate.main([])
    (generate.DOCS / "errors" / "run-tired.md").write_text("# run-tired\n")
    assert generate.main(["--check"]) == 1
