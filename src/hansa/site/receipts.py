"""A server's receipts for a site, fetched and checked."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

import msgspec

from hansa.errors import IdentityError, ServerError
from hansa.identity import Membership, check_receipt, from_text
from hansa.protocol.connection import Connection
from hansa.protocol.enrolment import connection_of
from hansa.protocol.messages import Receipt, TaskKey
from hansa.site.ledger import Difference


class ReceiptPage(msgspec.Struct, frozen=True):
    """Receipts from a position on."""

    receipts: list[Receipt]
    next: int  # ask from here


def fetch_receipts(membership: Membership) -> list[Receipt]:
    """Return all receipts that the server keeps for this site, oldest first.

    Raises:
      ServerError: the server cannot be reached.
      RequestRefused: the server refused.
    """
    with closing(connection_of(membership)) as connection:
        return _all(connection)


def receipts_of(connection: Connection, membership: Membership) -> list[Receipt]:
    """Return the receipts that the federation has signed for this site, oldest first.

    Raises:
      ServerError: the server cannot be reached.
      RequestRefused: the server refused.
    """
    found = _all(connection)
    bad = {(d.run, d.round, d.digest) for d in forged(found, membership)}
    return [r for r in found if (r.run, r.round, r.digest) not in bad]


def check_own(receipt: Receipt, key: TaskKey, membership: Membership) -> None:
    """Refuse a receipt that the federation's key has not signed, or not for this task.

    Raises:
      IdentityError: identity-signature, the signature is another's.
      ServerError: server-refused, it is for something else.
    """
    check_receipt(
        from_text(membership.receipt_key),
        receipt.signature,
        receipt.run,
        receipt.round,
        receipt.phase,
        receipt.client,
        receipt.digest,
        receipt.size,
        receipt.at,
    )
    mine = (key.run, key.round, key.phase, membership.name)
    if (receipt.run, receipt.round, receipt.phase, receipt.client) != mine:
        raise ServerError(
            "server-refused",
            f"The server's receipt is for {receipt.client} in round {receipt.round} of "
            f"{receipt.run}, not for what was sent.",
            "Tell the server's operator.",
        )


def _all(connection: Connection) -> list[Receipt]:
    found: list[Receipt] = []
    after = 0
    while True:
        page = connection.call("GET", f"/v1/receipts?after={after}", kind=ReceiptPage)
        found += page.receipts
        if not page.receipts or page.next <= after:
            return found
        after = page.next


def forged(receipts: Iterable[Receipt], membership: Membership) -> list[Difference]:
    """Return the receipts that this federation's server has not signed for this site."""
    public = from_text(membership.receipt_key)
    found = []
    for r in receipts:
        try:
            check_receipt(
                public, r.signature, r.run, r.round, r.phase, r.client, r.digest, r.size, r.at
            )
            told = None if r.client == membership.name else f"A receipt is for {r.client}."
        except IdentityError:
            told = "A receipt is not signed by the server."
        if told is not None:
            found.append(Difference(told, r.run, r.round, r.digest))
    return found
