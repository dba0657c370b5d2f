"""`hansa run ENV.yaml`: MetisFL's federation environment, as its older driver ran it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click
from click.core import ParameterSource


def run_yaml(path: Path) -> None:
    """Start what the file names on this machine, and follow it to the end.

    Raises:
      HansaError: the file asks for what Hansa does not do, or a program has failed.
    """
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in ("project", "new")
        and context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(
            f"{given[0]} is of a project; a federation environment says all in its file."
        )
    from hansa.compat.metisfl.environment import left_lines, read_environment
    from hansa.compat.metisfl.running import run_environment

    for line in left_lines(read_environment(path)):
        click.echo(f"Not taken over: {line}")
    # Ended by whoever supervises it, it ends what it has started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = run_environment(path, click.echo, new=context.params["new"])
    click.echo(f"The programs that were run, and what they printed, are in {programs}")
