"""Asking the server that runs on this machine what only it knows, in its admin's name."""

from __future__ import annotations

from typing import Any

from hansa.errors import IdentityError
from hansa.identity import Authority, Membership, find_membership
from hansa.limits import LOCAL_ANSWER_S
from hansa.protocol.connection import Connection
from hansa.protocol.enrolment import renew_if_due
from hansa.server.settings import ServerSettings


def served_members(settings: ServerSettings, authority: Authority) -> list[dict[str, Any]]:
    """Return all members with their presence, as the running server knows it.

    Raises:
      IdentityError: identity-membership, no admin of this federation has a key here.
      ServerError: the server cannot be reached.
    """
    membership = _admin(settings, authority)
    connection = Connection(
        local_address(settings),
        authority_pem=authority.pem,
        key=membership.key(),
        certificate=membership.certificate,
        timeout_s=LOCAL_ANSWER_S,
    )
    try:
        renew_if_due(connection, membership)
        answer = connection.call("GET", "/v1/members", kind=dict[str, list[dict[str, Any]]])
    finally:
        connection.close()
    return answer["members"]


def local_address(settings: ServerSettings) -> str:
    """Return where a server is reached from its own machine; behind a proxy, its public one."""
    if not settings.tls:
        return settings.url
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "localhost") else settings.host
    return f"https://[{host}]:{settings.port}" if ":" in host else f"https://{host}:{settings.port}"


def _admin(settings: ServerSettings, authority: Authority) -> Membership:
    membership = find_membership(settings.url)
    if membership.authority_pem != authority.pem or membership.role not in (
        "admin",
        "viewer",
    ):
        raise IdentityError(
            "identity-membership",
            f"{membership.folder} is no admin's membership of this federation.",
            "Invite yourself: hansa server invite NAME --role admin, then: hansa join LINE",
        )
    return membership
