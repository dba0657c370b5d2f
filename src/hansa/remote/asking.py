"""What a server is asked about runs and members, and told to do with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from hansa.protocol.connection import Connection
from hansa.protocol.messages import EventPage, ModelPage, RunDetails, RunFacts, RunPage

P = TypeVar("P", RunPage, ModelPage)


class _Members(msgspec.Struct, frozen=True):
    members: list[dict[str, Any]]


class _Invite(msgspec.Struct, frozen=True):
    name: str
    role: str


class _Invited(msgspec.Struct, frozen=True):
    invite: str


class _Nothing(msgspec.Struct, frozen=True):
    pass


def all_facts(connection: Connection) -> list[RunFacts]:
    """Return the runs of a server, oldest first."""
    return [facts for page in pages(connection, "/v1/runs", kind=RunPage) for facts in page.runs]


def pages(connection: Connection, path: str, *, kind: type[P], more: str = "") -> Iterator[P]:
    """Give the pages of a list at a server, one after the other.

    Args:
      connection: to the server.
      path: of the list.
      kind: of its pages; each says in `next` where the one after it begins.
      more: of the query, such as `&run=study-1`.
    """
    after: int | None = 0
    while after is not None:
        page = connection.call("GET", f"{path}?after={after}{more}", kind=kind)
        yield page
        after = page.next


def details(connection: Connection, run: str) -> RunDetails:
    """Return one run with its submission and its sites' standings."""
    return connection.call("GET", run_path(run), kind=RunDetails)


def stop(connection: Connection, run: str) -> RunFacts:
    """End a run; what it has committed stays."""
    return connection.call("POST", f"{run_path(run)}/stop", _Nothing(), kind=RunFacts)


def events(connection: Connection, run: str, *, after: int, wait_s: float = 0.0) -> EventPage:
    """Return a run's events from a position on, and wait so long for the first of them."""
    path = f"{run_path(run)}/events?after={after}&wait_s={wait_s:g}"
    # A server that is away says so by itself; one that hangs is given up a little later.
    return connection.call("GET", path, kind=EventPage, timeout_s=2 * wait_s if wait_s else None)


def all_events(connection: Connection, run: str) -> list[dict[str, Any]]:
    """Return a run's events so far, of many pages if need be."""
    found: list[dict[str, Any]] = []
    while True:
        page = events(connection, run, after=len(found))
        if not page.events:
            return found
        found += page.events


def members(connection: Connection) -> list[dict[str, Any]]:
    """Return all members; of sites also their state and how many seconds ago each was heard of.

    Raises:
      RequestRefused: identity-role, only a viewer and an admin may ask.
    """
    return connection.call("GET", "/v1/members", kind=_Members).members


def revoke(connection: Connection, name: str) -> None:
    """End a membership at once.

    Raises:
      RequestRefused: identity-role, only an admin may; member-missing.
    """
    path = f"/v1/members/{quote(name, safe='')}/revoke"
    connection.call("POST", path, _Nothing(), kind=dict[str, Any])


def invite(connection: Connection, name: str, *, role: str = "site") -> str:
    """Return the line that lets a new member in, once.

    Raises:
      RequestRefused: identity-role, only an admin may; member-exists.
    """
    return connection.call("POST", "/v1/invites", _Invite(name, role), kind=_Invited).invite


def facts_line(facts: RunFacts) -> dict[str, Any]:
    """Return a run's facts as a line of a table."""
    return {
        "run": facts.run,
        "state": facts.state,
        "rounds": f"{facts.rounds_done}/{facts.rounds}",
        "submitter": facts.submitter,
        "submitted": facts.created,
        "reason": facts.reason,
    }


def facts_record(facts: RunFacts) -> dict[str, Any]:
    """Return facts as plain data, with what has its default value."""
    record = msgspec.structs.asdict(facts)
    return {**record, "sites": [msgspec.structs.asdict(site) for site in facts.sites]}


def run_path(run: str) -> str:
    """Return the address of a run, whatever a person has typed as its name."""
    return f"/v1/runs/{quote(run, safe='')}"
