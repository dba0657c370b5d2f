"""What a terminal shows while a run goes on."""

from __future__ import annotations

import io

from rich.console import Console

from hansa.watch import LiveTable, PlainLines, model_line


def rendered(rounds: int, height: int) -> str:
    table = LiveTable(40, "accuracy")
    table._console = Console(width=100, height=height)
    for number in range(1, rounds + 1):
        row = {
            "round": number,
            "seconds": 0.5,
            "clients": {"asked": 10, "accepted": 9},
            "bytes": {"down": 1000, "up": 500},
            "test": {"accuracy": {"mean": number / 100}},
        }
        table.committed(row, [])
    table.working("training", 3, 10)
    console = Console(width=100, height=200, record=True, file=io.StringIO())
    console.print(table._render())
    return console.export_text()


def test_the_newest_rounds_and_the_progress_stay_in_sight_on_a_small_terminal() -> None:
    text = rendered(rounds=35, height=24)
    assert len(text.splitlines()) <= 24
    assert "0.3500" in text and "0.0100" not in text
    assert "21 earlier rounds" in text
    assert "round 36 of 40: training" in text and "3/10 clients" in text


def test_all_rounds_are_shown_while_they_fit() -> None:
    text = rendered(rounds=5, height=50)
    assert "0.0100" in text and "earlier" not in text


def test_a_model_of_cross_site_evaluation_is_no_round_of_the_table(capsys) -> None:
    values = {"accuracy": {"a": 0.25, "b": 0.75, "c": None}}
    row = {
        "round": 4,
        "clients": {"asked": 4, "accepted": 3},
        "cross_site": {"model": "north\x1b[1m", "metrics": values},
    }
    told = model_line(row, "accuracy")
    assert told.startswith("model north") and "\x1b" not in told
    assert told.endswith("  accuracy 0.25–0.75  clients 3/4")
    assert "accuracy" not in model_line({**row, "cross_site": {"model": "x", "metrics": {}}}, "f1")
    PlainLines(3, "accuracy").committed(row, [])
    assert "round" not in capsys.readouterr().out
    table = LiveTable(3, "accuracy")
    table.committed(row, [])
    assert not table._rows


def test_a_model_that_diverges_is_told_of_once(capsys) -> None:
    lines = PlainLines(3, "accuracy")
    for number, loss in enumerate([0.5, None, None], start=1):
        row = {"round": number, "train": {"loss": {"mean": loss, "min": None}}}
        lines.committed(row, [])
    said = capsys.readouterr().out
    assert said.count("diverged") == 1
    assert "in round 2 its loss on the train part is not a finite number" in said
