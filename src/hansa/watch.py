"""What a person or a program sees while a run goes on.

A live table on a terminal, one line a round elsewhere, one JSON object a round with `--json`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import click

from hansa.metrics import lower_is_better
from hansa.runs.events import whole
from hansa.text import TEXT_CHARS, clean
from hansa.web.words import byte_size
from hansa.workflows import Problem, Watcher

_KEPT_LINES = 30  # rounds of the live table that stay on the screen


class View(Watcher, Protocol):
    """A watcher that can also be told in words what a federation waits for."""

    def told(self, text: str) -> None:
        """Say something that is neither progress nor a round."""


@contextlib.contextmanager
def watching(rounds: int, metric: str, *, as_json: bool = False) -> Iterator[View]:
    """Choose the view that fits the output, and close it properly."""
    if as_json:
        lines = JsonLines()
        with contextlib.redirect_stdout(sys.stderr):
            yield lines
    elif sys.stdout is not None and sys.stdout.isatty():
        with LiveTable(rounds, metric) as table:
            yield table
    else:
        yield PlainLines(rounds, metric)


class JsonLines:
    """One JSON object a round."""

    def __init__(self) -> None:
        self._out = sys.stdout  # what user code prints goes elsewhere meanwhile
        self._divergence = Divergence()

    def working(self, what: str, done: int, total: int) -> None:
        """Say nothing; programs wait for rounds."""

    def told(self, text: str) -> None:
        """Say it beside the rounds."""
        click.echo(clean(text, TEXT_CHARS), err=True)

    def committed(self, row: dict[str, Any], problems: Sequence[Problem]) -> None:
        """Print the round."""
        facts = {**row, "problems": [p._asdict() for p in problems]}
        click.echo(json.dumps(facts), file=self._out)
        self._out.flush()
        for sentence in self._divergence.told(row):
            click.echo(sentence, err=True)


class PlainLines:
    """One line a round, for logs and pipes."""

    def __init__(self, rounds: int, metric: str) -> None:
        self._rounds, self._metric = rounds, metric
        self._divergence = Divergence()

    def working(self, what: str, done: int, total: int) -> None:
        """Say nothing; a log wants whole rounds."""

    def told(self, text: str) -> None:
        """Print it."""
        click.echo(clean(text, TEXT_CHARS))
        if sys.stdout is not None:
            sys.stdout.flush()

    def committed(self, row: dict[str, Any], problems: Sequence[Problem]) -> None:
        """Print the round and its problems."""
        if "cross_site" in row:
            click.echo(model_line(row, self._metric))
            return self._tell(problems)
        cells = round_cells(row, self._metric)
        words = [f"{name} {value}" for name, value in cells.items() if value != "-"]
        click.echo(f"round {row['round']}/{self._rounds}  " + "  ".join(words[1:]))
        for sentence in self._divergence.told(row):
            click.echo(f"  {sentence}")
        return self._tell(problems)

    def _tell(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            click.echo(f"  {describe(problem)}")
        if sys.stdout is not None:
            sys.stdout.flush()


class LiveTable:
    """A table that grows by a line a round, over a line that says what goes on."""

    def __init__(self, rounds: int, metric: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._rounds, self._metric = rounds, metric
        self._rows: list[dict[str, str]] = []
        self._notes: list[str] = []
        self._divergence = Divergence()
        self._status = "starting"
        self._console = Console()
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=8)

    def __enter__(self) -> LiveTable:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._status = ""
        self._live.__exit__(*exception)

    def working(self, what: str, done: int, total: int) -> None:
        """Show how far the exchange is."""
        width = 24
        filled = width * done // max(total, 1)
        bar = "━" * filled + "╌" * (width - filled)
        where = f"round {len(self._rows) + 1} of {self._rounds}"
        self._status = f"{where}: {what} {bar} {done}/{total} clients"

    def told(self, text: str) -> None:
        """Show it until something happens."""
        self._status = clean(text, TEXT_CHARS)

    def committed(self, row: dict[str, Any], problems: Sequence[Problem]) -> None:
        """Add a line."""
        self._notes += [describe(problem) for problem in problems]
        if "cross_site" in row:
            self._status = model_line(row, self._metric)
            return
        self._rows.append(round_cells(row, self._metric))
        self._notes += self._divergence.told(row)
        self._status = f"round {row['round']} of {self._rounds} done"

    def _render(self) -> Any:
        # Whatever does not fit would push the newest rounds out of sight.
        shown = max(3, min(_KEPT_LINES, self._console.height - 10))
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in round_cells(_EMPTY, self._metric):
            table.add_column(Text(name), justify="right")  # not markup
        for cells in self._rows[-shown:]:
            table.add_row(*cells.values())
        hidden = len(self._rows) - min(shown, len(self._rows))
        if hidden:
            table.caption = f"{hidden} earlier rounds: hansa show"
        notes = [Text(note, style="yellow") for note in self._notes[-5:]]
        return Group(table, *notes, Text(self._status, style="dim"))


class Divergence:
    """Says once in a run that a loss is no number any more."""

    def __init__(self) -> None:
        self._told = False

    def told(self, row: dict[str, Any]) -> list[str]:
        """Return the sentence in the first round that it is true of."""
        if self._told or "cross_site" in row:
            return []
        for part in ("train", "validation", "test"):
            for metric, summary in whole(row).get(part, {}).items():
                if summary["mean"] is None and lower_is_better(metric):
                    self._told = True
                    return [
                        f"The model has diverged: in round {row['round']} its {clean(metric)} on "
                        f"the {part} part is not a finite number. Usually the learning rate is "
                        "too large, or an input is not finite."
                    ]
        return []


_EMPTY: dict[str, Any] = {
    "round": 0,
    "seconds": 0.0,
    "clients": {"asked": 0, "accepted": 0},
    "bytes": {"down": 0, "up": 0},
}


def round_cells(row: dict[str, Any], metric: str) -> dict[str, str]:
    """Return one round as the columns of the table."""
    row = whole(row)
    spread = row.get("validation", {}).get(metric)
    clients = row["clients"]
    return {
        "round": str(row["round"]),
        "loss": _number(row.get("train", {}).get("loss")),
        clean(metric): _number(row.get("test", {}).get(metric)),
        "at clients": _number(spread),
        "spread": _spread(spread),
        "clients": f"{clients['accepted']}/{clients['asked']}",
        "seconds": f"{row['seconds']:.1f}",
        "bytes": byte_size(row["bytes"]["down"] + row["bytes"]["up"]),
    }


def model_line(row: dict[str, Any], metric: str) -> str:
    """Say in one line what a model of cross-site evaluation came to at the clients."""
    found, clients = row["cross_site"], whole(row)["clients"]
    values = [v for v in found["metrics"].get(metric, {}).values() if v is not None]
    spread = f"  {clean(metric)} {min(values):.2f}–{max(values):.2f}" if values else ""
    return (
        f"model {clean(found['model'])}{spread}  clients {clients['accepted']}/{clients['asked']}"
    )


def describe(problem: Problem) -> str:
    """Say what became of one client, in one line."""
    who, what = clean(problem.client), clean(problem.message, TEXT_CHARS)
    where = f" ({clean(problem.file, TEXT_CHARS)})" if problem.file else ""
    return f"{who} {clean(problem.kind)}: {what} [{clean(problem.code)}]{where}"


def _number(summary: dict[str, Any] | None) -> str:
    if summary is None:
        return "-"
    return "NaN" if summary["mean"] is None else f"{summary['mean']:.4f}"


def _spread(summary: dict[str, Any] | None) -> str:
    if summary is None or summary["min"] is None:
        return "-"
    return f"{summary['min']:.2f}–{summary['max']:.2f}"
