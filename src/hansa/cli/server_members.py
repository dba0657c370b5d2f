"""`hansa server invite`, `sites`, `members`, `revoke` and `token`: who belongs to a federation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hansa.cli.options import at_folder, json_option, print_json
from hansa.cli.server import Duration, folder_option

if TYPE_CHECKING:
    from hansa.identity import Role


@click.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["site", "combiner", "viewer", "submitter", "admin"]),
    default="site",
    show_default=True,
    help="What it may do.",
)
@click.option("--org", default="", help="Whose it is, for people.")
@click.option(
    "--expires",
    type=Duration(),
    default="15m",
    show_default=True,
    metavar="TIME",
    help="How long the line holds: 15m, 24h, 7d.",
)
@folder_option
@json_option
def invite(name: str, role: Role, org: str, expires: float, folder: Path, as_json: bool) -> None:
    """Invite NAME: prints one line for it to type, which lets it in once.

    Send it as you would send a password.  A revoked member may be invited again under its name.

    \b
    Examples:
      hansa server invite hospital-north --org "North Hospital" --expires 24h
      hansa server invite anna --role submitter
    """
    from hansa.clock import date_of, wall
    from hansa.server.opening import invitation, opened

    at = wall()
    with opened(folder) as server:
        line = invitation(server, name, role=role, org=org, expires_s=expires, at=at)
    verbs = {"site": "hansa site join", "combiner": "hansa combiner init --join"}
    verb = verbs.get(role, "hansa join")
    ends = date_of(at + expires).isoformat()
    if as_json:
        print_json({"name": name, "role": role, "invite": line, "expires": ends})
        return
    click.echo(f"{verb} '{line}'")
    click.echo(f"Send this line to {name}; it lets one {role} in, once, until {ends}.", err=True)


@click.command()
@folder_option
@json_option
def sites(folder: Path, as_json: bool) -> None:
    """List sites: active, silent since when, or revoked; combiners, and who is behind them.

    Of a site whose key two agents use at once it says so: its folder may have been copied.  Who is
    there is known to the running server alone; it is asked on this machine, in the name of the
    admin whose key is here.

    \b
    Examples:
      hansa server sites
    """
    from hansa.server.settings import operated_by

    rows, why = _presence(folder)
    rows = [_shown(row) for row in rows if row["kind"] != "person"]
    if as_json:
        print_json({"sites": rows, "presence": why or "known"})
        return
    _table(
        rows,
        f"No site has joined yet. Invite one with: {operated_by(folder)} invite SITE"
        + at_folder(folder),
    )
    if why:
        click.echo(why, err=True)


@click.command(name="members")
@folder_option
@json_option
def list_members(folder: Path, as_json: bool) -> None:
    """List all members: sites and people, with their roles; revoked ones too.

    \b
    Example:
      hansa server members
    """
    from hansa.server.members import members
    from hansa.server.opening import opened
    from hansa.server.tokens import tokens

    with opened(folder, whole=False) as server:
        rows = [_shown(row) for row in members(server.database)]
        kept = [token._asdict() for token in tokens(server.database)]
    if as_json:
        print_json({"members": rows, "tokens": kept})
        return
    _table(rows, "There are no members.")
    for token in kept:
        click.echo(f"Token {token['name']}: {_ends(token)}")


@click.command()
@click.argument("name")
@folder_option
def revoke(name: str, folder: Path) -> None:
    """End the membership of NAME.

    A running server feels it within seconds: what NAME asks is refused, and rounds go on without
    it.  What it has contributed stays in the models.

    \b
    Examples:
      hansa server revoke hospital-north
    """
    from hansa.server import members
    from hansa.server.opening import OPERATOR, opened
    from hansa.server.settings import operated_by

    with opened(folder) as server:
        member = members.revoke(server.database, name, by=OPERATOR)
    click.echo(f"{name} ({member.role}) is revoked; a running server feels it within 5 seconds.")
    again = "" if member.role == "site" else f" --role {member.role}"
    click.echo(
        f"Let it in again with: {operated_by(folder)} invite {name}{again}{at_folder(folder)}"
    )


@click.command()
@click.argument("name")
@click.option(
    "--expires",
    type=Duration(),
    default="30d",
    show_default=True,
    metavar="TIME",
    help="How long it holds: 24h, 30d.",
)
@click.option("--revoke", "end", is_flag=True, help="Revoke all tokens of this name instead.")
@folder_option
@json_option
def token(name: str, expires: float, end: bool, folder: Path, as_json: bool) -> None:
    """Make a token called NAME, for programs that only look: metrics, health, runs.

    It is shown this once; the server keeps a hash.  Programs send it as
    `Authorization: Bearer hansa_...`.

    \b
    Examples:
      hansa server token prometheus --expires 30d
      hansa server token --revoke prometheus
    """
    from hansa.clock import date_of, wall
    from hansa.server.opening import OPERATOR, opened
    from hansa.server.tokens import create_token, revoke_token

    with opened(folder) as server:
        if end:
            count = revoke_token(server.database, name, by=OPERATOR)
            facts: dict[str, Any] = {"name": name, "revoked": count}
            told = f"{count} token{'s' * (count != 1)} called {name}: revoked."
        else:
            at = wall()
            made = create_token(server.database, name, by=OPERATOR, at=at, expires_s=expires)
            ends = date_of(at + expires).isoformat()
            facts, told = {"name": name, "token": made, "expires": ends}, made
    if as_json:
        print_json(facts)
        return
    click.echo(told)
    if not end:
        click.echo(f"Shown this once. It may look, until {ends}, and nothing else.", err=True)


def _presence(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Return all members with what the running server knows, and why it was not asked."""
    from hansa.errors import HansaError
    from hansa.holding import is_held
    from hansa.remote.asking import members as all_members
    from hansa.server.asking import asked

    try:
        return asked(folder, all_members), ""
    except HansaError as error:
        why = f"The server was not asked who is there: {error.happened}"
    if not is_held(folder):
        why = "The server does not run here, so nobody knows who is there."
    from hansa.server.members import members
    from hansa.server.opening import opened

    states = {True: "revoked", False: "unknown"}
    with opened(folder) as server:
        rows = members(server.database)
    return [{**m, "state": states[bool(m["revoked_at"])]} for m in rows], why


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    state = row.get("state") or ("revoked" if row["revoked_at"] else "member")
    if state == "revoked":
        state = f"revoked {row['revoked_at']}"
    elif row.get("twice"):
        state += ", two agents"
    return {
        "name": row["name"],
        "role": row["role"],
        "state": state,
        "org": row["org"],
        **({"attributes": _said(row["attributes"])} if row.get("attributes") else {}),
        "joined": row["joined_at"],
        "key": row["fingerprint"],
        **({"via": row["via"]} if row.get("via") else {}),
        **({"hansa": row["version"]} if row.get("version") else {}),
    }


def _said(attributes: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in attributes.items())


def _ends(token: dict[str, Any]) -> str:
    from hansa.clock import date_of

    if token["revoked_at"]:
        return f"revoked {token['revoked_at']}"
    return f"until {date_of(token['expires_at']).isoformat()}" if token["expires_at"] else "holds"


def _table(rows: list[dict[str, Any]], nothing: str) -> None:
    from hansa.table import Table

    click.echo(str(Table(rows)) if rows else nothing)
