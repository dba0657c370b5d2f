"""`hansa import declearn`: a set-up of declearn-quickrun, so that it runs here."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.import_flower import say_written


@click.command()
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--to",
    "target",
    type=click.Path(path_type=Path),
    help="New folder.  [default: that of CONFIG, with -hansa]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of the clients' data.  [default: the set-up's]",
)
def declearn(path: Path, target: Path | None, data: Path | None) -> None:
    """Make a project from a declearn-quickrun set-up: its CONFIG.toml, or the folder with it.

    The set-up is read and not executed; its model file is copied as it is, and each client's rows
    as `hansa split` would write them.  The new folder must not exist.

    \b
    Examples:
      hansa import declearn mnist_quickrun/config.toml
      hansa import declearn config.toml -o study --data data_iid
    """
    from hansa.compat.declearn.writing import import_setup

    say_written(import_setup(path, target, data))
