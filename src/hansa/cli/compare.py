"""`hansa compare`: several runs in one table and one plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hansa.cli.options import json_option, print_json, runs_option


@click.command()
@click.argument("names", metavar="[RUN]...", nargs=-1)
@click.option("--last", type=click.IntRange(2), default=5, show_default=True, help="Newest runs.")
@click.option("--open", "open_page", is_flag=True, help="Open the page.")
@runs_option
@json_option
def command(names: tuple[str, ...], last: int, open_page: bool, runs: Path, as_json: bool) -> None:
    """Compare runs: the settings that differ, the results, and one plot of all curves.

    \b
    Examples:
      hansa compare
      hansa compare digits-1 digits-4
    """
    from hansa.plan import flatten
    from hansa.runs import all_runs, find_run
    from hansa.runs.record import relative, run_record
    from hansa.store.files import write_durably
    from hansa.table import Table
    from hansa.web.report import render_compare

    found = [find_run(runs, name) for name in names] or list(all_runs(runs))[-last:]
    if not found:
        find_run(runs, None)  # says that there is none
    records = [run_record(folder) for folder in found]
    plans = [flatten(record["plan"]) for record in records]
    keys = sorted({key for plan in plans for key in plan})
    differing = [k for k in keys if len({str(plan.get(k)) for plan in plans}) > 1]
    table = Table(
        _line(record, {k: plan.get(k) for k in differing})
        for record, plan in zip(records, plans, strict=True)
    )
    page = runs / "compare.html"
    write_durably(page, [render_compare(records).encode()])
    if as_json:
        print_json(table)
    else:
        click.echo(f"{table}\npage  {relative(page)}")
    if open_page:
        click.launch(str(page))


def _line(record: dict[str, Any], differing: dict[str, Any]) -> dict[str, Any]:
    best, rows = record["best"], record["rounds"]
    line: dict[str, Any] = {"run": record["run"], **differing, "rounds done": len(rows)}
    metric = record["plan"]["stop"]["metric"]
    evaluated = [row for row in rows if metric in row.get("test", row.get("validation", {}))]
    last = evaluated[-1] if evaluated else {}
    line[metric] = last.get("test", last.get("validation", {})).get(metric, {}).get("mean")
    line[f"best {metric}"] = best["value"] if best else None
    line["seconds"] = round(record["seconds"], 1)
    return line
