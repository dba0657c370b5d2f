"""Options that several verbs share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hansa.runs.folder import RUNS


def runs_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--runs DIR`: where runs are kept."""
    return click.option(
        "--runs",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(RUNS),
        envvar="HANSA_RUNS",
        show_default=True,
        help="Folder of runs.",
    )(command)


def on_option(told: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--on SERVER`: at a federation's server; without a value the only one there is."""
    return click.option("--on", metavar="SERVER", is_flag=False, flag_value="", help=told)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    click.echo(json.dumps(value))
