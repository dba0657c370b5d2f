"""What a terminal shows while a run goes on."""

from __future__ import annotations

import io

from rich.console import Console

from hansa.watch import LiveTable, byte_size


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


def test_sizes_are_told_in_powers_of_a_thousand() -> None:
    assert [byte_size(n) for n in (999, 1000, 2_500_000)] == ["999 B", "1.0 kB", "2.5 MB"]
