"""What leaves a combiner: kept, written down, sent, receipted, as a site does with its updates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from hansa.errors import RequestRefused
from hansa.identity import Membership
from hansa.params import Params, encode
from hansa.protocol.connection import Connection
from hansa.protocol.messages import BlobRef, Partial, Receipt, TaskKey
from hansa.protocol.transfer import upload
from hansa.server.results import result_digest
from hansa.site.ledger import Ledger
from hansa.site.outbox import Outbox
from hansa.site.receipts import check_own
from hansa.store.addresses import digest_of
from hansa.store.files import write_durably

T = TypeVar("T")

Patient = Callable[[Callable[[], T]], T]
"""Does something with the server above until it works, or the combiner ends."""


class Outgoing:
    """Partial sums on their way to the server above.

    A sum is kept until its round is committed there (law L5), so what a crash has interrupted is
    sent again as it was.

    Args:
      membership: of the federation above.
      connection: to its server.
      ledger: of this combiner.
      outbox: keeps what has not been committed.
    """

    def __init__(
        self, membership: Membership, connection: Connection, *, ledger: Ledger, outbox: Outbox
    ) -> None:
        self._membership, self._connection = membership, connection
        self._ledger, self.outbox = ledger, outbox

    def kept(self, key: TaskKey) -> Partial | None:
        """Return what came of a task before, if it is whole."""
        place = self.outbox.place(key)
        try:
            partial = msgspec.json.decode(place.facts.read_bytes(), type=Partial)
            ref = partial.update
            whole = ref is None or place.update.stat().st_size == ref.size
        except (OSError, msgspec.MsgspecError):
            return None
        return partial if whole else None

    def keep(self, key: TaskKey, partial: Partial, total: Params | None) -> Partial:
        """Keep what came of a task, its sum first; return it with the sum's address."""
        place = self.outbox.place(key)
        if total is not None:
            parts = encode(total)
            write_durably(place.update, parts)
            ref = BlobRef(digest=digest_of(*parts), size=sum(len(part) for part in parts))
            partial = msgspec.structs.replace(partial, update=ref)
        write_durably(place.facts, [msgspec.json.encode(partial)])
        return partial

    def send(self, key: TaskKey, partial: Partial, *, message: str, patient: Patient[int | Receipt]
             ) -> None:  # fmt: skip
        """Write down what is about to leave, send it, and keep the receipt.

        Args:
          key: of the task.
          partial: what came of it.
          message: digest of what the server above had sent.
          patient: tries until the server is reached.

        Raises:
          RequestRefused: the server above does not want it.
          OSError: it could not be written down, so nothing has left.
        """
        digest, size = result_digest(partial)
        body = msgspec.json.encode(partial)
        names = ", ".join(sorted(partial.metrics))
        count = len(partial.metrics)
        if not partial.metrics:
            kind, told = "failure", "nobody"
        elif partial.update is None:
            kind, told = "metrics", f"totals of {count} clients: {names}"
        else:
            kind, told = "update", f"sum of {count} clients, weight {partial.weight:g}: {names}"
        if partial.problems:
            told += f"; without {', '.join(sorted(partial.problems))}"
        seq = self._ledger.sent(
            kind,  # type: ignore[arg-type]  # one of three
            size=size + len(body),
            run=key.run,
            round=key.round,
            digest=digest if partial.metrics else "",
            message=message,
            detail=told,
        )
        receipt = patient(lambda: self._sent(key, partial))
        assert isinstance(receipt, Receipt)
        if partial.metrics:
            check_own(receipt, key, self._membership)
            self._ledger.confirmed(seq, receipt)

    def _sent(self, key: TaskKey, partial: Partial) -> Receipt:
        if partial.update is not None:
            self._upload(key, partial.update)
        path = f"/v1/runs/{key.run}/rounds/{key.round}/{key.phase}/partial"
        return self._connection.call("POST", path, partial, kind=Receipt)

    def _upload(self, key: TaskKey, ref: BlobRef) -> None:
        source: Path = self.outbox.place(key).update
        try:
            upload(self._connection, source, to="updates", ref=ref, task=key)
        except RequestRefused as refusal:
            if refusal.said != "upload-unwanted":
                raise
            # It may count already, and only its receipt was lost: the answer to the report says so.
