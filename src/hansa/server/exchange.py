"""One exchange with a cohort: results come in from many threads, one thread waits for the end.

What counts is decided by the pure `hansa.rounds.round.step`; this shell checks updates, makes
decisions durable before they are acknowledged, and folds each update while others are awaited.

    HTTP threads   answer() -> admit -> step -> journal -> fold -> durable -> receipt
    presence       lost(), returned()
    run thread     wait() -> closed -> finish() -> settle() -> commit

After a crash the exchange is opened again from the journal: updates that had been counted are
folded again from their files, and those whose files are gone are asked for again (law L5).
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import msgspec

from hansa.aggregators import Aggregate, Contribution
from hansa.clock import monotonic
from hansa.errors import AggregationError, RunError, ServerError, UpdateRefused
from hansa.failpoints import hit
from hansa.identity import MemberKey
from hansa.limits import FOLDS_AT_ONCE
from hansa.metrics import Metrics
from hansa.protocol.messages import Receipt, TaskResult
from hansa.rounds.questions import Answer
from hansa.rounds.round import (
    Answered,
    ClientStatus,
    Close,
    Count,
    Deadline,
    Effect,
    Failed,
    Lost,
    Refused,
    Reject,
    Repeat,
    Returned,
    RoundEvent,
    RoundState,
    Status,
    Stop,
    Terms,
    Together,
    open_round,
    step,
)
from hansa.server.answers import Answers
from hansa.server.dropouts import Dropouts
from hansa.server.journal import Event, Journal
from hansa.server.receipts import signed, unsigned
from hansa.server.results import means, not_ready, rejected, result_digest
from hansa.server.round_files import Updates
from hansa.server.sums import Ask, RoundSum
from hansa.store.client_states import ClientStates
from hansa.workflows import Problem

_UNSETTLED = (ClientStatus.WAITING, ClientStatus.LOST)


class Desk(NamedTuple):
    """What every exchange of a server works with."""

    journal: Journal
    updates: Updates
    key: MemberKey  # signs receipts


class Interrupted(Exception):  # noqa: N818 - not an error: the server is told to end
    """The run thread shall leave; the run goes on when the server is back."""


class Exchange:
    """An exchange while it is open, and until its run has taken the result.

    Args:
      ask: what is asked of whom.
      desk: the server's journal, updates and key.
      spill: where updates of rules that are not sums are kept; None of a named task.
      past: events of this exchange from before a crash, in order.
      begun: done once the exchange's beginning is durable; nothing is recorded before.
    """

    def __init__(
        self,
        ask: Ask,
        desk: Desk,
        *,
        spill: ClientStates | None,
        past: Sequence[Event] = (),
        begun: Future[None] | None = None,
    ) -> None:
        self.ask, self._desk, self._begun = ask, desk, begun
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._folding = threading.Semaphore(FOLDS_AT_ONCE)
        self._open_answers = 0  # decided, not yet folded
        self._broken: BaseException | None = None
        self._leave = False
        self._enough_at = 0.0  # when the minimum had answered
        self._sum: RoundSum | Answers | None = None
        if ask.questions:
            self._sum = Answers(ask, desk.updates)
        elif ask.spec is not None:
            assert spill is not None  # of named tasks alone there is none
            self._sum = RoundSum(ask, desk.updates, spill)
        self._results: dict[str, tuple[Metrics, int]] = {}
        self._durable: list[str] = []  # whose results are durable, in that order
        self.dropouts = Dropouts(ask.number)
        self._missing: set[str] = set()  # counted, but the update is gone
        self._away: set[str] = set()  # not heard of
        self._given: dict[str, Future[Receipt]] = {}  # receipts, done once they are durable
        self._late: dict[str, str] = {}  # digests of updates of earlier rounds, by client@round
        self.state: RoundState = _opened(ask, past)
        self._again(past)
        if begun is not None:
            begun.add_done_callback(self._check_begun)

    # ---- what sites do, in threads of their own

    def waits_for(self, client: str) -> int:
        """Return 0 if nothing is wanted of a client, 1 if its result is, 2 if it is again."""
        with self._lock:
            if self._leave or self._broken or client in self.dropouts.withheld:
                return 0
            if client in self._missing:
                return 2
            unsettled = self.state.clients.get(client) in _UNSETTLED
            return 1 if unsettled and self.state.status is Status.OPEN else 0

    def answer(self, client: str, result: TaskResult) -> Receipt:
        """Take a site's result, whatever it is; the receipt says that it is counted for good.

        Raises:
          UpdateRefused: the update must not be aggregated.
          RequestRefused: too late, not asked, a second and different result, or a failure noted.
        """
        if result.state == "failed":
            self._fail(client, result)
            return unsigned(self.ask, client)
        with self._folding:
            return self._take(client, result)

    def late(self, client: str, number: int, result: TaskResult, *, factor: float) -> Receipt:
        """Take an update of an earlier round, with less weight, where the plan wants that.

        Raises:
          UpdateRefused: the update must not be aggregated.
          RequestRefused: this exchange is closed too, or has another already.
        """
        label = f"{client}@{number}"
        metrics, (digest, size) = means(result.metrics), result_digest(result)
        with self._folding:
            less = msgspec.structs.replace(result, weight=result.weight * factor)
            assert self._sum is not None  # only training is late
            contribution = self._sum.admitted(label, less, most=self.ask.most.get(client))
            with self._lock:
                again = self._given.get(label) if self._late.get(label) == digest else None
                if again is None:
                    if self.state.status is not Status.OPEN or self._leave or label in self._late:
                        if label not in self._late:
                            self._sum.give_up(label)
                        raise rejected("update-late", self.ask._replace(number=number), client)
                    self._late[label], self._given[label] = digest, Future()
                    self._open_answers += 1
            if again is None:
                return self._count(label, contribution, metrics, digest=digest, size=size)
        return again.result()

    def lost(self, client: str) -> None:
        """A client has not been heard of."""
        with self._changed:
            self._away.add(client)
            self._changed.notify_all()
        self._decide(Lost(client))

    def returned(self, client: str) -> None:
        """A client that was lost is there again."""
        with self._lock:
            self._away.discard(client)
            if client in self.dropouts.withheld:
                return
        self._decide(Returned(client))

    def withhold(self, client: str, reason: str) -> None:
        """A client's owner has to decide something: it gets no task, and may answer later."""
        with self._lock:
            self.dropouts.withheld[client] = reason
        self._moved(Lost(client))

    def readmit(self, client: str) -> None:
        """A client is withheld no longer."""
        with self._lock:
            gone = self.dropouts.withheld.pop(client, None) is None or client in self._away
        if not gone:
            self._moved(Returned(client))

    # ---- what the run does

    def wait(self) -> tuple[str, ...]:
        """Wait until the exchange is closed; return whose results count, late ones left out.

        Raises:
          Interrupted: the server ends, or the run is stopped.
        """
        until = monotonic() + self.ask.deadline_s
        with self._changed:
            while True:
                if self._broken is not None:
                    raise self._broken
                if self._leave:
                    raise Interrupted
                closed = self.state.status is not Status.OPEN
                until = self._shorter(until)
                if closed and not self._open_answers and not self._missing - self._away:
                    self._give_up_missing()
                    break
                left = until - monotonic()
                if left > 0 or self._open_answers:
                    self._changed.wait(left if left > 0 else None)
                elif closed:
                    self._give_up_missing()
                else:
                    self.state, _ = step(self.state, Deadline())
        return tuple(sorted(self._results.keys() - self._late.keys()))

    def _shorter(self, until: float) -> float:
        """Return when to close; sooner once the minimum has answered, where the plan says so."""
        minimum = max(1, self.ask.terms.minimum)
        if self.ask.grace_s is not None and len(self.state.digests) >= minimum:
            self._enough_at = self._enough_at or monotonic()
            return min(until, self._enough_at + self.ask.grace_s)
        return until

    def settle(self) -> None:
        """Wait until all that counts is durable; `wait` has only seen it folded.

        Raises:
          ServerError: server-disk-full or server-disk, something is not.
          Interrupted: the run has ended meanwhile.
        """
        with self._changed:
            while self._broken is None and len(self._durable) < len(self._results):
                self._changed.wait()
            if self._broken is not None:
                raise self._broken

    def finish(self) -> Aggregate | None:
        """Return the aggregate, and let go of the sum."""
        return self._sum.finish() if isinstance(self._sum, RoundSum) and self._results else None

    def answers(self) -> dict[str, Answer]:
        """Return what was answered to a named task, by client."""
        assert isinstance(self._sum, Answers)
        digests = self.state.digests
        return {name: self._sum.read(name, digests[name]) for name in sorted(self._results)}

    def leave(self) -> None:
        """Let the run thread go; nothing is decided by that."""
        with self._changed:
            self._leave = True
            self._changed.notify_all()

    def stop(self, reason: str) -> None:
        """Close without a result."""
        with self._changed:
            self.state, _ = step(self.state, Stop(reason))
            self._leave = True
            self._changed.notify_all()

    @property
    def digests(self) -> set[str]:
        """Digests of the updates that count."""
        return {*self.state.digests.values(), *self._late.values()}

    @property
    def metrics(self) -> dict[str, Metrics]:
        """What counted clients measured."""
        return {client: metrics for client, (metrics, _) in sorted(self._results.items())}

    @property
    def bytes_up(self) -> int:
        """Bytes of the updates that count."""
        return sum(size for _, size in self._results.values())

    def problems(self) -> list[Problem]:
        """Return whose part did not count, and why, by name."""
        return self.dropouts.told(self.state)

    # ---- inside

    def _give_up_missing(self, *clients: str) -> None:
        """Go on without updates that this server's disk and their sites have both lost.

        Args:
          clients: whose; by default all that are still missing.
        """
        for client in clients or tuple(self._missing):
            told = "its update was counted, then lost with the server's disk, and never came again"
            self.dropouts.note(client, "failed", code="update-missing", reason=told)
            self._missing.discard(client)

    def _take(self, client: str, result: TaskResult) -> Receipt:
        """Check, decide, record, fold."""
        metrics = means(result.metrics)
        digest, size = result_digest(result)
        contribution = None
        if self._can_count(client):
            try:
                contribution = self._looked_at(client, result)
            except UpdateRefused as refusal:
                reason = f"{refusal.happened} {refusal.hint}"
                self._decide(Refused(client, refusal.code), reason=reason)
                raise
            except RunError as error:  # what decodes it is gone, and the run with it
                self._break(error)
                raise
        with self._lock:
            again = self._in_place_of_lost((client,), digest)
            if again:
                self._open_answers += 1
                self._given[client] = Future()
        if again:
            return self._count(client, contribution, metrics, digest=digest, size=size)
        effects = self._decided(Answered(client, digest))
        for effect in effects:
            match effect:
                case Count():
                    return self._count(client, contribution, metrics, digest=digest, size=size)
                case Repeat():
                    given = self._given.get(client)  # None: it counted before a restart
                    return given.result() if given else self._receipt(client, digest, size)
                case Reject(code=code):
                    uncounted = self.state.clients.keys() - self.state.digests.keys()
                    if self._sum is not None and client in uncounted:
                        self._sum.give_up(client)
                    raise rejected(code, self.ask, client)
        raise AssertionError("a result is counted, repeated or rejected")

    def _can_count(self, client: str) -> bool:
        """Return whether a result of this client, now, may change anything; once no, always no."""
        with self._lock:
            unsettled = self.state.clients.get(client) in _UNSETTLED
            return client in self._missing or (unsettled and self.state.status is Status.OPEN)

    def _looked_at(self, client: str, result: TaskResult) -> Contribution | None:
        """Check a result; return its update where the round takes some."""
        if self._sum is not None:
            return self._sum.admitted(client, result, most=self.ask.most.get(client))
        if result.update is None:
            return None
        raise UpdateRefused(
            "update-names",
            f"The result of {client} brings an update of {result.update.size} bytes, and round "
            f"{self.ask.number} ({self.ask.phase}) takes none. The result was not counted.",
            "Send metrics alone.",
        )

    def _count(
        self,
        client: str,
        contribution: Contribution | None,
        metrics: Metrics,
        *,
        digest: str,
        size: int,
    ) -> Receipt:
        began = monotonic()
        record = partial(self._recorded, client, contribution, metrics, digest=digest, size=size)
        try:
            recorded = record() if self._has_begun() else None
            if self._sum is not None and contribution is not None:
                self._sum.fold(contribution)  # while the disk is waited for
            self._is_folded({client: (metrics, size)})
            receipt = (recorded or record()).result()
            hit("after_update_recorded")
        except BaseException as error:
            self._break(error)
            if client in self._given:
                self._given[client].set_exception(error)
            raise
        if client in self._given:
            self._given[client].set_result(receipt)
        hit("after_update_folded")
        if self.ask.spans is not None:
            self.ask.spans.lasted(self.ask.phase, client, "insert_s", began)
        self._is_durable([client])
        return receipt

    def _is_folded(self, results: Mapping[str, tuple[Metrics, int]]) -> None:
        """Let the run go on with results; it commits nothing before they are durable."""
        with self._changed:
            self._results.update(results)
            self._open_answers -= 1
            self._changed.notify_all()

    def _is_durable(self, clients: Sequence[str]) -> None:
        with self._changed:
            self._durable += clients
            self._changed.notify_all()

    def _recorded(
        self,
        client: str,
        contribution: Contribution | None,
        metrics: Metrics,
        *,
        digest: str,
        size: int,
    ) -> Future[Receipt]:
        weight = 0.0 if contribution is None else contribution.weight
        fact = {
            "kind": "result",
            "round": self.ask.number,
            "phase": self.ask.phase,
            "client": client,
            "state": "accepted",
            "digest": digest,
            "size": size,
            "weight": weight,
            "metrics": {name: [m.total, m.weight] for name, m in metrics.items()},  # NaN is null
        }
        receipt = signed(self._desk.key, self.ask, client, digest=digest, size=size)
        hit("before_update_recorded")
        self._wait_begun()
        return self._desk.journal.count(receipt, fact, weight=weight)

    def _receipt(self, client: str, digest: str, size: int) -> Receipt:
        mine = unsigned(self.ask, client)
        known = self._desk.journal.receipt(
            mine.run, mine.round, phase=mine.phase, client=mine.client
        )
        if known is not None and known.digest == digest:
            return known
        return signed(self._desk.key, self.ask, client, digest=digest, size=size)

    def _decided(self, event: RoundEvent) -> tuple[Effect, ...]:
        """Take one step; a result that counts holds the exchange open until it is folded."""
        with self._changed:
            if self._broken is not None:  # it is opened again, without what would count here
                raise not_ready(self.ask.run, self.ask.number, self.ask.phase)
            self.state, effects = step(self.state, event)
            for effect in effects:
                if isinstance(effect, Count):
                    self._open_answers += 1
                    self._given[effect.client] = Future()
            if any(isinstance(e, Close) for e in effects):
                self._changed.notify_all()
        return effects

    def _fail(self, client: str, result: TaskResult) -> None:
        """Note that a client cannot do its task, or not do it once more."""
        with self._changed:
            again = client in self._missing
            if again:
                self._give_up_missing(client)
                self._changed.notify_all()
        if not again:
            self._decide(Failed(client, result.code or "client-failed"), reason=result.reason)

    def _decide(self, event: Failed | Refused | Lost | Returned, reason: str = "") -> None:
        """Take a step about a client that has no update to fold, and note it.

        The exchange does not end before the note is durable: after a crash it must end alike.
        """
        with self._changed:
            before = self.state.clients.get(event.client)
            self.state, effects = step(self.state, event)
            changed = self.state.clients.get(event.client) is not before
            self._open_answers += 1
        try:
            for effect in effects:
                if isinstance(effect, Reject):
                    raise rejected(effect.code, self.ask, event.client)
            if changed:
                self._note(event, reason)
        finally:
            with self._changed:
                self._open_answers -= 1
                self._changed.notify_all()

    def _moved(self, event: Lost | Returned) -> None:
        """Take a step that a client's standing tells already."""
        with self._changed:
            self.state, _ = step(self.state, event)
            self._changed.notify_all()

    def _note(self, event: Failed | Refused | Lost | Returned, reason: str) -> None:
        what = type(event).__name__.lower()
        code = getattr(event, "code", "")
        if isinstance(event, Failed | Refused):
            self.dropouts.note(event.client, what, code=code, reason=reason)
        self._wait_begun()
        self._desk.journal.record(
            self.ask.run,
            {
                "kind": "result",
                "round": self.ask.number,
                "phase": self.ask.phase,
                "client": event.client,
                "state": what,
                "code": code,
                "reason": reason,
            },
        )

    def _in_place_of_lost(self, clients: Collection[str], digest: str) -> bool:
        """Let a result take the place of those that were lost, perhaps with other bytes."""
        if not self._missing.issuperset(clients):
            return False
        self._missing.difference_update(clients)
        digests = {**self.state.digests, **dict.fromkeys(clients, digest)}
        self.state = self.state._replace(digests=digests)
        return True

    def _again(self, past: Sequence[Event]) -> None:
        """Go through what happened before a crash, in the same order."""
        last = {e["client"]: at for at, e in enumerate(past) if e.get("state") == "accepted"}
        for at, event in enumerate(past):
            clients = event.get("clients") or (event.get("client"),)
            self._happened(past, at, replaced=any(last.get(c, at) > at for c in clients))

    def _happened(self, past: Sequence[Event], at: int, *, replaced: bool) -> None:
        """Decide as before about event `at`; when `replaced`, it was lost and another counts."""
        event = past[at]
        if event["kind"] != "result" or "via" in event:
            return
        client, what = event["client"], event["state"]
        if what == "accepted" and "@" in client:
            self._late[client] = event["digest"]
            self._refold(event)
            if client in self._missing:  # its round is committed, so nobody has it any more
                self._give_up_missing(client)
        elif what == "accepted":
            counted = self._counted((client,), Answered(client, event["digest"]))
            if counted and replaced:
                self._missing.add(client)
            elif counted:
                self._refold(event)
        elif what in ("failed", "refused"):
            kind = Failed if what == "failed" else Refused
            self.state, _ = step(self.state, kind(client, event["code"]))
            self.dropouts.note(client, what, code=event["code"], reason=event["reason"])

    def _counted(self, clients: Collection[str], event: Answered | Together) -> bool:
        """Take a step of before a crash; tell whether it made a result count."""
        if self._in_place_of_lost(clients, event.digest):
            return True
        self.state, effects = step(self.state, event)
        return any(isinstance(effect, Count) for effect in effects)

    def _refold(self, event: Event) -> None:
        client = event["client"]
        if self._sum is not None:
            contribution = self._sum.again(client, event["digest"], weight=event["weight"])
            if contribution is None:
                self._missing.add(client)
                return
            self._sum.fold(contribution)
        self._results[client] = (means(event["metrics"]), event["size"])
        self._durable.append(client)

    def _check_begun(self, begun: Future[None]) -> None:
        if (error := begun.exception()) is not None:
            self._break(error)

    def _has_begun(self) -> bool:
        """Tell whether the exchange's beginning is durable, so that nothing needs to wait."""
        return self._begun is None or self._begun.done()

    def _wait_begun(self) -> None:
        """Wait until the exchange's beginning is durable; what belongs to it is recorded then.

        Raises:
          ServerError: server-disk-full or server-disk, it could not be recorded.
        """
        if self._begun is not None:
            self._begun.result()

    def _break(self, error: BaseException) -> None:
        """Let the run thread see that what was decided could not be done."""
        with self._changed:
            known = isinstance(error, AggregationError | OSError | RunError | ServerError)
            self._broken = error if known else Interrupted()
            self._changed.notify_all()


def _opened(ask: Ask, past: Sequence[Event]) -> RoundState:
    """Open the round; once it has been closed, only those that counted are left."""
    closed = next((e for e in past if e["kind"] == "closed"), None)
    if closed is None:
        return open_round(ask.cohort, ask.terms)
    return open_round(closed["accepted"], Terms(minimum=0, goal=None))
