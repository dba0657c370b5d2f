"""`hansa combiner init`: an invitation redeemed, and a server for sites of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.options import at_folder, confirmed, pasted_invite
from hansa.cli.server import folder_option, grouped
from hansa.cli.server_init import placed


@click.command()
@folder_option
@click.option("--join", "line", required=True, metavar="LINE",
              help="The invitation of the server above, for a combiner.")  # fmt: skip
@click.option("--url", help="How its sites reach it.  [default: https://localhost:PORT]")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.  [default: the one of --url, or 8443]")
@click.option("--admin", default="admin", show_default=True, help="Name of the first admin: you.")
@click.option("--yes", is_flag=True, help="Do not ask whether the fingerprint is right.")
def command(
    folder: Path, line: str, url: str | None, host: str, port: int | None, admin: str, yes: bool
) -> None:
    """Make a combiner's folder: a membership of the server above, and a server of its own.

    The operator above makes LINE with: hansa server invite NAME --role combiner.  The sites of a
    combiner join it as they would join a server, with an authority of its own; who may submit runs
    is still said by the server above, and each site's owner decides on every run.

    \b
    Example:
      hansa combiner init --folder west --url https://west.example.org:8443 \\
        --join 'https://hansa.example.org:8443#TOKEN.FINGERPRINT'
    """
    from hansa.combiner.state import found_combiner
    from hansa.identity import parse_invite
    from hansa.server.settings import ServerSettings, checked

    url, port = placed(url, port, behind=False)
    invite = parse_invite(pasted_invite(line))
    name = folder.resolve().name
    settings = checked(
        ServerSettings(name=name, url=url, host=host, port=port), where="The combiner"
    )
    click.echo(f"Server above  {invite.url}\nFingerprint   {grouped(invite.fingerprint)}")
    if not yes and not confirmed("Is it the one that its operator reads out?"):
        click.echo("Not joined. Nothing was sent; call the operator.", err=True)
        raise click.exceptions.Exit(1)
    founded, membership = found_combiner(folder, invite, settings, admin=admin)
    at = at_folder(folder)
    click.echo(
        f"\nThis is now the combiner {membership.name} of {membership.federation}.\n"
        f"Address       {url}\n"
        f"Fingerprint   {grouped(founded.fingerprint)}\n"
        f"              its own: read it out by phone to the sites that join it\n"
        f"You           {admin}, admin; your key is in {founded.admin.folder}\n"
        "Next:\n"
        f"  hansa combiner start{at}\n"
        f"  hansa combiner invite SITE{at}"
    )
