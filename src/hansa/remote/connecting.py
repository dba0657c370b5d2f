"""Connections to a federation's server, in a person's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hansa.errors import RunError
from hansa.identity import Membership, find_membership, load_membership
from hansa.identity.home import hansa_home
from hansa.protocol.connection import Connection
from hansa.protocol.enrolment import connection_of, renew_if_due

if TYPE_CHECKING:
    from hansa.runs import RunFolder


def membership_at(server: str) -> Membership:
    """Return a person's membership of the federation that is meant.

    Args:
      server: its address, or as much of it as a person types: the host with or without a port, or
        the federation's name; nothing means the only one there is.

    Raises:
      IdentityError: there is none, or it is not clear which one is meant.
    """
    if not server:
        return find_membership(None)
    if "://" in server:
        return find_membership(server)
    folders = [p.parent for p in (hansa_home() / "federations").glob("*/member.json")]
    found = []
    for membership in map(load_membership, sorted(folders)):
        place = urlsplit(membership.url)
        if server in (membership.federation, place.hostname, place.netloc):
            found.append(membership)
    return found[0] if len(found) == 1 else find_membership(server)


@contextmanager
def connected(membership: Membership) -> Iterator[Connection]:
    """Give a connection to a membership's server; its certificate is renewed in time.

    Raises:
      IdentityError: the server is not the federation's, or one is no longer a member.
      ServerError: the server cannot be reached.
    """
    with closing(connection_of(membership)) as connection:
        renew_if_due(connection, membership)
        yield connection


def place_of(run: str | None, on: str | None, *, runs: Path) -> tuple[Membership, str]:
    """Return where a run is and its name there.

    Args:
      run: a run folder's name, None the newest; with `on` the name at the server.
      on: the server, as in `membership_at`, or None.
      runs: folder of runs.

    Raises:
      RunError: there is no such run folder, or its run is of no federation.
    """
    if on is not None and run is not None:
        return membership_at(on), run
    from hansa.runs import find_run

    folder = find_run(runs, run)
    remote = folder.remote
    check_not_rehearsed(folder)
    if remote is None or remote["run"] is None:
        how = "was simulated here" if remote is None else "has not been handed over to its server"
        raise RunError(
            "run-not-found",
            f"The run {folder.name} {how}; there is no server to ask about it.",
            "To name a run at a server, add --on SERVER; hansa ls --on lists them.",
        )
    return membership_at(remote["url"]), remote["run"]


def check_not_rehearsed(folder: RunFolder) -> None:
    """Refuse to ask a server that is gone.

    Raises:
      RunError: run-ended, the run was of a rehearsal.
    """
    if folder.rehearsed:
        raise RunError(
            "run-ended",
            f"The run {folder.name} was of a rehearsal (hansa dev), whose server ends with it. "
            f"What it did until then, {len(folder.rows())} rounds, is in {folder.path}.",
            "Rehearse again with: hansa dev; run it at a federation with: hansa run --on SERVER",
        )
