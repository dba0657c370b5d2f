"""`hansa import`: projects of other systems, so that they run here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hansa.cli.lazy import LazyGroup, Verb

if TYPE_CHECKING:
    from hansa.compat.laying_out import Written

VERBS = {
    "flower": Verb("import_flower:flower", "Make a project from a Flower project."),
    "nvflare": Verb("import_nvflare:nvflare", "Make a project from an app of NVIDIA FLARE."),
    "metisfl": Verb("import_metisfl:metisfl", "Make a project from MetisFL's environment file."),
    "fedn": Verb("import_fedn:fedn", "Make a project from a package of FEDn."),
    "declearn": Verb("import_declearn:declearn", "Make a project from a declearn-quickrun set-up."),
}
"""Every system that a project may come from."""

command = LazyGroup(
    verbs=VERBS,
    help="Make a project from one of another system.",
)
"""The group itself."""


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="New folder.  [default: PATH-hansa]"
)
@click.option("--client", metavar="MODULE:OBJECT", help="Client app, where none is declared.")
@click.option("--model", metavar="MODULE:OBJECT", help="Function or class of the seed model.")
@click.option("--as", "strategy", metavar="NAME", help="Do as this server class of Flower.")
@click.option("--clients", type=click.IntRange(1), help="Simulated clients.")
@click.option(
    "--arguments", metavar="TEXT", help="What a script is given; {partition} is its client."
)
def flower(
    path: Path,
    target: Path | None,
    client: str | None,
    model: str | None,
    strategy: str | None,
    clients: int | None,
    arguments: str | None,
) -> None:
    """Make a project from the Flower project at PATH; its client app runs unchanged.

    Its pyproject.toml and server app are read and not executed; all Python files are copied as
    they are.  The new folder must not exist.

    \b
    Examples:
      hansa import flower quickstart-pytorch
      hansa import flower my-app --to my-study --model my_app.task:Net
    """
    from hansa.compat.flower.writing import Import, import_project

    asked = Import(path, target, client, model, strategy, clients, arguments)
    say_written(import_project(asked))


def say_written(written: Written) -> None:
    """Say what was made, and from what."""
    click.echo(f"Made {written.folder}:")
    for what, taken in written.facts:
        click.echo(f"  {what:<12} {taken}")
    if written.left:
        shown = ", ".join(written.left[:5]) + (" ..." if len(written.left) > 5 else "")
        click.echo(f"  {'not copied':<12} {shown}: what is no Python code stays where it is")
    click.echo(f"Next:\n  cd {shlex.quote(str(written.folder))}\n  hansa run")
