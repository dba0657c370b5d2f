"""Receipts: what a server says, for good, of a result that counts."""

from __future__ import annotations

from hansa.clock import now
from hansa.identity import MemberKey, sign_receipt
from hansa.protocol.messages import Receipt
from hansa.server.sums import Ask


def unsigned(ask: Ask, label: str) -> Receipt:
    """Return the answer to a failure, which counts for nothing and proves nothing.

    Args:
      ask: of the exchange.
      label: whose answer, or client@round for one of an earlier round.
    """
    client, _, earlier = label.partition("@")  # no name holds one
    number = int(earlier) if earlier else ask.number
    return Receipt(
        run=ask.run, round=number, phase=ask.phase, client=client, digest="", size=0, at=now()
    )


def signed(key: MemberKey, ask: Ask, label: str, *, digest: str, size: int) -> Receipt:
    """Return the receipt of a result.

    Args:
      key: the server's.
      ask: of the exchange.
      label: as `unsigned`.
      digest: of what counts.
      size: bytes of the update.
    """
    mine = unsigned(ask, label)
    signature = sign_receipt(
        key, mine.run, mine.round, mine.phase, mine.client, digest, size, mine.at
    )
    return Receipt(
        run=mine.run,
        round=mine.round,
        phase=mine.phase,
        client=mine.client,
        digest=digest,
        size=size,
        at=mine.at,
        signature=signature,
    )
