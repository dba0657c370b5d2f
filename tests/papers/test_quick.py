"""The quick form of every paper lies in its expected range."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from hansa.data import load
from hansa.errors import DataError

PAPERS = Path(__file__).resolve().parents[2] / "papers"
NAMES = sorted(p.parent.name for p in PAPERS.glob("*/expected.json"))


@pytest.mark.parametrize("name", NAMES)
def test_the_quick_form_is_reproduced(
    name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    try:
        load("mnist5k")
    except DataError as error:
        pytest.skip(str(error))
    spec = importlib.util.spec_from_file_location("papers_run", PAPERS / "run.py")
    assert spec is not None and spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    status = run.main([name, "--quick", "--engine", "processes"])
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_a_paper_states_claim_command_hardware_time_and_deviations(name: str) -> None:
    expected = json.loads((PAPERS / name / "expected.json").read_text(encoding="utf-8"))
    assert expected["claim"] and expected["full"]["expected"][0] <= expected["full"]["expected"][1]
    text = (PAPERS / name / "README.md").read_text(encoding="utf-8").lower()
    for word in ("claim", "command", "hardware", "time", "deviations"):
        assert f"**{word}" in text, word
