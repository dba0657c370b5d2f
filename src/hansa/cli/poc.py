"""`hansa poc`: the layout of NVIDIA FLARE's walkthrough."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command()
@click.option(
    "-n", "sites", type=click.IntRange(1, 100), default=2, show_default=True, help="Sites."
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("poc"),
    show_default=True,
    help="New folder for all of them.",
)
@click.option("--port", type=click.IntRange(1, 65_535), help="Of localhost.  [default: a free one]")
def command(sites: int, folder: Path, port: int | None) -> None:
    """Lay out a server, sites and an admin's kit on this machine, to be started by hand.

    The folders and scripts are named as in NVIDIA FLARE's walkthrough. Sites let the admin's plans
    run. `hansa dev` does all of it in one command, and ends it again.

    \b
    Example:
      hansa poc -n 2
    """
    from hansa.dev.poc import lay_out

    url, typed = lay_out(folder, sites, port=port), shlex.quote(str(folder))
    click.echo(f"Server, {sites} site{'s' * (sites != 1)} and the admin of {url} are in {folder}.")
    click.echo("In terminals of their own:")
    click.echo(f"  {typed}/server/startup/start.sh")
    for number in range(1, min(sites, 3) + 1):
        click.echo(f"  {typed}/site-{number}/startup/start.sh")
    if sites > 3:
        click.echo("  ...")
    click.echo(f"  {typed}/admin/startup/fl_admin.sh")
    click.echo(f"Apps to upload go into {folder}/admin/transfer; end all with {typed}/stop_fl.sh")
