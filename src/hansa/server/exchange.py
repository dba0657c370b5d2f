"""One exchange with a cohort: results come in from many threads, one thread waits for the end.

What counts is decided by the pure `hansa.rounds.round.step`; this shell checks updates, makes
decisions durable before they are acknowledged, and folds each update while others are awaited.

    HTTP threads   answer() -> admit -> step -> journal (durable) -> fold -> receipt
    presence       lost(), returned()
    run thread     wait() -> closed -> finish()

After a crash the exchange is opened again from the journal: updates that had been counted are
folded again from their files, and those whose files are gone are asked for again (law L5).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from hansa.aggregators import Aggregate, AggregationSpec, Aggregator, Contribution, admit
from hansa.clock import monotonic, now
from hansa.errors import AggregationError, HansaError, ParamsError, RequestRefused, UpdateRefused
from hansa.failpoints import hit
from hansa.identity import MemberKey, sign_receipt
from hansa.limits import FOLDS_AT_ONCE
from hansa.metrics import Mean, Metrics
from hansa.params import Params
from hansa.protocol.messages import Phase, Receipt, TaskResult
from hansa.rounds import BUFFERS
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
    open_round,
    step,
)
from hansa.server.journal import Event, Journal
from hansa.server.results import result_digest
from hansa.store.blobs import BlobStore
from hansa.store.client_states import ClientStates
from hansa.store.files import load_params
from hansa.transforms import Transform
from hansa.workflows import Problem

_UNSETTLED = (ClientStatus.WAITING, ClientStatus.LOST)


class Ask(NamedTuple):
    """What a cohort is asked, and how its answers are combined."""

    run: str
    number: int
    phase: Phase
    cohort: tuple[str, ...]
    terms: Terms
    deadline_s: float
    spec: AggregationSpec | None  # None when answers carry no update
    aggregator: Aggregator
    transform: Transform
    most: Mapping[str, float] = {}  # weight that a client's update can have at most, where known


class Desk(NamedTuple):
    """What every exchange of a server works with."""

    journal: Journal
    updates: BlobStore
    key: MemberKey  # signs receipts


class Interrupted(Exception):  # noqa: N818 - not an error: the server is told to end
    """The run thread shall leave; the run goes on when the server is back."""


class Exchange:
    """An exchange while it is open, and until its run has taken the result.

    Args:
      ask: what is asked of whom.
      desk: the server's journal, updates and key.
      spill: where updates of rules that are not sums are kept.
      past: events of this exchange from before a crash, in order.
    """

    def __init__(
        self, ask: Ask, desk: Desk, *, spill: ClientStates, past: Sequence[Event] = ()
    ) -> None:
        self.ask, self._desk, self._spill = ask, desk, spill
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._folding = threading.Semaphore(FOLDS_AT_ONCE)
        self._fold_lock = threading.Lock()
        self._open_answers = 0  # decided, not yet durable and folded
        self._broken: BaseException | None = None
        self._leave = False
        self._partial: Any = None if ask.spec is None else ask.aggregator.zero(ask.spec)
        self._results: dict[str, tuple[Metrics, int]] = {}
        self._problems: dict[str, Problem] = {}
        self._missing: set[str] = set()  # counted, but the update is gone
        self._late: dict[str, str] = {}  # digests of updates of earlier rounds, by client@round
        self._weights: dict[str, Fraction] = {}  # kept free in the sum, by client or client@round
        self._weight = Fraction(0)  # of all these
        self.state: RoundState = open_round(_asked(ask, past), _terms(ask, past))
        self._again(past)

    # ---- what sites do, in threads of their own

    def waits_for(self, client: str) -> int:
        """Return 0 if nothing is wanted of a client, 1 if its result is, 2 if it is again."""
        with self._lock:
            if self._leave or self._broken:
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
            self._decide(Failed(client, result.code or "client-failed"), reason=result.reason)
            return self._receipt(client, "", 0)
        with self._folding:
            return self._take(client, result)

    def late(self, client: str, number: int, result: TaskResult, *, factor: float) -> Receipt:
        """Take an update of an earlier round, with less weight, where the plan wants that.

        Raises:
          UpdateRefused: the update must not be aggregated.
          RequestRefused: this exchange is closed too, or has it already.
        """
        label = f"{client}@{number}"
        digest, size = result_digest(result)
        with self._folding:
            less = msgspec.structs.replace(result, weight=result.weight * factor)
            contribution = self._admitted(label, less, most=self.ask.most.get(client))
            with self._lock:
                if self.state.status is not Status.OPEN or self._leave or label in self._late:
                    if label not in self._late:
                        self._give_up(label)
                    raise _rejected("update-late", self.ask, client)
                self._late[label] = digest
                self._open_answers += 1
            return self._count(
                label, contribution, _means(result.metrics), digest=digest, size=size
            )

    def lost(self, client: str) -> None:
        """A client has not been heard of."""
        self._decide(Lost(client))

    def returned(self, client: str) -> None:
        """A client that was lost is there again."""
        self._decide(Returned(client))

    # ---- what the run does

    def wait(self) -> tuple[str, ...]:
        """Wait until the exchange is closed; return whose results count.

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
                if closed and not self._open_answers and not self._missing:
                    break
                left = until - monotonic()
                if left <= 0 and not closed:
                    self.state, _ = step(self.state, Deadline())
                    continue
                self._changed.wait(None if closed else left)
        return tuple(sorted(self._results))

    def finish(self) -> Aggregate | None:
        """Return the aggregate, and let go of the sum."""
        partial, self._partial = self._partial, None
        if partial is None or not self._results:
            return None
        return self.ask.aggregator.finish(partial)

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
        found = dict(self._problems)
        for client, status in self.state.clients.items():
            if status is ClientStatus.LEFT_OUT and not self._reached_goal() and client not in found:
                found[client] = Problem(
                    self.ask.number,
                    client,
                    "failed",
                    "client-silent",
                    f"it had not answered when the round closed: {self.state.why}",
                )
        return [found[client] for client in sorted(found)]

    # ---- inside

    def _reached_goal(self) -> bool:
        """Return whether those who are left out were merely spare."""
        goal = self.ask.terms.goal
        return goal is not None and len(self.state.digests) >= goal

    def _take(self, client: str, result: TaskResult) -> Receipt:
        """Check, decide, record, fold."""
        metrics = _means(result.metrics)
        digest, size = result_digest(result)
        contribution = None
        if self._can_count(client):
            try:
                contribution = self._looked_at(client, result)
            except UpdateRefused as refusal:
                reason = f"{refusal.happened} {refusal.hint}"
                self._decide(Refused(client, refusal.code), reason=reason)
                raise
        with self._lock:
            again = client in self._missing
            self._missing.discard(client)
        if again:
            return self._replace(client, contribution, metrics, digest=digest, size=size)
        effects = self._decided(Answered(client, digest))
        for effect in effects:
            match effect:
                case Count():
                    return self._count(client, contribution, metrics, digest=digest, size=size)
                case Repeat():
                    return self._receipt(client, digest, size)
                case Reject(code=code):
                    with self._lock:
                        if client not in self.state.digests:
                            self._give_up(client)
                    raise _rejected(code, self.ask, client)
        raise AssertionError("a result is counted, repeated or rejected")

    def _can_count(self, client: str) -> bool:
        """Return whether a result of this client, now, may change anything; once no, always no."""
        with self._lock:
            unsettled = self.state.clients.get(client) in _UNSETTLED
            return client in self._missing or (unsettled and self.state.status is Status.OPEN)

    def _looked_at(self, client: str, result: TaskResult) -> Contribution | None:
        """Check a result; return its update where the round takes some."""
        if self.ask.spec is not None:
            return self._admitted(client, result, most=self.ask.most.get(client))
        if result.update is None:
            return None
        raise UpdateRefused(
            "update-names",
            f"The result of {client} brings an update of {result.update.size} bytes, and round "
            f"{self.ask.number} ({self.ask.phase}) takes none. The result was not counted.",
            "Send metrics alone.",
        )

    def _admitted(self, client: str, result: TaskResult, *, most: float | None) -> Contribution:
        """Read an uploaded update and let it through the door, or not."""
        spec = self.ask.spec
        assert spec is not None
        if result.update is None or not self._desk.updates.has(result.update.digest):
            raise RequestRefused(
                "update-missing",
                f"The update of {client} has not been uploaded.",
                "Upload it, then report it again.",
                status=409,
            )
        size = self._desk.updates.size(result.update.digest)
        if result.update.size != size:  # a receipt says how many bytes have come
            raise UpdateRefused(
                "update-names",
                f"The update of {client} has {size} bytes, and its report says "
                f"{result.update.size}. The update was not counted.",
                "Send what the learner made, as it is.",
            )
        try:
            params = load_params(self._desk.updates.path(result.update.digest))
        except ParamsError as error:
            raise UpdateRefused(
                "update-names",
                f"The update of {client} is no tensor file: {error.happened}",
                "Send what the learner made, as it is.",
            ) from None
        contribution = Contribution(client, self._decoded(params), result.weight)
        admit(contribution, spec)
        self._keep_free(contribution, spec.weight_limit, most=most)
        return contribution

    def _keep_free(self, contribution: Contribution, limit: float, *, most: float | None) -> None:
        """Keep room for a weight in the round's sum, which holds no more than its limit.

        Raises:
          UpdateRefused: the client cannot have so much, or the sum has no room for it.
        """
        label, weight = contribution.client, Fraction(contribution.weight)
        with self._lock:
            mine = self._weights.get(label, Fraction(0))
            after = self._weight + max(weight - mine, Fraction(0))
            if after <= Fraction(limit) and (most is None or weight <= Fraction(most)):
                self._weights[label], self._weight = max(weight, mine), after
                return
        room = f"this client can have at most {most:g}" if most else "the round has no room for it"
        raise UpdateRefused(
            "update-weight",
            f"The weight of client {label!r} is {contribution.weight:g}; {room}. "
            "The update was not counted.",
            "Let the client send what the plan weighs: its examples, its steps, or 1.",
        )

    def _give_up(self, label: str) -> None:
        """Give back the room of an update that does not count; the lock is held."""
        self._weight -= self._weights.pop(label, Fraction(0))

    def _decoded(self, params: Params) -> Mapping[str, Any]:
        return decoded(params, self.ask)

    def _count(
        self,
        client: str,
        contribution: Contribution | None,
        metrics: Metrics,
        *,
        digest: str,
        size: int,
    ) -> Receipt:
        try:
            receipt = self._recorded(client, contribution, metrics, digest=digest, size=size)
            self._fold(contribution)
        except BaseException as error:
            self._break(error)
            raise
        hit("after_update_folded")
        with self._changed:
            self._results[client] = (metrics, size)
            self._open_answers -= 1
            self._changed.notify_all()
        return receipt

    def _replace(
        self,
        client: str,
        contribution: Contribution | None,
        metrics: Metrics,
        *,
        digest: str,
        size: int,
    ) -> Receipt:
        """Take again what had been counted and was lost with the server's disk."""
        with self._lock:
            self._open_answers += 1
        return self._count(client, contribution, metrics, digest=digest, size=size)

    def _recorded(
        self,
        client: str,
        contribution: Contribution | None,
        metrics: Metrics,
        *,
        digest: str,
        size: int,
    ) -> Receipt:
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
        receipt = self._signed(client, digest, size)
        hit("before_update_recorded")
        given = self._desk.journal.count(receipt, fact, weight=weight)
        hit("after_update_recorded")
        return given

    def _fold(self, contribution: Contribution | None) -> None:
        if contribution is None:
            return
        if not self.ask.aggregator.streaming:
            number, client = self.ask.number, contribution.client
            stored = self._spill.spill(client, number, contribution.vectors)
            contribution = contribution._replace(vectors=stored)
        with self._fold_lock:
            self._partial = self.ask.aggregator.add(self._partial, contribution)

    def _receipt(self, client: str, digest: str, size: int) -> Receipt:
        ask = self.ask
        client, _, earlier = client.partition("@")  # no name holds one
        number = int(earlier) if earlier else ask.number
        known = self._desk.journal.receipt(ask.run, number, phase=ask.phase, client=client)
        if known is not None and known.digest == digest:
            return known
        return self._signed(client, digest, size)

    def _signed(self, client: str, digest: str, size: int) -> Receipt:
        ask = self.ask
        client, _, earlier = client.partition("@")
        number = int(earlier) if earlier else ask.number
        at = now()
        signature = sign_receipt(
            self._desk.key, ask.run, number, ask.phase, client, digest, size, at
        )
        return Receipt(
            run=ask.run,
            round=number,
            phase=ask.phase,
            client=client,
            digest=digest,
            size=size,
            at=at,
            signature=signature,
        )

    def _decided(self, event: RoundEvent) -> tuple[Effect, ...]:
        """Take one step; a result that counts holds the exchange open until it is folded."""
        with self._changed:
            self.state, effects = step(self.state, event)
            self._open_answers += sum(isinstance(e, Count) for e in effects)
            if any(isinstance(e, Close) for e in effects):
                self._changed.notify_all()
        return effects

    def _decide(self, event: Failed | Refused | Lost | Returned, reason: str = "") -> None:
        """Take a step about a client that has no update to fold, and note it."""
        before = self.state.clients.get(event.client)
        effects = self._decided(event)
        for effect in effects:
            if isinstance(effect, Reject):
                raise _rejected(effect.code, self.ask, event.client)
        if self.state.clients.get(event.client) is before:
            return
        what = type(event).__name__.lower()
        code = getattr(event, "code", "")
        if isinstance(event, Failed | Refused):
            self._problems[event.client] = Problem(
                self.ask.number, event.client, what, code, reason
            )
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

    def _again(self, past: Sequence[Event]) -> None:
        """Go through what happened before a crash."""
        for event in past:
            if event["kind"] != "result":
                continue
            client, what = event["client"], event["state"]
            if what == "accepted" and "@" in client:
                self._late[client] = event["digest"]
                self._refold(event)
            elif what == "accepted":
                self.state, effects = step(self.state, Answered(client, event["digest"]))
                if any(isinstance(e, Count) for e in effects):
                    self._refold(event)
            elif what in ("failed", "refused"):
                kind = Failed if what == "failed" else Refused
                self.state, _ = step(self.state, kind(client, event["code"]))
                self._problems[client] = Problem(
                    self.ask.number, client, what, event["code"], event["reason"]
                )

    def _refold(self, event: Event) -> None:
        client, digest, size = event["client"], event["digest"], event["size"]
        if self.ask.spec is not None:
            try:
                if not self._desk.updates.intact(digest):
                    raise ParamsError("params-missing", "The update is gone.", "Send it again.")
                params = load_params(self._desk.updates.path(digest))
                contribution = Contribution(client, self._decoded(params), event["weight"])
                admit(contribution, self.ask.spec)
                self._keep_free(contribution, self.ask.spec.weight_limit, most=None)
            except HansaError:
                self._missing.add(client)
                return
            self._fold(contribution)
        self._results[client] = (_means(event["metrics"]), size)

    def _break(self, error: BaseException) -> None:
        """Let the run thread see that what was decided could not be done."""
        with self._changed:
            self._broken = error if isinstance(error, AggregationError | OSError) else Interrupted()
            self._changed.notify_all()


def decoded(params: Params, ask: Ask) -> dict[str, Any]:
    """Return an update's vectors in the precision in which the round sums."""
    assert ask.spec is not None
    vectors = params.to_dict()
    buffers = vectors.pop(BUFFERS, None)
    declared = ask.spec.vectors
    plain = {
        name: v.astype(declared[name].dtype, copy=False)
        if name in declared and v.dtype.kind == "f"
        else v
        for name, v in ask.transform.decode(vectors).items()
    }
    return plain if buffers is None else {**plain, BUFFERS: buffers}


def _asked(ask: Ask, past: Sequence[Event]) -> Sequence[str]:
    """Return the cohort; once an exchange has been closed, only those that counted are left."""
    closed = next((e for e in past if e["kind"] == "closed"), None)
    return ask.cohort if closed is None else closed["accepted"]


def _terms(ask: Ask, past: Sequence[Event]) -> Terms:
    closed = any(e["kind"] == "closed" for e in past)
    return Terms(minimum=0, goal=None) if closed else ask.terms


def _means(pairs: Mapping[str, Sequence[float | None]]) -> Metrics:
    """Return metrics as they were before they travelled; JSON knows no NaN."""
    nan = math.nan
    told = {
        name: [nan if value is None else value for value in pair] for name, pair in pairs.items()
    }
    return {name: Mean(*pair) for name, pair in told.items()}


def _rejected(code: str, ask: Ask, client: str) -> RequestRefused:
    where = f"round {ask.number} ({ask.phase}) of {ask.run}"
    told = {
        "update-conflict": f"{client} has sent another result for {where} before; that one counts.",
        "update-late": f"{client} has answered {where} after it was closed.",
        "update-not-asked": f"{client} was not asked in {where}.",
        "update-failed": f"{client} has reported before that it failed in {where}.",
    }
    return RequestRefused(
        code, f"{told[code]} The result was not counted.", "Go on with the next task.", status=409
    )
