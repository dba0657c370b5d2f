"""`hansa ls`: the runs of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hansa.cli.options import json_option, on_option, print_json, runs_option


@click.command()
@on_option("List the runs of this federation's server instead.")
@runs_option
@json_option
def command(on: str | None, runs: Path, as_json: bool) -> None:
    """List runs, oldest first.

    \b
    Examples:
      hansa ls
      hansa ls --on hansa.example.org
    """
    if on is not None:
        _list_remote(on, as_json)
        return
    from hansa.runs import all_runs
    from hansa.runs.record import run_record
    from hansa.table import Table

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


def _list_remote(on: str, as_json: bool) -> None:
    from hansa.remote import asking
    from hansa.remote.connecting import connected, membership_at
    from hansa.table import Table

    membership = membership_at(on)
    with connected(membership) as connection:
        found = asking.all_facts(connection)
    if as_json:
        print_json([asking.facts_record(facts) for facts in found])
    elif found:
        click.echo(str(Table(map(asking.facts_line, found))))
    else:
        click.echo(f"No runs at {membership.url} yet. Make one with: hansa run --on SERVER")
