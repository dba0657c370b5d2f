"""`hansa server doctor`, `backup` and `certificate`: looking after a server, or a combiner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hansa.cli.options import at_folder, json_option, print_json
from hansa.cli.server import folder_option

_MARKS = {"bad": ("BAD ", "red"), "warn": ("look", "yellow"), "good": ("good", "green")}


@click.command()
@folder_option
@click.option("--quick", is_flag=True, help="Do not read the bytes of every model.")
@click.option("--clean", is_flag=True, help="Remove left-over files of a stopped server.")
@json_option
def doctor(folder: Path, quick: bool, clean: bool, as_json: bool) -> None:
    """Check clock, disk, certificates, keys, database, models, left-over files, backups and runs.

    Exits with 1 if something is bad, so that cron or systemd can tell you, and with 0 if there is
    only something to look at.  It changes nothing, and the server may run.

    \b
    Examples:
      hansa server doctor
    """
    from hansa.server.doctor import clean_up, examine
    from hansa.server.opening import opened

    with opened(folder) as server:
        removed = clean_up(server) if clean else None
        found = examine(server, quick=quick, where=at_folder(folder))
    bad = sum(finding.grade == "bad" for finding in found)
    if as_json:
        facts: dict[str, Any] = {"findings": [finding._asdict() for finding in found], "bad": bad}
        print_json(facts if removed is None else {**facts, "removed": removed[0]})
    else:
        if removed is not None:
            click.echo(f"Removed {removed[0]} files, {removed[1]} bytes.")
        for finding in found:
            mark, color = _MARKS[finding.grade]
            click.echo(f"{click.style(mark, fg=color)}  {finding.about:<10} {finding.told}")
            if finding.command:
                click.echo(f"{'':<17}{finding.command}")
    if bad:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("target", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@folder_option
@json_option
def backup(target: Path, folder: Path, as_json: bool) -> None:
    """Copy all of it into DIR, also while it runs; the next time only what is new.

    The copy is a folder that can be started: that restores it.  It holds the federation's keys, so
    keep it as you keep them.

    \b
    Examples:
      hansa server backup /backups/heart
      hansa server start --folder /backups/heart
    """
    from hansa.server.backing_up import back_up
    from hansa.server.opening import opened
    from hansa.server.settings import operated_by
    from hansa.web.words import byte_size

    with opened(folder) as server:
        made = back_up(server, target)
    operated = operated_by(folder)
    if as_json:
        facts = made._asdict()
        print_json({**facts, "folder": str(made.folder)})
        return
    click.echo(f"Backed up to {target.resolve()}: {made.blobs} blobs, {byte_size(made.bytes)}.")
    click.echo("It holds the federation's private keys (mode 0600); keep it as you keep them.")
    if made.linked:
        click.echo("It shares its blobs with the server's disk; copy it to another one as well.")
    click.echo(f"Check it:   {operated} doctor{at_folder(target)}")
    click.echo("Restore it: stop what runs, copy this folder to where it shall live, and there:")
    click.echo(f"            {operated} start")


@click.command()
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option(
    "--to",
    "target",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for tls.pem and tls-key.pem.",
)
@click.option("--days", type=click.IntRange(1, 825), default=90, show_default=True,
              help="How long it holds.")  # fmt: skip
@folder_option
def certificate(hosts: tuple[str, ...], target: Path, days: int, folder: Path) -> None:
    """Make a TLS certificate of the federation's authority for a proxy that answers as HOST.

    Members believe the federation's own authority and no other, so a proxy in front of the server
    needs a certificate of it.  Run it again in time: a key that is there is kept.

    \b
    Example:
      hansa server certificate hansa.example.org --to /etc/nginx/hansa
    """
    import re

    from hansa.identity import load_authority
    from hansa.server.settings import load_settings

    load_settings(folder)
    if target.resolve() == folder.resolve():
        raise click.UsageError("--to is the server's own folder; name another one.")
    for host in hosts:
        if not re.fullmatch(r"[A-Za-z0-9*]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?", host):
            raise click.UsageError(f"{host[:80]!r} is no host name and no address.")
    authority = load_authority(folder)
    target.mkdir(parents=True, exist_ok=True)
    authority.issue_tls(target, hosts, days=days)
    click.echo(f"{target / 'tls.pem'}      certificate and authority, for {', '.join(hosts)}")
    click.echo(f"{target / 'tls-key.pem'}  its key, mode 0600")
    click.echo(f"They hold for {days} days; make them again in time and reload the proxy.")
