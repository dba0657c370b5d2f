"""`hansa join`: become a member of a federation, as a person."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

from hansa.cli.options import json_option, pasted_invite, print_json


@click.command()
@click.argument("invite")
@json_option
def command(invite: str, as_json: bool) -> None:
    """Join a federation with the INVITE line that its operator gave to you.

    Makes a key that stays on this machine, below ~/.config/hansa or HANSA_HOME.  The invitation
    says by which authority the server must be certified, and can be used once.  A data owner's
    machine joins with `hansa site join`.

    \b
    Example:
      hansa join 'https://hansa.example.org:8443#TOKEN.FINGERPRINT'
    """
    from hansa.identity import membership_folder, parse_invite
    from hansa.protocol.enrolment import enrol

    parsed = parse_invite(pasted_invite(invite))
    membership = enrol(parsed, membership_folder(parsed.url), kind="person")
    if as_json:
        print_json(
            {
                "name": membership.name,
                "role": membership.role,
                "federation": membership.federation,
                "url": membership.url,
                "folder": str(membership.folder),
            }
        )
        return
    server = urlsplit(membership.url).netloc
    following = f"hansa ls --on {server}"
    if membership.role in ("submitter", "admin"):
        following += f" · hansa run --on {server}"
    federation = f" of {membership.federation}" if membership.federation else ""
    click.echo(
        f"You are {membership.name}, {membership.role}{federation} at {membership.url}.\n"
        f"Key:  {membership.folder} (never leaves this machine)\n"
        f"Next: {following}"
    )
