"""`hansa import nvflare`: an app of NVIDIA FLARE, so that it runs here."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.import_flower import say_written


@click.command()
@click.argument("path", metavar="APP", type=click.Path(path_type=Path))
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="New folder.  [default: APP-hansa]"
)
@click.option("--clients", type=click.IntRange(1), help="Simulated clients.")
def nvflare(path: Path, target: Path | None, clients: int | None) -> None:
    """Make a project from the FLARE app, or the job folder, at APP; its code runs unchanged.

    Its configurations are read and not executed; all Python files are copied as they are.  The
    new folder must not exist.

    \b
    Examples:
      hansa import nvflare hello-numpy-sag
      hansa import nvflare jobs/hello-pt --to my-study --clients 4
    """
    from hansa.compat.nvflare.writing import import_app

    say_written(import_app(path, target, clients))


def brought(source: Path, target: Path) -> None:
    """Write a project made of an app to a new folder; nothing is said."""
    from hansa.compat.nvflare.writing import import_app

    import_app(source, target)
