"""`hansa import metisfl`: a federation environment of MetisFL's older generation."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="New folder.  [default: PATH-hansa]"
)
def metisfl(path: Path, target: Path | None) -> None:
    """Make a project from MetisFL's federation environment, the YAML file at PATH.

    It writes a plan, two of the programs and a README that says what was taken from where.
    Reading YAML takes PyYAML.  The new folder must not exist.

    \b
    Examples:
      hansa import metisfl cifar10.yaml
      hansa import metisfl env.yaml --to my-study
    """
    from hansa.compat.metisfl.environment import import_environment, import_folder, left_lines
    from hansa.compat.metisfl.place import learner_name

    folder = target or import_folder(path)
    environment = import_environment(path, folder)
    click.echo(f"Made {folder}:")
    for key, value in environment.taken:
        click.echo(f"  {key:<45} {value}")
    click.echo(f"  {'learners':<45} {', '.join(map(learner_name, environment.learners))}")
    for line in left_lines(environment):
        click.echo(f"  not taken over: {line}")
    click.echo(f"Next:\n  cd {shlex.quote(str(folder))}\n  write learner.py; see README.md")
