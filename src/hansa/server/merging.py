"""An exchange that also takes partial sums: what combiners have folded for clients of their own.

A combiner speaks for the clients behind it.  The round knows each of these by name, as if it had
come by itself: the minimum counts clients, and so does what a run tells.  Only the sum is one: all
clients in it count, or none.

A partial sum is recorded as `merged`, and each client in it as a `result` that came `via` the
combiner.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from hansa.clock import monotonic
from hansa.errors import HansaError, UpdateRefused
from hansa.failpoints import hit
from hansa.metrics import Metrics
from hansa.protocol.messages import BlobRef, Partial, Receipt
from hansa.rounds.round import ClientStatus, Count, Failed, Refused, Reject, Repeat, Together
from hansa.server.exchange import Exchange
from hansa.server.journal import Event
from hansa.server.receipts import signed, unsigned
from hansa.server.results import means, rejected, result_digest
from hansa.server.sums import RoundSum


class MergingExchange(Exchange):
    """An exchange for clients that come by themselves, and for those behind combiners.

    Args:
      all as `Exchange`.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._until = monotonic() + self.ask.deadline_s

    @property
    def _total(self) -> RoundSum | None:
        """Return the sum of a training; answers to a named task are never one."""
        return self._sum if isinstance(self._sum, RoundSum) else None

    @property
    def seconds_left(self) -> float:
        """Return how long the exchange waits at most from now on."""
        return max(0.0, self._until - monotonic())

    def counted(self) -> dict[int, set[str]]:
        """Return whose updates count, by the round that they are of."""
        found = {self.ask.number: set(self.state.digests)}
        for label in [*self._late]:
            client, _, number = label.rpartition("@")
            found.setdefault(int(number), set()).add(client)
        return found

    def needed_of(self, clients: Collection[str]) -> int:
        """Return how many of some clients must answer, if all others do that still can."""
        with self._lock:
            state = self.state
        possible = (ClientStatus.WAITING, ClientStatus.LOST, ClientStatus.ANSWERED)
        others = sum(s in possible for c, s in state.clients.items() if c not in clients)
        return max(0, min(len(clients), state.terms.minimum - others))

    def merged(self, combiner: str, partial: Partial, *, behind: Collection[str]) -> Receipt:
        """Take what a combiner has folded; the receipt says that all of it is counted for good.

        Args:
          combiner: who has folded.
          partial: the sum, who is in it, and who is not and why.
          behind: clients that this combiner speaks for; of others it may say nothing.

        Raises:
          UpdateRefused: the sum must not be merged.
          RequestRefused: too late, somebody in it has answered otherwise, or was not asked.
        """
        strangers = sorted(partial.metrics.keys() - set(behind))
        if strangers:
            raise rejected("update-not-asked", self.ask, f"{strangers[0]} through {combiner}")
        receipt = unsigned(self.ask, combiner)
        if partial.metrics:
            with self._folding:
                receipt = self._take_sum(combiner, partial)
        for client, unable in sorted(partial.problems.items()):
            if client not in behind:  # it comes by itself by now, or through another
                continue
            kind = Refused if unable.refused else Failed
            self._without(kind(client, unable.code), unable.reason)
        for client in sorted(set(behind) - partial.metrics.keys() - partial.problems.keys()):
            if self.waits_for(client):
                left_out = Failed(client, "client-silent")
                self._without(left_out, f"{combiner} closed the round without it")
        return receipt

    def _without(self, event: Failed | Refused, reason: str) -> None:
        """Go on without a client, also one whose sum had counted and is lost."""
        with self._changed:
            lost = event.client in self._missing
            if lost:
                self._give_up_missing(event.client)
                self._changed.notify_all()
        if not lost:
            self._decide(event, reason=reason)

    def _take_sum(self, combiner: str, partial: Partial) -> Receipt:
        """Check, decide, record, merge."""
        clients = tuple(sorted(partial.metrics))
        digest, size = result_digest(partial)
        other = None
        if any(self.waits_for(client) for client in clients):
            try:
                other = self._read(combiner, partial, clients)
            except UpdateRefused as refusal:
                for client in clients:
                    reason = refusal.sentences
                    self._decide(Refused(client, refusal.code), reason=reason)
                raise
        with self._lock:
            again = self._in_place_of_lost(clients, digest)
            if again:
                self._open_answers += 1
                self._given[combiner] = Future()
        if again:
            return self._merge(combiner, partial, other, digest=digest, size=size)
        effects = self._decided(Together(combiner, clients, digest))
        for effect in effects:
            match effect:
                case Count():
                    return self._merge(combiner, partial, other, digest=digest, size=size)
                case Repeat():
                    given = self._given.get(combiner)  # None: it counted before a restart
                    return given.result() if given else self._receipt(combiner, digest, size)
                case Reject(code=code):
                    if self._total is not None:
                        self._total.give_up(combiner)
                    raise rejected(code, self.ask, combiner)
        raise AssertionError("a partial sum is counted, repeated or rejected")

    def _read(self, combiner: str, partial: Partial, clients: Sequence[str]) -> Any:
        """Return the partial sum, where the round takes one."""
        if self._total is None:
            return None
        if partial.update is None:
            raise UpdateRefused(
                "update-partial",
                f"{combiner} reports {len(clients)} clients and sends no partial sum. None of "
                "them was counted.",
                "Run the same release of Hansa at the combiner and at the server above it.",
            )
        return self._total.partial(combiner, partial.update, clients)

    def _merge(
        self, combiner: str, partial: Partial, other: Any, *, digest: str, size: int
    ) -> Receipt:
        if other is not None:  # what it weighs is in it, whatever the report says
            weight = float(other.members.weight)
            partial = msgspec.structs.replace(partial, weight=weight)
        record = functools.partial(self._recorded_sum, combiner, partial, digest=digest, size=size)
        try:
            recorded = record() if self._has_begun() else None
            if self._total is not None:
                self._total.merge(other)  # while the disk is waited for
            self._is_folded(_results(partial.metrics, size))
            receipt = (recorded or record()).result()
            hit("after_update_recorded")
        except BaseException as error:
            self._break(error)
            self._given[combiner].set_exception(error)
            raise
        self._given[combiner].set_result(receipt)
        hit("after_update_folded")
        self._is_durable(sorted(partial.metrics))
        return receipt

    def _recorded_sum(
        self, combiner: str, partial: Partial, *, digest: str, size: int
    ) -> Future[Receipt]:
        where = {"round": self.ask.number, "phase": self.ask.phase, "digest": digest}
        clients = sorted(partial.metrics)
        facts: list[Event] = [
            {
                "kind": "result",
                "client": client,
                "state": "accepted",
                "via": combiner,
                "size": 0,
                "weight": 0.0,
                "metrics": partial.metrics[client],
                **where,
            }
            for client in clients
        ]
        weight = partial.weight
        merged = {"kind": "merged", "combiner": combiner, "clients": clients, **where}
        hit("before_update_recorded")
        self._wait_begun()
        receipt = signed(self._desk.key, self.ask, combiner, digest=digest, size=size)
        facts.append({**merged, "size": size, "weight": weight})
        return self._desk.journal.count(receipt, *facts, weight=weight)

    def _happened(self, past: Sequence[Event], at: int, *, replaced: bool) -> None:
        """Decide as before about one event; partial sums are merged again."""
        super()._happened(past, at, replaced=replaced)
        event = past[at]
        if event["kind"] != "merged":
            return
        clients = tuple(event["clients"])
        if not self._counted(clients, Together(event["combiner"], clients, event["digest"])):
            return
        if self._total is not None and (replaced or not self._merged_again(self._total, event)):
            self._missing.update(clients)
            return
        metrics = {e["client"]: e["metrics"] for e in past[:at] if "via" in e}
        self._results |= _results({client: metrics[client] for client in clients}, event["size"])
        self._durable += clients

    def _merged_again(self, total: RoundSum, event: Event) -> bool:
        """Merge a partial sum that counted before a crash; False if it is lost or damaged."""
        ref = BlobRef(digest=event["digest"], size=event["size"])
        try:
            total.merge(total.partial(event["combiner"], ref, event["clients"], again=True))
        except HansaError:
            return False
        return True


def _results(metrics: Mapping[str, Any], size: int) -> dict[str, tuple[Metrics, int]]:
    """Return the results of those in a partial sum, which has travelled once."""
    first = min(metrics, default="")
    return {c: (means(m), size if c == first else 0) for c, m in sorted(metrics.items())}
