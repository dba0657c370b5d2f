"""Joining a federation, and speaking as its member.

One invitation, a key that is made here and never leaves, and a certificate that is renewed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

from hansa.errors import IdentityError, RequestRefused
from hansa.identity import (
    Invite,
    Membership,
    enrolment_text,
    load_membership,
    own_key,
    save_certificate,
    save_membership,
    to_text,
)
from hansa.protocol.connection import Connection, read_authority
from hansa.protocol.messages import Enrolled, Enrolment, Poll, PollAnswer


def enrol(
    invite: Invite, folder: Path, *, kind: Literal["site", "combiner", "person"] | None = None
) -> Membership:
    """Redeem an invitation, for a site and a person alike.

    The federation's CA is believed only if it has the invitation's fingerprint, and the token is
    sent only over a connection that verifies against it.  The key is kept before anything is sent:
    when the answer is lost, the same command shows the same key again.

    Args:
      invite: what the operator gave.
      folder: of the membership; made if need be.
      kind: what the folder is for; an invitation of the other kind is refused and not used up.

    Raises:
      IdentityError: the folder has joined already, or the server is not the invitation's.
      RequestRefused: the token is unknown, redeemed, too old or of the other kind.
      ServerError: the server cannot be reached.
    """
    if (folder / "member.json").exists():
        whose = load_membership(folder)
        raise IdentityError(
            "member-exists",
            f"{folder} is the membership of {whose.name!r}, with the role {whose.role}, already. "
            "Nothing was sent, and the invitation can still be used.",
            "Use it as it is; or join as somebody else from another --folder, or for a person with "
            f"another HANSA_HOME. If it was revoked and invited anew, move {folder} away first.",
        )
    authority = read_authority(invite.url, invite.fingerprint)
    file = folder / "key.pem"
    fresh = not file.exists()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = own_key(file)
    asked = Enrolment(
        token=invite.token,
        public_key=to_text(key.public),
        proof=to_text(key.sign(enrolment_text(invite.token))),
        kind=kind,
    )
    connection = Connection(invite.url, authority_pem=authority)
    try:
        answer = connection.call("POST", "/v1/enrolments", asked, kind=Enrolled)
    except RequestRefused as refusal:
        if fresh and refusal.said.startswith(("invite-", "identity-")):  # the server's own word
            _left_as_it_was(file)
        raise
    finally:
        connection.close()
    from hansa.identity.authority import check_certificate  # X.509, which is slow to import

    certified = check_certificate(answer.certificate, authority, at=None)
    if certified.public != key.public or certified.name != answer.name:
        raise _another(invite.url)
    membership = Membership(
        folder,
        invite.url,
        answer.name,
        answer.role,
        authority,
        answer.receipt_key,
        answer.federation,
        answer.submitters,
    )
    save_membership(membership, answer.certificate)
    return membership


def _left_as_it_was(key: Path) -> None:
    """Remove a key that nobody has taken, and its folder if it holds nothing else."""
    key.unlink()
    with contextlib.suppress(OSError):
        key.parent.rmdir()


def connection_of(membership: Membership, *, url: str = "", timeout_s: float = 30.0) -> Connection:
    """Return a connection in a member's name.

    Args:
      url: where the server is reached from here; by default where all members reach it.
      timeout_s: longest silence of the server.

    Raises:
      IdentityError: the membership's key or authority cannot be read.
    """
    return Connection(
        url or membership.url,
        authority_pem=membership.authority_pem,
        key=membership.key(),
        certificate=membership.certificate,
        timeout_s=timeout_s,
    )


def poll(connection: Connection, membership: Membership, asked: Poll) -> PollAnswer:
    """Ask a server for work; the certificate is renewed in time, or once the server calls it over.

    Raises:
      RequestRefused: the server said no.
      IdentityError: as `renew`.
      ServerError: the server cannot be reached.
    """
    renew_if_due(connection, membership)
    try:
        return connection.call("POST", "/v1/poll", asked, kind=PollAnswer)
    except RequestRefused as refusal:
        if refusal.said != "identity-expired":
            raise
        renew(connection, membership)
        return connection.call("POST", "/v1/poll", asked, kind=PollAnswer)


def renew_if_due(connection: Connection, membership: Membership) -> bool:
    """Get a new certificate if the server finds half of the present one's time over; say so.

    Raises:
      IdentityError: the server does not regard one as a member, or certifies somebody else.
      ServerError: the server cannot be reached.
    """
    if not connection.renewal_due():
        return False
    renew(connection, membership)
    return True


def renew(connection: Connection, membership: Membership) -> None:
    """Get a new certificate; a server that says the present one is over need not be argued with.

    This machine's clock may be wrong, so what the server says counts.

    Raises:
      IdentityError: the server does not regard one as a member, or certifies somebody else.
      ServerError: the server cannot be reached.
    """
    from hansa.identity.authority import check_certificate

    answer = connection.call("POST", "/v1/certificates", kind=Enrolled)
    member = check_certificate(answer.certificate, membership.authority_pem, at=None)
    if (member.name, member.public) != (membership.name, membership.key().public):
        raise _another(membership.url)
    save_certificate(membership.folder, answer.certificate)
    connection.renewed()


def _another(url: str) -> IdentityError:
    return IdentityError(
        "identity-certificate",
        f"The server at {url} certified another key or name than it was asked for. "
        "Nothing was kept.",
        "Tell the operator of the federation, and join nothing else there meanwhile.",
    )
