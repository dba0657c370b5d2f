"""Receipts: the server's signed word that a result counts, which a site keeps in its ledger."""

from __future__ import annotations

import msgspec

from hansa.identity.keys import MemberKey, from_text, to_text, verify

Field = str | int


def receipt_text(*fields: Field) -> bytes:
    """Return what a receipt's signature is over.

    Args:
      fields: run, round, phase, client, digest, size and at, in this order.
    """
    assert len(fields) == 7, "run, round, phase, client, digest, size, at"
    return b"hansa-receipt-1\n" + msgspec.json.encode(fields)


def sign_receipt(key: MemberKey, *fields: Field) -> str:
    """Return the signature over a receipt's fields as text."""
    return to_text(key.sign(receipt_text(*fields)))


def check_receipt(public: bytes, signature: str, *fields: Field) -> None:
    """Return if the server with this receipt key has signed these fields.

    Raises:
      IdentityError: identity-signature, in every other case.
    """
    verify(public, from_text(signature), receipt_text(*fields))
