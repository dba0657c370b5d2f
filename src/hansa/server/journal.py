"""All that a server knows of its runs, in its database: submissions, events, standings, receipts.

Events are the truth about a run and are only ever appended.  The other tables are what must be
found quickly, and are written in the same transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3
from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from hansa.clock import now
from hansa.errors import RequestRefused
from hansa.limits import (
    EVENT_PAGE_BYTES,
    RUNS_UNFINISHED_MAX,
    STANDINGS_KEPT,
    STANDINGS_TOLD_MAX,
)
from hansa.protocol.messages import (
    ENDED,
    Offer,
    Phase,
    Receipt,
    RunFacts,
    RunState,
    Standing,
    Submission,
)
from hansa.store.database import Database
from hansa.store.tables import events, receipts, runs, standings, trail

Event = dict[str, Any]

_NO_MODEL: Event = {
    "kind": "committed",
    "round": 0,
    "model": "",
    "model_size": 0,
    "state": None,
    "row": {},
    "progress": {},
    "elapsed": 0.0,
}


class RunRow(NamedTuple):
    """A run as it stands."""

    run: str
    submitter: str
    submission: Submission
    state: RunState
    reason: str
    created_at: str
    ended_at: str


class Journal:
    """Reads and writes runs.

    Args:
      database: of the server.
      changed: called with a run's name after its events have become durable, in any thread.
    """

    def __init__(self, database: Database, changed: Callable[[str], None]) -> None:
        self._db, self._changed = database, changed
        self._told: dict[tuple[str, str], int] = {}  # words of sites on runs; of the writing thread
        self._lock = threading.Lock()  # of what follows
        self._said: dict[str, dict[str, Standing]] = {}  # by run, as the database has it
        self._changes = 0  # of it

    def submit(self, submission: Submission, submitter: str) -> tuple[str, bool]:
        """Record a submission; return the run's name and whether it is new.

        Raises:
          RequestRefused: run-too-many, the submitter has too many unfinished runs.
        """
        text = msgspec.json.encode(submission).decode()

        def work(c: Connection) -> tuple[str, bool]:
            found = c.execute(select(runs.c.run).where(runs.c.submission_id == submission.id))
            known = found.scalar_one_or_none()
            if known is not None:
                return known, False
            _check_number(c, submitter)
            name = _next_name(c, str(submission.plan.get("name", "run")))
            row = {
                "run": name,
                "submission_id": submission.id,
                "submitter": submitter,
                "submission": text,
                "state": "waiting",
                "reason": "",
                "created_at": now(),
                "ended_at": "",
            }
            c.execute(insert(runs).values(row))
            append(c, name, {"kind": "submitted", "submitter": submitter})
            # From here on the seed model is needed, whatever other runs forget.
            seed = submission.seed_model.digest
            c.execute(insert(trail).values(run=name, round=0, digest=seed))
            return name, True

        run, fresh = self._db.write(work)
        self._changed(run)
        return run, fresh

    def adopt(self, offer: Offer) -> None:
        """Record a run of the server above, under its name there; twice is as good as once.

        Its round 0 is where this combiner has begun, and holds no model: each task brings its own.
        """
        submission = Submission(
            id=blake3(offer.run.encode()).hexdigest()[:32],
            identity=offer.identity,
            plan=offer.plan,
            package=offer.package,
            seed_model=offer.package,
            tensors=offer.tensors,
            buffers=offer.buffers,
            constants=offer.constants,
            signature=offer.signature,
            certificate=offer.certificate,
            purpose=offer.purpose,
        )
        row = {
            "run": offer.run,
            "submission_id": submission.id,
            "submitter": offer.submitter,
            "submission": msgspec.json.encode(submission).decode(),
            "state": "running",
            "reason": "",
            "created_at": now(),
            "ended_at": "",
        }

        def work(c: Connection) -> None:
            if c.execute(select(runs.c.run).where(runs.c.run == offer.run)).first() is None:
                c.execute(insert(runs).values(row))
                append(c, offer.run, {"kind": "submitted", "submitter": offer.submitter})
                append(c, offer.run, {**_NO_MODEL})

        self._db.write(work)
        self._changed(offer.run)

    def run(self, run: str) -> RunRow | None:
        """Return one run, or None."""
        rows = self._db.read(lambda c: c.execute(select(runs).where(runs.c.run == run)).all())
        return _row(rows[0]) if rows else None

    def runs(
        self, *, unfinished: bool = False, after: int = 0, limit: int | None = None
    ) -> list[RunRow]:
        """Return runs, oldest first; from a position on, and no more than a limit."""
        query = select(runs).order_by(runs.c.created_at, runs.c.run).offset(after).limit(limit)
        if unfinished:
            query = query.where(runs.c.state.not_in(ENDED))
        return [_row(row) for row in self._db.read(lambda c: c.execute(query).all())]

    def record(self, run: str, *facts: Event, **columns: Any) -> None:
        """Append events, and set columns of the run, at once; durable when this returns."""

        def work(c: Connection) -> None:
            if _has_ended(c, run):
                return  # nothing happens after the end (law L6)
            append(c, run, *facts)
            if columns:
                c.execute(update(runs).where(runs.c.run == run).values(columns))

        self._db.write(work)
        self._changed(run)

    def begin(self, run: str, fact: Event) -> Future[None]:
        """Append an event without waiting; what is recorded later is durable later than it."""

        def work(c: Connection) -> None:
            if not _has_ended(c, run):
                append(c, run, fact)

        begun = self._db.submit(work)
        begun.add_done_callback(lambda _: self._changed(run))
        return begun

    def events(self, run: str, after: int = 0, limit: int = 1_000) -> list[Event]:
        """Return a run's events from a position on."""
        page = _PAGE.limit(limit)
        rows = self._db.read(lambda c: c.execute(page, {"of": run, "after": after}).all())
        return [{"kind": kind, "at": at, **msgspec.json.decode(data)} for kind, at, data in rows]

    def page(self, run: str, after: int) -> tuple[RunState | None, list[Event]]:
        """Return a run's state, None if there is no such run, and its events from a position on.

        Of events there are as many as fit into an answer, and at least one.
        """

        def work(c: Connection) -> tuple[RunState | None, list[Event]]:
            found: list[Event] = []
            size = 0
            for kind, at, data in c.execute(_PAGE, {"of": run, "after": after}):
                size += len(data.encode())
                if found and size > EVENT_PAGE_BYTES:
                    break
                found.append({"kind": kind, "at": at, **msgspec.json.decode(data)})
            return c.execute(_STATE_OF, {"of": run}).scalar_one_or_none(), found

        return self._db.read(work)

    def event_count(self, run: str) -> int:
        """Return how many events a run has."""
        return int(self._db.read(lambda c: c.execute(_COUNT, {"of": run}).scalar_one()))

    def all_events(self, run: str, kind: str | None = None) -> list[Event]:
        """Return all events of a run, or those of one kind."""
        query = select(events.c.kind, events.c.at, events.c.data).where(events.c.run == run)
        if kind is not None:
            query = query.where(events.c.kind == kind)
        rows = self._db.read(lambda c: c.execute(query.order_by(events.c.seq)).all())
        return [{"kind": k, "at": at, **msgspec.json.decode(data)} for k, at, data in rows]

    def last(self, run: str, kind: str) -> Event | None:
        """Return the last event of a kind, if there is one."""
        rows = self._db.read(lambda c: c.execute(_LAST, {"of": run, "kind": kind}).all())
        return (
            {"kind": kind, "at": rows[0].at, **msgspec.json.decode(rows[0].data)} if rows else None
        )

    def has(self, run: str, kind: str) -> bool:
        """Tell whether there is an event of a kind; reads none of them."""
        found = self._db.read(lambda c: c.execute(_HAS, {"of": run, "kind": kind}).first())
        return found is not None

    def since_commit(self, run: str, *, up_to: int | None = None) -> tuple[Event, list[Event]]:
        """Return the last commit, or the last up to a round, and the events after it."""
        last = select(func.max(events.c.seq)).where(
            events.c.run == run, events.c.kind == "committed"
        )
        if up_to is not None:
            last = last.where(func.json_extract(events.c.data, "$.round") <= up_to)
        start = self._db.read(lambda c: c.execute(last).scalar_one())
        commit, *rest = self.events(run, start, limit=1_000_000)
        return commit, rest

    def end(self, run: str, state: str, reason: str, *, code: str) -> None:
        """Bring a run to its end, once: a terminal state is final (law L6)."""

        def work(c: Connection) -> None:
            here = (runs.c.run == run, runs.c.state.not_in(ENDED))
            ended = update(runs).where(*here).values(state=state, reason=reason, ended_at=now())
            for key in [key for key in self._told if key[0] == run]:
                del self._told[key]
            if c.execute(ended).rowcount:
                append(c, run, {"kind": "ended", "state": state, "reason": reason, "code": code})

        self._db.write(work)
        with self._lock:
            self._said.pop(run, None)
        self._changed(run)

    def commit(self, run: str, *facts: Event, keep: Callable[[int], bool]) -> list[str]:
        """Record a committed round; return digests of models that no run needs any longer.

        The last of the facts is the commit.

        Raises:
          EndedError: the run has ended meanwhile; the round is not part of it.
        """

        def work(c: Connection) -> list[str]:
            if _has_ended(c, run):
                raise EndedError(run)
            append(c, run, *facts)
            number, model, state = (facts[-1][key] for key in ("round", "model", "state"))
            held = {key: digest for n, key, digest in facts[-1].get("held", {}).values()
                    if n == number}  # fmt: skip
            return _replaced(c, run, {number: model, STATE: state, **held}, keep=keep)

        stale = self._db.write(work)
        self._changed(run)
        return stale

    def stand(self, run: str, site: str, standing: Standing) -> None:
        """Record a site's word on a run; one that changes its mind for ever is told of so often.

        Raises:
          EndedError: the run has ended meanwhile.
        """
        facts = msgspec.to_builtins(standing)
        row = {
            "state": standing.state,
            "reason": standing.reason,
            "examples": standing.examples,
            "at": now(),
        }

        def work(c: Connection) -> None:
            if _has_ended(c, run):
                raise EndedError(run)
            where = (standings.c.run == run, standings.c.site == site)
            if c.execute(update(standings).where(*where).values(row)).rowcount == 0:
                c.execute(insert(standings).values(run=run, site=site, **row))
            told = self._told[run, site] = self._told.get((run, site), 0) + 1
            if told <= STANDINGS_TOLD_MAX:
                append(c, run, {"kind": "standing", "site": site, **facts})

        self._db.write(work)
        with self._lock:
            self._said.pop(run, None)
            self._changes += 1
        self._changed(run)

    def standings(self, run: str) -> Mapping[str, Standing]:
        """Return what sites have said of a run."""
        with self._lock:
            said, mark = self._said.get(run), self._changes
        if said is not None:
            return said
        rows = self._db.read(lambda c: c.execute(_STANDINGS, {"of": run}).all())
        said = {r.site: Standing(state=r.state, reason=r.reason, examples=r.examples) for r in rows}
        with self._lock:
            if mark == self._changes:
                self._said[run] = said
                while sum(map(len, self._said.values())) > STANDINGS_KEPT:
                    self._said.pop(next(iter(self._said)))
        return said

    def count(self, receipt: Receipt, *facts: Event, weight: float) -> Future[Receipt]:
        """Record that a result counts; once durable, it gives the receipt, the first if known.

        A client whose counted update was lost with the server's disk may send another in its
        place; only the exchange knows, so this replaces what is there.

        Raises:
          EndedError: the run has ended meanwhile; what counted before has its receipt still.
        """

        def work(c: Connection) -> Receipt:
            state, found = c.execute(_STATE_AND_RECEIPT, _key(receipt)).one()
            if found is not None:
                known = msgspec.json.decode(found, type=Receipt)
                if known.digest == receipt.digest:
                    return known
            if state in ENDED:
                raise EndedError(receipt.run)
            if found is not None:
                c.execute(delete(receipts).where(*_OF), _key(receipt))
            text = msgspec.json.encode(receipt).decode()
            fields = msgspec.structs.asdict(receipt)
            keys = ("run", "round", "phase", "client", "digest", "size", "at")
            row = {key: fields[key] for key in keys}
            c.execute(_NEW_RECEIPT, {**row, "weight": weight, "data": text})
            append(c, receipt.run, *facts)
            return receipt

        given = self._db.submit(work)
        given.add_done_callback(lambda _: self._changed(receipt.run))
        return given

    def receipt(self, run: str, number: int, *, phase: Phase, client: str) -> Receipt | None:
        """Return the receipt of a result, if it was counted."""
        key = Receipt(run=run, round=number, phase=phase, client=client, digest="", size=0, at="")
        text = self._db.read(lambda c: c.execute(_RECEIPT, _key(key)).scalar_one_or_none())
        return None if text is None else msgspec.json.decode(text, type=Receipt)

    def is_owed(self, run: str, number: int, *, site: str) -> bool:
        """Tell whether a site was asked to train in a round, and has not given its word on it.

        What counts already has a receipt; the same sent again does not count a second time.
        """
        key = Receipt(run=run, round=number, phase="train", client=site, digest="", size=0, at="")
        fact = {key: func.json_extract(events.c.data, f"$.{key}") for key in _FOUND_BY}
        here = (fact["round"] == number, fact["phase"] == "train")
        theirs = and_(events.c.kind == "result", fact["client"] == site)
        query = (
            select(events.c.kind, events.c.data)
            .where(events.c.run == run, or_(events.c.kind == "opened", theirs), *here)
            .order_by(events.c.seq.desc())
        )

        def work(c: Connection) -> bool:
            if c.execute(_RECEIPT, _key(key)).first() is not None:
                return False
            # From the end, and no further than to the round's beginning.
            for kind, data in c.execute(query):
                event = msgspec.json.decode(data)
                if kind == "opened":
                    return site in event["cohort"]
                if event["state"] in ("failed", "refused"):
                    return False
            return False

        return self._db.read(work)

    def rounds_done(self, run: str) -> int:
        """Return the last committed round."""
        query = select(func.max(trail.c.round)).where(trail.c.run == run)
        return self._db.read(lambda c: c.execute(query).scalar_one()) or 0

    def facts(self, row: RunRow) -> RunFacts:
        """Return what is told of a run, but for what its running server alone knows."""
        rounds = int(row.submission.plan.get("rounds", 0))
        return RunFacts(
            run=row.run,
            state=row.state,
            reason=row.reason,
            name=str(row.submission.plan.get("name", "")),
            submitter=row.submitter,
            created=row.created_at,
            ended=row.ended_at or "",
            # A workflow may go on after the plan's rounds, as cross-site evaluation does.
            rounds_done=min(self.rounds_done(row.run), rounds),
            rounds=rounds,
        )

    def last_rounds(self) -> dict[str, int]:
        """Return the last committed round of every run."""
        query = select(trail.c.run, func.max(trail.c.round)).group_by(trail.c.run)
        return {run: number for run, number in self._db.read(lambda c: c.execute(query).all())}

    def open_updates(self) -> set[str]:
        """Return digests of updates that count in rounds which are not committed yet."""
        found: set[str] = set()
        for row in self.runs(unfinished=True):
            if self.has(row.run, "committed"):
                commit, past = self.since_commit(row.run)
                at_work = commit.get("at_work", {})
                if at_work:  # who has answered before it, and is not part of it
                    results = self.all_events(row.run, "result")
                    past += [e for e in results if at_work.get(e["client"]) == e["round"]]
                counted = ("result", "merged")
                found |= {e["digest"] for e in past if e["kind"] in counted and e.get("size")}
        return found

    def run_states(self) -> dict[str, int]:
        """Return how many runs there are in each state."""
        query = select(runs.c.state, func.count()).group_by(runs.c.state)
        return {s: int(n) for s, n in self._db.read(lambda c: c.execute(query).all())}

    def receipt_count(self) -> int:
        """Return how many results have been counted."""
        query = select(func.count()).select_from(receipts)
        return int(self._db.read(lambda c: c.execute(query).scalar_one()))

    def round_count(self) -> int:
        """Return how many rounds have been committed."""
        query = select(func.count()).where(events.c.kind == "committed")
        return int(self._db.read(lambda c: c.execute(query).scalar_one()))

    def receipts(self, client: str, after: int) -> tuple[list[Receipt], int]:
        """Return a client's receipts after a position, and the next position."""
        query = (
            select(receipts.c.id, receipts.c.data)
            .where(receipts.c.client == client, receipts.c.id > after)
            .order_by(receipts.c.id)
            .limit(1_000)
        )
        rows = self._db.read(lambda c: c.execute(query).all())
        found = [msgspec.json.decode(data, type=Receipt) for _, data in rows]
        return found, rows[-1][0] if rows else after


STATE = -1
"""In the trail's column of rounds: what the algorithm keeps besides the last model."""

HELD = -2
"""And from here on down: vectors of single clients, by numbers that the commit gives them."""


def _replaced(
    c: Connection, run: str, digests: dict[int, str | None], *, keep: Callable[[int], bool]
) -> list[str]:
    """Write digests into a run's trail; return those that no run's trail has any longer."""
    before = c.execute(_TRAIL, {"of": run}).all()
    gone = {r for r, _ in before if r in digests or (r != STATE and not keep(r))}
    c.execute(_NOT_KEPT, {"of": run, "gone": sorted(gone)})
    rows = [{"run": run, "round": n, "digest": d} for n, d in digests.items() if d is not None]
    c.execute(_NEW_MODEL, rows)
    dropped = {d for r, d in before if r in gone}
    needed = c.execute(_NEEDED, {"dropped": sorted(dropped)}).scalars()
    return sorted(dropped - set(needed))


class EndedError(RequestRefused):
    """A run that has ended was to go on (law L6)."""

    def __init__(self, run: str) -> None:
        super().__init__(
            "run-ended",
            f"The run {run} has ended; nothing more counts in it.",
            "Forget it, and go on with others.",
            status=409,
        )


def _check_number(connection: Connection, submitter: str) -> None:
    """Refuse another run of somebody who has very many."""
    query = select(func.count()).where(runs.c.submitter == submitter, runs.c.state.not_in(ENDED))
    number = int(connection.execute(query).scalar_one())
    if number >= RUNS_UNFINISHED_MAX:
        raise RequestRefused(
            "run-too-many",
            f"{submitter} has {number} unfinished runs at this server, and may have "
            f"{RUNS_UNFINISHED_MAX}. Nothing was recorded.",
            "Wait until some have ended, or stop those that are no longer wanted: hansa stop",
            status=409,
        )


_FOUND_BY = ("round", "phase", "client")


# Made once: SQLAlchemy finds a statement it has seen by that object at once, another by its parts.
_STATE_OF = select(runs.c.state).where(runs.c.run == bindparam("of"))
_PAGE = (
    select(events.c.kind, events.c.at, events.c.data)
    .where(events.c.run == bindparam("of"), events.c.seq >= bindparam("after"))
    .order_by(events.c.seq)
    .limit(1_000)
)
_COUNT = select(func.count()).where(events.c.run == bindparam("of"))
_OF_KIND = (events.c.run == bindparam("of"), events.c.kind == bindparam("kind"))
_LAST = select(events.c.at, events.c.data).where(*_OF_KIND).order_by(events.c.seq.desc()).limit(1)
_HAS = select(events.c.seq).where(*_OF_KIND).limit(1)
_STANDINGS = select(standings).where(standings.c.run == bindparam("of"))
_NEXT = select(func.coalesce(func.max(events.c.seq) + 1, 0)).where(events.c.run == bindparam("of"))
_NEW_EVENT = insert(events).values(seq=_NEXT.scalar_subquery())
_NEW_RECEIPT, _NEW_MODEL = insert(receipts), insert(trail)
_TRAIL = select(trail.c.round, trail.c.digest).where(trail.c.run == bindparam("of"))
_NOT_KEPT = delete(trail).where(
    trail.c.run == bindparam("of"), trail.c.round.in_(bindparam("gone", expanding=True))
)
_NEEDED = select(trail.c.digest).where(trail.c.digest.in_(bindparam("dropped", expanding=True)))
_OF = [receipts.c[key] == bindparam(f"of_{key}") for key in ("run", "round", "phase", "client")]
_RECEIPT = select(receipts.c.data).where(*_OF)
_STATE_AND_RECEIPT = (
    select(runs.c.state, receipts.c.data)
    .select_from(runs.outerjoin(receipts, and_(*_OF)))
    .where(runs.c.run == bindparam("of_run"))
)


def _has_ended(connection: Connection, run: str) -> bool:
    return connection.execute(_STATE_OF, {"of": run}).scalar_one_or_none() in ENDED


def append(connection: Connection, run: str, *facts: Event) -> None:
    """Append events in a transaction of the one writer."""
    rows = [
        {
            "of": run,
            "run": run,
            "at": now(),
            "kind": fact["kind"],
            "data": msgspec.json.encode({k: v for k, v in fact.items() if k != "kind"}).decode(),
        }
        for fact in facts
    ]
    if rows:
        connection.execute(_NEW_EVENT, rows)


def _next_name(connection: Connection, name: str) -> str:
    """Return the next name of a plan: digits-1, digits-2 ..."""
    taken = connection.execute(
        select(runs.c.run).where(runs.c.run.startswith(f"{name}-", autoescape=True))
    )
    numbers = [run.removeprefix(f"{name}-") for run in taken.scalars()]
    return f"{name}-{1 + max((int(n) for n in numbers if n.isdecimal()), default=0)}"


def _row(row: Any) -> RunRow:
    submission = msgspec.json.decode(row.submission, type=Submission)
    return RunRow(
        row.run, row.submitter, submission, row.state, row.reason, row.created_at, row.ended_at
    )


def _key(of: Receipt) -> dict[str, Any]:
    """Return what finds the receipt of the same result."""
    return {"of_run": of.run, "of_round": of.round, "of_phase": of.phase, "of_client": of.client}
