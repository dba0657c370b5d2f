"""The ledger: everything that left a site, before it left, in a file that shows any change.

One JSON object a line, appended and synchronised.  Each line ends with a digest of itself and the
line before, so that a line that was changed, removed or put in between breaks the chain there.
Lines cut off at the end leave no trace in the file; the server's receipts tell those.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import msgspec
from blake3 import blake3

from hansa.clock import monotonic, now
from hansa.errors import SiteError
from hansa.limits import LEDGER_CONTROL_S, LEDGER_LINE_BYTES_MAX
from hansa.protocol.messages import Receipt
from hansa.store.files import append_durably

LEDGER_FILE = "ledger.jsonl"

Kind = Literal["update", "metrics", "answer", "failure", "standing", "control"]
"""What left: an update, totals of metrics, an answer to a named task, a failure's code and reason,
a word on a run, and `control`: polls and other small messages, many in one line."""

TensorFacts = tuple[str, str, list[int]]
"""Name, dtype and shape."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the ledger, without its link of the chain."""

    seq: int
    at: str
    kind: Literal["update", "metrics", "answer", "failure", "standing", "control", "receipt"]
    run: str = ""
    round: int = 0
    digest: str = ""
    size: int = 0  # bytes that left
    message: str = ""  # digest of what the server had sent, of `update` and `metrics`
    tensors: list[TensorFacts] = []
    task: str = ""  # of `answer`: which exchange of its round
    detail: str = ""
    of: int = 0  # of `receipt`: which entry it confirms
    receipt: Receipt | None = None


class Place(NamedTuple):
    """Where an entry ends, from which the ledger can be read on."""

    seq: int = 0  # of the entry
    size: int = 0  # bytes of the file up to here
    chain: str = ""


BEGINNING = Place()
"""Of a ledger: what is behind it are all entries."""


class Difference(NamedTuple):
    """One disagreement of a ledger and its server's receipts."""

    what: str
    run: str
    round: int
    digest: str


_LINK = b',"chain":"'
_LINK_BYTES = len(_LINK) + 64 + len(b'"}\n')


class Ledger:
    """Appends to a ledger; one process writes at a time, and any may read.

    Args:
      path: of the file; made when the first entry is written.

    Raises:
      SiteError: site-damaged, a line other than a torn last one is not as it was written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        end = BEGINNING
        for _, place in read_ledger(path):
            end = place
        self._seq, self._whole, self._chain = end
        self._control_bytes = self._control_messages = 0
        self._control_at = monotonic()

    def sent(
        self,
        kind: Kind,
        *,
        size: int,
        run: str = "",
        round: int = 0,
        digest: str = "",
        message: str = "",
        tensors: Iterable[Sequence[Any]] = (),
        task: str = "",
        detail: str = "",
    ) -> int:
        """Write down what is about to leave; when this returns, the entry survives a crash.

        Args:
          kind: what it is.
          size: bytes that leave.
          run: of which run.
          round: of which round of it.
          digest: of the content, as the server's receipt will name it.
          message: digest of the server's message that it was made from.
          tensors: names, dtypes and shapes.
          task: which exchange of its round an answer is for.
          detail: for people: what else it says, such as the names of metrics.

        Returns:
          The entry's number, for `confirmed`.

        Raises:
          OSError: it could not be written; nothing may leave then.
          SiteError: site-limit, it says more than a line may; nothing may leave then.
        """
        facts = [(str(n), str(d), [int(i) for i in s]) for n, d, s in tensors]
        with self._lock:
            return self._append(
                kind=kind, run=run, round=round, digest=digest, size=size,
                message=message, tensors=facts, task=task, detail=detail,
            )  # fmt: skip

    def confirmed(self, seq: int, receipt: Receipt) -> None:
        """Keep the server's receipt for an entry."""
        with self._lock:
            self._append(
                kind="receipt", run=receipt.run, round=receipt.round, digest=receipt.digest,
                of=seq, receipt=receipt,
            )  # fmt: skip

    def control(self, size: int, messages: int = 1) -> None:
        """Count small messages; a minute of them is one entry."""
        with self._lock:
            self._control_bytes += size
            self._control_messages += messages
            if monotonic() - self._control_at >= LEDGER_CONTROL_S:
                self._flush()

    def close(self) -> None:
        """Write down the small messages counted so far."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        size, messages = self._control_bytes, self._control_messages
        if messages:
            words = "message" if messages == 1 else "messages"
            self._append(kind="control", size=size, detail=f"{messages} {words}")
        # Counted on where the disk was full: they have left.
        self._control_bytes = self._control_messages = 0
        self._control_at = monotonic()

    def entries(self) -> Iterator[Entry]:
        """Yield all entries, oldest first.

        Raises:
          SiteError: site-damaged, with the line.
        """
        return (entry for entry, _ in read_ledger(self._path))

    def after(self, place: Place) -> Iterator[tuple[Entry, Place]]:
        """Yield the entries behind a place, each with the place where it ends.

        Raises:
          SiteError: site-damaged, with the line.
        """
        with self._lock:
            whole = self._whole  # what is behind is being written, and may not stay
        return read_ledger(self._path, after=place, whole=whole)

    def check(self) -> int:
        """Return the number of entries after going through the whole chain.

        Raises:
          SiteError: site-damaged, with the line.
        """
        return sum(1 for _ in self.entries())

    def _append(self, **facts: Any) -> int:
        entry = Entry(seq=self._seq + 1, at=now(), **facts)
        body = msgspec.json.encode(entry)
        chain = _link(self._chain, body)
        line = body[:-1] + _LINK + chain.encode() + b'"}\n'
        if len(line) > LEDGER_LINE_BYTES_MAX:
            raise SiteError(
                "site-limit",
                f"What should leave takes {len(line)} bytes to name in the ledger, whose lines "
                f"have up to {LEDGER_LINE_BYTES_MAX}. It stays here.",
                "Give the model fewer tensors, with shorter names.",
            )
        with open(self._path, "a+b") as file:
            self._cut_off_torn(file)
            append_durably(file, line, self._whole)  # else it may not leave
        self._seq, self._chain = entry.seq, chain
        self._whole += len(line)
        return entry.seq

    def _cut_off_torn(self, file: BinaryIO) -> None:
        """Remove what a crash has left of a line, and nothing else."""
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.seek(min(self._whole, size))
        if size < self._whole or b"\n" in file.read():
            raise _damaged(self._path, self._seq + 1)  # somebody else has written meanwhile
        file.truncate(self._whole)


def _link(before: str, body: bytes) -> str:
    return blake3(before.encode() + body).hexdigest()


def read_ledger(
    path: Path, *, after: Place = BEGINNING, whole: int | None = None
) -> Iterator[tuple[Entry, Place]]:
    """Yield entries, each with the place where it ends; stop before a torn last one.

    Args:
      path: of the file; if it is not there, it has no entries.
      after: where to begin.
      whole: bytes of the file to read at most; None: all.

    Raises:
      SiteError: site-damaged, with the line.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(after.size)
        for line in _lines(file):
            if whole is not None and after.size + len(line) > whole:
                return
            body = line[:-_LINK_BYTES] + b"}"
            expected = _LINK + _link(after.chain, body).encode() + b'"}\n'
            entry = None
            if line.endswith(expected) and len(line) > len(expected):
                with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    entry = msgspec.json.decode(body, type=Entry)
            if entry is None or entry.seq != after.seq + 1:
                if line.endswith(b"\n"):
                    raise _damaged(path, after.seq + 1)
                return  # torn by a crash, so it never left
            after = Place(entry.seq, after.size + len(line), _link(after.chain, body))
            yield entry, after


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LEDGER_LINE_BYTES_MAX):
        yield line


def _damaged(path: Path, number: int) -> SiteError:
    return SiteError(
        "site-damaged",
        f"{path}, line {number}, is not as it was written: it was changed, or a line before it "
        "was removed or put in. Nothing was sent or written.",
        "Restore the file from a backup; or move it away to begin a new one, and keep it.",
    )


Answered = dict[tuple[int, str], str]
"""Digest of the message that a result was made from, by round and phase."""


def answered(entries: Iterable[Entry], run: str) -> Answered:
    """Return which messages of a run were answered, so that no task is done for two of them."""
    phases = {"update": "train", "metrics": "evaluate"}
    return {
        (entry.round, entry.task or phases[entry.kind]): entry.message
        for entry in entries
        if entry.run == run and entry.message and (entry.task or entry.kind in phases)
    }


def compare(entries: Iterable[Entry], receipts: Iterable[Receipt]) -> list[Difference]:
    """Return where a ledger and its server's receipts disagree.

    What was sent and has no receipt at either place is no disagreement: it was lost on the way,
    came too late, or was refused, and was not counted.  Nor is an entry larger than its receipt:
    the ledger counts what went around the content too.

    Args:
      entries: of the ledger.
      receipts: all that the server has for this site.
    """
    sent: dict[tuple[str, int, str], Entry] = {}
    kept: dict[tuple[str, int, str], Receipt] = {}
    for entry in entries:
        key = (entry.run, entry.round, entry.digest)
        if entry.receipt is not None:
            kept[key] = entry.receipt
        elif entry.digest:
            sent[key] = entry
    there = {(r.run, r.round, r.digest): r for r in receipts}
    found = [
        Difference("The server has it; this ledger does not know that it left.", *key)
        for key in there.keys() - sent.keys()
    ]
    found += [
        Difference("This ledger has a receipt; the server does not know it.", *key)
        for key in kept.keys() - there.keys()
    ]
    found += [
        Difference(
            f"The server counts {there[key].size:,} bytes; this ledger {sent[key].size:,}.", *key
        )
        for key in there.keys() & sent.keys()
        if there[key].size > sent[key].size
    ]
    return sorted(found, key=lambda d: (d.run, d.round, d.digest, d.what))
