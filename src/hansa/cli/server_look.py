"""`hansa server status`, `runs` and `audit`: what there is, and what has happened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hansa.cli.options import at_folder, json_option, print_json
from hansa.cli.server import folder_option, grouped

if TYPE_CHECKING:
    from hansa.protocol.messages import RunFacts


@click.command()
@folder_option
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Tell whether the server runs, its address, and the fingerprint to compare by phone.

    \b
    Examples:
      hansa server status
    """
    from hansa.holding import is_held
    from hansa.server.journal import Journal
    from hansa.server.members import members
    from hansa.server.opening import opened
    from hansa.server.settings import operated_by

    with opened(folder) as server:
        there = [m for m in members(server.database) if not m["revoked_at"]]
        states = Journal(server.database, lambda _: None).run_states()
        facts: dict[str, Any] = {
            "federation": server.settings.name,
            "url": server.settings.url,
            "fingerprint": server.authority.fingerprint,
            "runs_here": is_held(folder),
            "sites": sum(m["kind"] == "site" for m in there),
            "people": sum(m["kind"] == "person" for m in there),
            "runs": states,
        }
    if as_json:
        print_json(facts)
        return
    runs = ", ".join(f"{count} {state}" for state, count in states.items()) or "none yet"
    stopped = f"does not run: {operated_by(folder)} start{at_folder(folder)}"
    lines = {
        "Federation": facts["federation"],
        "Address": facts["url"],
        "Fingerprint": grouped(facts["fingerprint"]),
        "Server": "runs" if facts["runs_here"] else stopped,
        "Members": f"{_counted(facts['sites'], 'site', 'sites')}, "
        f"{_counted(facts['people'], 'person', 'people')}",
        "Runs": runs,
    }
    for head, told in lines.items():
        click.echo(f"{head:<14}{told}")


@click.command()
@folder_option
@json_option
def runs(folder: Path, as_json: bool) -> None:
    """List the runs of all submitters, oldest first.

    A running server is asked, in the name of the admin whose key is here: it alone knows why a run
    waits.  Where it cannot be asked, its database tells the rest.

    \b
    Example:
      hansa server runs
    """
    from hansa.errors import HansaError
    from hansa.remote.asking import all_facts, facts_line
    from hansa.server.asking import asked
    from hansa.table import Table

    try:
        found = asked(folder, all_facts)
    except HansaError:
        found = _recorded(folder)
    rows = [facts_line(facts) for facts in found]
    if as_json:
        print_json({"runs": rows})
        return
    click.echo(str(Table(rows)) if rows else "No run has been submitted yet.")


def _recorded(folder: Path) -> list[RunFacts]:
    from hansa.server.journal import Journal
    from hansa.server.opening import opened

    with opened(folder) as server:
        journal = Journal(server.database, lambda _: None)
        return [journal.facts(row) for row in journal.runs()]


@click.command(name="audit")
@click.option("-n", "count", type=click.IntRange(1), default=50, show_default=True, help="Lines.")
@folder_option
@json_option
def audit_trail(count: int, folder: Path, as_json: bool) -> None:
    """Show who did what and what came of it, newest last.  It holds no secret.

    \b
    Example:
      hansa server audit -n 200
    """
    from hansa.server.audit import newest
    from hansa.server.opening import opened
    from hansa.table import Table

    with opened(folder, whole=False) as server:
        rows = newest(server.database, count)
    if as_json:
        print_json({"audit": rows})
        return
    shown = [{key: value for key, value in row.items() if key != "id"} for row in rows]
    click.echo(str(Table(shown)) if shown else "Nothing has happened yet.")


def _counted(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
