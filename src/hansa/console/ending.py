"""Ending: agents and the server of this machine, and memberships.

A member never ends another owner's process.  `shutdown` ends what runs on the admin's own machine,
in folders that were named when the console was started; of anything else it says who can.
"""

from __future__ import annotations

from collections.abc import Iterator

from hansa.console.answers import table
from hansa.console.parsing import Command
from hansa.console.seat import Seat, own_sites
from hansa.errors import ConsoleError, HansaError
from hansa.holding import wait_until_free
from hansa.limits import SERVER_END_S, SITE_END_S
from hansa.protocol.messages import ENDED
from hansa.remote import asking
from hansa.server.presence import stop_process
from hansa.site.presence import find_agent, stop_agent
from hansa.text import clean


def remove_client(seat: Seat, command: Command) -> Iterator[str]:
    """End a site's membership."""
    name = command.words[0]
    sites = {site["name"] for site in seat.sites() or []}
    if sites and name not in sites:
        raise ConsoleError(
            "console-order",
            f"There is no client {clean(name)!r}. Nothing was done.",
            f"There are: {', '.join(sorted(sites))}",
        )
    asking.revoke(seat.connection, name)
    yield f"{clean(name)} is no member any more; rounds go on without it."
    yield f"Let it in again with: hansa server invite {clean(name)}"


def shutdown(seat: Seat, command: Command) -> Iterator[str]:
    """End agents, or the server, of this machine."""
    target, *names = command.words
    if target == "server" and names:
        raise ConsoleError(
            "console-verb",
            f"shutdown server does not take {clean(names[0])!r}. Nothing was done.",
            "Type: shutdown server",
        )
    if target in ("client", "all"):
        yield from _clients(seat, names)
    if target in ("server", "all"):
        yield from _server(seat)


def _clients(seat: Seat, names: list[str]) -> Iterator[str]:
    here = own_sites(seat.sites_folder)
    others = [name for name in names if name not in here]
    if others or not here:
        who = clean(others[0]) if others else "A client"
        raise ConsoleError(
            "console-refused",
            f"{who} is not the admin's own: what runs at a site, its data owner decides. Nothing "
            "was ended.",
            "Its owner ends it with hansa site stop; remove_client SITE keeps it out. Agents on "
            "this machine are ended when the console was started with --sites FOLDER.",
        )
    agents = {name: find_agent(here[name]) for name in names or here}
    for agent in agents.values():
        if agent is not None:
            stop_agent(agent, at_once=False)
    rows = []
    for name, agent in agents.items():
        if agent is None:
            rows.append([name, "ran no more"])
        elif wait_until_free(here[name], seconds=SITE_END_S):
            rows.append([name, "Shutdown the client..."])
        else:
            rows.append([name, f"still runs as process {agent.pid}: hansa site stop --now"])
    yield table(["CLIENT", "RESPONSE"], rows)
    if not names and (away := _elsewhere(seat, set(here))):
        yield f"Not of this machine, and ended by their owners alone: {', '.join(away)}"


def _elsewhere(seat: Seat, here: set[str]) -> list[str]:
    try:
        sites = seat.sites() or []
    except HansaError:  # the server is away already, and knows of none
        return []
    return [clean(s["name"]) for s in sites if s["name"] not in here and s["state"] == "active"]


def _server(seat: Seat) -> Iterator[str]:
    if seat.server_folder is None:
        raise ConsoleError(
            "console-refused",
            f"The server at {seat.url} is not ended over the network. Nothing was ended.",
            "On its own machine: hansa console --server FOLDER, or Ctrl-C or SIGTERM, or its "
            "service manager.",
        )
    going = _going(seat)
    seat.close()
    if stop_process(seat.server_folder, seconds=SERVER_END_S) is None:
        yield f"No server runs from {seat.server_folder}."
        return
    yield "FL app has been shutdown."
    if going:
        yield f"Not ended, and going on when it starts again: {', '.join(going)}"
    yield "Sites that still run connect again by themselves when it starts."
    yield "Bye bye"


def _going(seat: Seat) -> list[str]:
    """Return the runs that have not ended; none if the server is away already."""
    try:
        found = asking.all_facts(seat.connection)
    except HansaError:
        return []
    return [clean(facts.run) for facts in found if facts.state not in ENDED]
