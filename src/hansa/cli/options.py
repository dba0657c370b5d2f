"""Options that several verbs share."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

RUNS = "runs"
"""Folder of runs, below the folder in which one works."""


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


def where_option(runs: Path) -> str:
    """Return what a hint needs so that it finds these runs when typed."""
    usual = Path(os.environ.get("HANSA_RUNS", RUNS))
    return "" if runs == usual else f" --runs {shlex.quote(str(runs))}"


def on_option(told: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--on SERVER`: at a federation's server; without a value the only one there is.

    An empty value is refused: where a script's variable is not set, no server is meant.
    """
    return click.option(
        "--on", metavar="SERVER", is_flag=False, flag_value=_ONLY, callback=_server, help=told
    )


_ONLY = "*"
"""What --on has got when no value stands behind it."""


def _server(context: click.Context, option: click.Parameter, given: str | None) -> str | None:
    """Return the server that is meant; "" for the only one there is."""
    if given is not None and not given.strip():
        raise click.UsageError(
            "--on has got an empty address. Write --on HOST:PORT, or --on alone as the last word "
            "for the only federation that you are a member of."
        )
    return "" if given == _ONLY else given


def folder_of(whose: str, variable: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--folder DIR`: which server or site; by default what a variable of the environment says."""
    return click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("."),
        envvar=variable,
        show_default=True,
        help=f"Folder of the {whose}.",
    )


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def at_folder(folder: Path) -> str:
    """Return the option that names a folder again in a command to type next; often nothing."""
    return "" if folder == Path() else f" --folder {shlex.quote(str(folder))}"


def pasted_invite(text: str) -> str:
    """Return the invitation in what was pasted: often the whole command that an operator sent."""
    command = r"(hansa\s+((site\s+)?join|combiner\s+init\s+--join)\s+)?"
    return re.sub(f"^{command}", "", text.strip().strip(_QUOTES)).strip(_QUOTES)


_QUOTES = " '\"`\u2018\u2019\u201c\u201d"


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    click.echo(json.dumps(value))


def confirmed(question: str) -> bool:
    """Ask a question; return whether the answer is yes.

    Raises:
      UsageError: nobody is there to answer.
    """
    try:
        return click.confirm(question)
    except click.Abort:
        if sys.stdin.isatty():
            raise  # Ctrl-C, or Ctrl-D
        raise click.UsageError(
            "There is nobody here to answer; nothing was done. Compare it, then add --yes."
        ) from None
