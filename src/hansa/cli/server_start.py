"""`hansa server start`: one process, one port, until it is told to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hansa.cli.options import at_folder
from hansa.cli.server import folder_option, grouped

if TYPE_CHECKING:
    from hansa.server.settings import ServerSettings


@click.command()
@folder_option
@click.option("--log-json", is_flag=True, help="Log one JSON object a line, for programs.")
def command(folder: Path, log_json: bool) -> None:
    """Serve until Ctrl-C or SIGTERM; then answer what is open and leave.

    Runs that have not ended go on by themselves when the server starts again, also after a crash.

    \b
    Example:
      hansa server start --folder heart
    """
    from hansa.identity import load_authority
    from hansa.server.logs import log_to_stderr
    from hansa.server.opening import check_database, refuse_combiner
    from hansa.server.serve import serve
    from hansa.server.settings import load_settings

    load_settings(folder)  # its words come before any others
    refuse_combiner(folder)
    check_database(folder)
    fingerprint = load_authority(folder).fingerprint
    log_to_stderr(as_json=log_json)
    serve(folder, started=lambda settings: tell(settings, folder, fingerprint))
    click.echo("The server has ended; runs that have not ended go on when it starts again.")


def tell(settings: ServerSettings, folder: Path, fingerprint: str) -> None:
    """Say what is there, once requests are taken."""
    from hansa.server.settings import operated_by

    at, commands = at_folder(folder), operated_by(folder)
    scheme = "https" if settings.tls else "http"
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "localhost", "::") else settings.host
    host = f"[{host}]" if ":" in host else host
    here = f"{scheme}://{host}:{settings.port}"
    asks = "from this machine, or with a token" if settings.tls else "with a token"
    click.echo(
        f"Federation    {settings.name}, at {settings.url}\n"
        f"Fingerprint   {grouped(fingerprint)}\n"
        f"Health        {here}/health and /ready ({asks})\n"
        f"Metrics       {here}/metrics ({asks})\n"
        f"Invite        {commands} invite SITE{at}\n"
        f"Look after    {commands} sites{at} · {commands} doctor{at}\n"
        "Stop          Ctrl-C, or SIGTERM"
    )
    if not settings.tls:
        click.echo("TLS           ended by a proxy on this machine; this port takes no stranger")
