"""Names and messages of unknown origin do nothing to a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import make_project, simulate

from hansa.cli.main import _tell, main
from hansa.table import Table
from hansa.text import clean
from hansa.watch import PlainLines, describe, round_cells
from hansa.workflows import Problem

EVIL = "a\x1b[2J\x1b]0;owned\x07b\u202egnp.exe\r\nround 9/9  accuracy 1.0" + "A" * 10_000


def harmless(text: str, lines: int = 1) -> None:
    assert len(text.splitlines()) == lines
    assert text.replace("\n", "").isprintable()
    assert len(text) < 3_000 * lines


def test_escape_sequences_are_spelt_out() -> None:
    assert clean("\x1b[31mred") == "\\u001b[31mred"
    assert clean("\x9b31m") == "\\u009b31m"  # the one-byte form


def test_a_problem_is_one_harmless_line() -> None:
    problem = Problem(3, EVIL, "failed", "client-failed", EVIL, "failures/x.txt")
    line = describe(problem)
    harmless(line)
    assert line.endswith("[client-failed] (failures/x.txt)")


ROW = {
    "round": 1, "seconds": 0.5, "clients": {"asked": 1, "accepted": 1},
    "bytes": {"down": 1, "up": 2}, "test": {EVIL: {"mean": 0.5}},
}  # fmt: skip


def test_a_rounds_line_with_a_hostile_metric_is_harmless(capsys: pytest.CaptureFixture) -> None:
    PlainLines(3, EVIL).committed(ROW, [])
    printed = capsys.readouterr().out
    harmless(printed)
    assert " 0.5000" in printed


def test_a_live_table_takes_no_metric_for_markup() -> None:
    from rich.console import Console

    from hansa.watch import LiveTable

    table = LiveTable(3, "[/bold]")
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table._render())
    assert "[/bold]" in capture.get()


def test_tables_are_harmless_as_text_and_in_notebooks() -> None:
    table = Table([{"run": "x", EVIL: EVIL}, round_cells(ROW, EVIL)])
    harmless(str(table), lines=3)
    assert "\x1b" not in table._repr_html_() and "\u202e" not in table._repr_html_()
    assert "<b>" not in Table([{"<b>": "<b>"}])._repr_html_()


def test_a_digest_is_not_cut() -> None:
    digest = "blake3:" + "0f" * 32
    assert digest in str(Table([{"model": digest}]))


def test_an_error_is_harmless_for_people_and_whole_for_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = {"code": "usage", "message": EVIL, "hint": EVIL}
    _tell(facts, [])
    harmless(capsys.readouterr().err, lines=2)
    _tell(facts, ["--json"])
    assert json.loads(capsys.readouterr().out)["error"] == facts


def test_show_prints_what_clients_said_without_obeying_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = f'if data[0] == "client-3": raise ValueError({EVIL[:60]!r})'
    run = simulate(make_project(tmp_path, train=train, rounds=1))
    with pytest.raises(SystemExit):
        main(["show", run.name, "--runs", str(run.path.parent)])
    printed = capsys.readouterr().out
    assert "client-3 failed" in printed
    assert printed.replace("\n", "").isprintable()
