"""`hansa server init`: a folder that is a server, and the first admin's key."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import click

from hansa.cli.options import at_folder
from hansa.cli.server import folder_option, grouped


@click.command()
@folder_option
@click.option("--name", default="federation", show_default=True, help="What people see.")
@click.option("--url", help="How sites and people reach it.  [default: https://localhost:PORT]")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.  [default: the one of --url, or 8443]")
@click.option("--admin", default="admin", show_default=True, help="Name of the first admin: you.")
@click.option("--no-tls", is_flag=True, help="A proxy on this machine ends TLS; see its page.")
def command(
    folder: Path,
    name: str,
    url: str | None,
    host: str,
    port: int | None,
    admin: str,
    no_tls: bool,
) -> None:
    """Make a server's folder: settings, authority, keys, database, and you as the first admin.

    The address of --url stands in every invitation, so it must be the one that sites reach.
    Nothing is started or sent.

    \b
    Example:
      hansa server init --folder heart --name heart --url https://hansa.example.org:8443
    """
    from hansa.server.founding import found
    from hansa.server.settings import ServerSettings, checked

    url, port = placed(url, port, behind=no_tls)
    if no_tls and host == "0.0.0.0":
        host = "127.0.0.1"
    settings = checked(
        ServerSettings(name=name, url=url, host=host, port=port, tls=not no_tls), where="The server"
    )
    founded = found(folder, settings, admin=admin)
    at = at_folder(folder)
    click.echo(
        f"The server of {name} is in {folder.resolve()}; nothing runs yet.\n"
        f"Address       {url}\n"
        f"Fingerprint   {grouped(founded.fingerprint)}\n"
        f"              read it out by phone to whoever joins\n"
        f"You           {admin}, admin; your key is in {founded.admin.folder}\n"
        f"Keep secret   {folder / 'ca-key.pem'}: whoever has it is the federation\n"
        "Next:\n"
        f"  hansa server start{at}\n"
        f"  hansa server invite SITE{at}"
    )


def placed(url: str | None, port: int | None, *, behind: bool) -> tuple[str, int]:
    """Return the public address and the port to listen on, of which both may be left out."""
    if url is None:
        port = 8443 if port is None else port
        return f"https://localhost:{port}", port
    try:
        place = urlsplit(url if "://" in url else f"https://{url}")
        public, said = place.hostname, place.port
    except ValueError:
        public, said = None, None
    plain = public and place.scheme == "https" and place.path in ("", "/") and not place.query
    if not plain or "@" in place.netloc:
        raise click.BadParameter(
            f"{url!r} is no address; write https://HOST:PORT.", param_hint="--url"
        )
    host = f"[{public}]" if ":" in str(public) else public
    if port is None:
        port = 8443 if behind else said or 443
    return f"https://{host}:{said or 443}", port
