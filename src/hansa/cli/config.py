"""`hansa config explain`: every value of a plan, and where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hansa.cli.options import json_option, print_json


@click.group()
def command() -> None:
    """Explain a project's settings."""


@command.command()
@click.argument("project", type=click.Path(path_type=Path), default=Path("."))
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change any key.")
@click.option("--defaults", is_flag=True, help="Explain the keys without reading a plan.")
@json_option
def explain(project: Path, sets: tuple[str, ...], defaults: bool, as_json: bool) -> None:
    """Print every value of the plan in PROJECT, where it came from, and what it means.

    \b
    Example:
      hansa config explain
      hansa config explain --set algorithm=scaffold
      hansa config explain --defaults
    """
    import msgspec

    from hansa.plan import PLAN_FILE, check_plan, flatten, load_plan, read_plan
    from hansa.plan.explain import meanings

    loaded = read_plan({}, sets) if defaults else load_plan(project / PLAN_FILE, sets)
    check_plan(loaded.plan)
    values = flatten(msgspec.to_builtins(loaded.plan))
    told = meanings()
    rows = [
        {
            "key": key,
            "value": value,
            "source": _source(key, loaded.sources),
            "meaning": told.get(key, told.get(key.rpartition(".")[0], "")),
        }
        for key, value in values.items()
    ]
    if as_json:
        print_json(rows)
        return
    width = max(len(row["key"]) for row in rows)
    for row in rows:
        mark = "" if row["source"] == "default" else f"  ({row['source']})"
        head = click.style(f"{row['key']:<{width}}", bold=bool(mark))
        click.echo(f"{head}  {_shown(row['value'])}{mark}")
        if row["meaning"]:
            click.echo(click.style(f"{'':<{width}}  # {row['meaning']}", dim=True))


def _source(key: str, sources: dict[str, str]) -> str:
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if (found := sources.get(".".join(parts[:length]))) is not None:
            return found
    return "default"


def _shown(value: Any) -> str:
    return "(not set)" if value is None else json.dumps(value)
