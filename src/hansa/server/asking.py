"""Asking the server that runs on this machine what only it knows, in its admin's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hansa.errors import IdentityError
from hansa.identity import Membership, find_membership
from hansa.limits import LOCAL_ANSWER_S
from hansa.protocol.connection import Connection
from hansa.protocol.enrolment import connection_of, renew_if_due
from hansa.server.settings import ServerSettings, load_settings

T = TypeVar("T")


def asked(folder: Path, question: Callable[[Connection], T]) -> T:
    """Return what the server that runs from a folder answers to one of its admins.

    Raises:
      IdentityError: identity-membership, no admin of this federation has a key here.
      ServerError: the server cannot be reached, or its settings cannot be read.
    """
    settings = load_settings(folder)
    membership = _admin(settings, folder / "ca.pem")
    address = local_address(settings)
    with connection_of(membership, url=address, timeout_s=LOCAL_ANSWER_S) as connection:
        renew_if_due(connection, membership)
        return question(connection)


def local_address(settings: ServerSettings) -> str:
    """Return where a server is reached from its own machine; behind a proxy, its public one."""
    if not settings.tls:
        return settings.url
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "localhost") else settings.host
    return f"https://[{host}]:{settings.port}" if ":" in host else f"https://{host}:{settings.port}"


def _admin(settings: ServerSettings, authority: Path) -> Membership:
    membership = find_membership(settings.url)
    pem = authority.read_text(encoding="ascii", errors="replace") if authority.is_file() else ""
    if membership.authority_pem != pem or membership.role not in ("admin", "viewer"):
        raise IdentityError(
            "identity-membership",
            f"{membership.folder} is no admin's membership of this federation.",
            "Invite yourself: hansa server invite NAME --role admin, then: hansa join LINE",
        )
    return membership
