"""`hansa ls`: the runs of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hansa.cli.options import json_option, print_json, runs_option


@click.command()
@runs_option
@json_option
def command(runs: Path, as_json: bool) -> None:
    """List runs, oldest first.

    \b
    Example:
      hansa ls
    """
    from hansa.runs import all_runs
    from hansa.runs.record import run_record
    from hansa.runs.result import Table

    found = list(all_runs(runs))
    table = Table(_line(run_record(folder)) for folder in found)
    names = {p.parent.name for p in runs.glob("*/run.json")} - {folder.name for folder in found}
    if as_json:
        print_json(table)
    elif table:
        click.echo(str(table))
    elif not names:
        click.echo(f"No runs in {runs} yet. Make one with: hansa run, or hansa hello")
    if names:
        click.echo(f"Damaged, see hansa show NAME: {', '.join(sorted(names))}", err=True)


def _line(record: dict[str, Any]) -> dict[str, Any]:
    best = record["best"]
    algorithm = record["plan"]["algorithm"]
    return {
        "run": record["run"],
        "state": record["state"],
        "rounds": len(record["rounds"]),
        "algorithm": algorithm if isinstance(algorithm, str) else algorithm["name"],
        "best": f"{best['metric']} {best['value']:.4f}" if best else None,
        "seconds": round(record["seconds"], 1),
        "started": record["started"],
        "plan": record["plan_digest"].removeprefix("blake3:")[:8],
    }
