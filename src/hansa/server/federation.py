"""The deployed federation: the handle of `hansa.workflows`, over real sites and a journal.

Its methods never await: a run has a thread of its own, which waits for sites here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from hansa.algorithms import Vectors
from hansa.clock import monotonic
from hansa.failpoints import hit
from hansa.metrics import Metrics
from hansa.params import Layout, Params, encode
from hansa.params.model import ModelLayout
from hansa.plan import Method, Plan
from hansa.plan.weights import weight_limit
from hansa.protocol.messages import (
    BlobRef,
    Offer,
    Phase,
    Receipt,
    Task,
    TaskKey,
    TaskResult,
)
from hansa.rounds import BUFFERS, aggregation_spec
from hansa.rounds.messages import is_model, to_message
from hansa.rounds.questions import asking, once
from hansa.rounds.round import ClientStatus, Terms
from hansa.server.exchange import Desk, Exchange, Interrupted
from hansa.server.gathering import Gathering, Needs
from hansa.server.hub import Hub
from hansa.server.journal import EndedError, Event, Journal, RunRow
from hansa.server.keeping import Keeping
from hansa.server.merging import MergingExchange
from hansa.server.openings import Opening, answered, open_asking, opened_in, roster_of
from hansa.server.places import Places
from hansa.server.results import few
from hansa.server.round_files import Stores
from hansa.server.sums import Ask
from hansa.spans import Spans, memory_kb, model_facts
from hansa.store.addresses import digest_of
from hansa.store.client_states import ClientStates
from hansa.store.files import load_params
from hansa.workflows import (
    ANYBODY,
    NO_SETTINGS,
    Answered,
    Commit,
    Evaluated,
    GlobalState,
    Problem,
    Trained,
)
from hansa.workflows.state_files import from_files, rounded, to_files


class Pace(NamedTuple):
    """An operator's times, in seconds."""

    gather_s: float
    deadline_s: float


class DeployedFederation:
    """All sites that take part in one run.

    Args:
      row: the run.
      plan: its plan.
      method: algorithm, aggregator and transforms.
      hub: where sites are reached.
      desk: journal, updates and key.
      stores: files.
      pace: the operator's times.
      places: one of which the run has while it is at work, and not while it waits for sites.
    """

    def __init__(
        self,
        row: RunRow,
        plan: Plan,
        method: Method,
        *,
        hub: Hub,
        desk: Desk,
        stores: Stores,
        pace: Pace,
        places: Places,
    ) -> None:
        self.run, self._plan, self._method = row.run, plan, method
        self._hub, self._desk, self._stores, self._pace = hub, desk, stores, pace
        self._journal: Journal = desk.journal
        needs = Needs.of(row, plan, method.aggregator.needs)
        self._gathering = Gathering(
            row, needs, hub=hub, journal=desk.journal, places=places, gather_s=pace.gather_s
        )
        submission = row.submission
        tensors = ((n, d, tuple(shape)) for n, d, shape in submission.tensors)
        self.layout = ModelLayout(Layout.of(tensors), submission.buffers)
        self.offer = Offer(
            run=row.run,
            identity=submission.identity,
            plan=submission.plan,
            package=submission.package,
            tensors=submission.tensors,
            buffers=submission.buffers,
            submitter=row.submitter,
            certificate=submission.certificate,
            signature=submission.signature,
            purpose=submission.purpose,
        )
        self.committed = 0
        self._began, self._before = monotonic(), 0.0
        self._open: Exchange | None = None
        self._stopped = ""
        self._left = False
        self._past: list[Event] = []  # of this round, from before the last start
        self._update_bytes = 0
        self._roster: list[str] = []
        self._closings: list[Event] = []  # not yet durable
        self._messages: list[str] = []  # digests of those that are still there
        self._old_messages: list[str] = []  # of rounds that are committed
        self._forgetting = False  # what the last committed round needed is still there
        self._model = BlobRef(digest=digest_of(b""), size=0)  # the committed one
        self._committed_state: GlobalState | None = None
        self._used: set[str] = set()  # digests of this round's updates
        self._spill = ClientStates(stores.spill / row.run)
        self._asked: frozenset[tuple[int, str]] = frozenset()  # rounds and named tasks
        self._keeping = Keeping(
            row.run, plan, stores, layout=self.layout, transform=method.transform
        )
        self.spans = Spans()
        self._model_facts: dict[str, Any] | None = None  # of the model that is evaluated

    def look(self) -> int:
        """Find out how far the run is; return the round that comes next, 0 if there is none."""
        event, self._past = self._journal.since_commit(self.run)
        self.committed = event["round"]
        return 0 if event["progress"].get("ended") else self.committed + 1

    # ---- the handle

    def resume(self) -> Commit:
        """Return the last commit, read back from the journal and its model file."""
        event, self._past = self._journal.since_commit(self.run)
        model = self._stored(event["model"])
        extra = None if event["state"] is None else self._stored(event["state"])
        state = from_files(self._method.algorithm, self.layout, model=model, extra=extra)
        self._model = BlobRef(digest=event["model"], size=event["model_size"])
        self.committed, self._before = event["round"], event["elapsed"]
        self._began = monotonic()
        return Commit(event["round"], state, event["row"], event["progress"])

    def elapsed(self) -> float:
        """Return seconds of work, those before a restart included."""
        return self._before + monotonic() - self._began

    async def roster(self, round_number: int) -> Sequence[str]:
        """Return the sites that can be asked; a round that was open before keeps its own.

        The run has a place among those at work when this returns, and keeps it until it must wait
        for sites again.
        """
        opened = roster_of(self._past, round_number)
        if opened is not None:
            self._roster = self._gathering.again(opened["clients"])
        else:
            self._roster = self._gathering.roster(round_number, self._check_going)
        return self._roster

    def recall(self, round_number: int) -> GlobalState:
        """Return a model that was kept, read back from its file."""
        events = self._journal.all_events(self.run, "committed")
        digest = next(e["model"] for e in events if e["round"] == round_number)
        model = self._stored(digest)
        return from_files(self._method.algorithm, self.layout, model=model, extra=None)

    async def train(
        self,
        round_number: int,
        state: GlobalState,
        cohort: Sequence[str],
        *,
        terms: Terms,
        steps: Mapping[str, int] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Trained:
        """Have a cohort train, and fold each update while others are awaited."""
        told = {"steps": dict(steps or {}), "settings": dict(settings or {})}
        exchange = self._exchange(round_number, "train", state, cohort=cohort, terms=terms, **told)
        message = exchange.message.size
        accepted = self._performed(exchange)
        began = monotonic()
        aggregate = rounded(self.layout, exchange.open.finish())
        self.spans.note("aggregate", began, blocks=len(accepted), memory_kb=memory_kb())
        digests = exchange.open.state.digests
        self._keeping.add_clients(round_number, state, {c: digests[c] for c in accepted})
        return Trained(
            aggregate,
            few({c: m for c, m in exchange.open.metrics.items() if c in accepted}),
            self._problems(exchange.open),
            bytes_down=self._hub.receivers(cohort) * message,
            bytes_up=exchange.open.bytes_up,
        )

    async def evaluate(
        self, round_number: int, state: GlobalState, clients: Sequence[str]
    ) -> Evaluated:
        """Have sites evaluate on their validation parts."""
        if not clients:
            return Evaluated({}, [])
        terms = Terms(minimum=0, goal=None)
        exchange = self._exchange(
            round_number, "evaluate", state, cohort=clients, terms=terms, steps={}
        )
        self._performed(exchange, evaluated=state)
        metrics = few({c: m for c, m in exchange.open.metrics.items() if m})
        return Evaluated(metrics, self._problems(exchange.open))

    async def ask(
        self,
        round_number: int,
        task: str,
        clients: Sequence[str],
        *,
        message: Mapping[str, Params] | Params | None = None,
        settings: Mapping[str, Any] = NO_SETTINGS,
        terms: Terms = ANYBODY,
        step: int = 0,
    ) -> Answered:
        """Have sites answer a named task with the project's own code."""
        asked = asking(round_number, task, clients, message=message, settings=settings, step=step)
        self._asked = once(asked, self._asked)
        if not clients:
            return Answered({}, [], bytes_down=0, bytes_up=0)
        self._check_going()
        deadline_s = self._plan.cohort.deadline_s or self._pace.deadline_s
        plain = Ask(self.run, asked.number, asked.phase, tuple(clients), terms, deadline_s)
        plain = plain._replace(grace_s=self._plan.cohort.grace_s)
        opening = open_asking(
            asked, plain, self._desk, stores=self._stores, past=self._past, roster=self._roster
        )
        self._performed(opening)
        return answered(opening, self._stores, problems=self._problems(opening.open))

    async def test(self, round_number: int, state: GlobalState) -> Metrics:
        """Return nothing: a server holds no data."""
        return {}

    async def commit(self, commit: Commit, problems: Sequence[Problem]) -> None:
        """Make a round durable, then forget what only this round needed."""
        hit("before_model_written")
        self._record(commit)
        hit("after_round_committed")
        self.committed = commit.round
        self._past, self._asked = [], frozenset()
        self._closings.clear()
        self._spill.clear()
        self._old_messages += self._messages[:-1]
        del self._messages[:-1]
        self._forgetting = True

    def _record(self, commit: Commit) -> None:
        """Write the model, then the commit, then remove what no run needs any longer."""
        blobs, began = self._stores.blobs, monotonic()
        model, extra = to_files(self.layout, commit.state)
        files = [encode(params) for params in (model, extra) if params is not None]
        (digest, size), *others = [blobs.put_bytes(file) for file in files]
        state = others[0][0] if others else None
        hit("after_model_written")
        facts = {
            "kind": "committed",
            "round": commit.round,
            "model": digest,
            "model_size": size,
            "state": state,
            "row": commit.row,
            "progress": commit.progress,
            "elapsed": self.elapsed(),
        }
        keep = self._keeping.stays(commit)
        self._keeping.add_global(commit)
        self.spans.note("save", began, **(self._model_facts or model_facts(model)))
        self._model_facts, timed = None, self.spans.close(commit.round)
        # Between finding that a model is there and recording that this run needs it, no other
        # run may remove it; writing it may take long, so that was done before.
        with self._stores.trail:
            for file, wanted in zip(files, (digest, state), strict=False):
                if wanted is not None and not blobs.has(wanted):
                    blobs.put_bytes(file)
            try:
                stale = self._journal.commit(self.run, *self._closings, timed, facts, keep=keep)
            except EndedError:
                raise Interrupted from None  # stopped meanwhile
            for old in stale:
                blobs.remove(old)
        self._model = BlobRef(digest=digest, size=size)
        self._committed_state = commit.state

    # ---- what the server tells a run

    def stop(self, reason: str) -> None:
        """Let the run end; its thread is woken wherever it waits."""
        self._stopped = reason
        if self._open is not None:
            self._open.stop(reason)
        self._hub.stir()

    def leave(self) -> None:
        """Let the run's thread go; the run goes on when the server is back."""
        self._left = True
        if self._open is not None:
            self._open.leave()
        self._hub.stir()

    @property
    def exchanges(self) -> int:
        """Return how many exchanges the open round has had, at most."""
        return len(self._asked) + 1

    @property
    def late_rounds(self) -> int:
        """Return how many rounds late an update may be; 0 where the plan refuses them."""
        cohort = self._plan.cohort
        return cohort.late_rounds if cohort.late == "discount" else 0

    def late(self, site: str, number: int, result: TaskResult) -> Receipt | None:
        """Count an update of an earlier round in the open one, if the plan wants that.

        Raises:
          UpdateRefused: the update must not be aggregated.
          RequestRefused: the open exchange is closing.
        """
        exchange = self._open
        if exchange is None or exchange.ask.phase != "train" or result.state != "done":
            return None
        lateness = exchange.ask.number - number
        if not 0 < lateness <= self.late_rounds or not self._journal.is_owed(
            self.run, number, site=site
        ):
            return None
        factor = self._plan.cohort.late_discount**lateness
        return exchange.late(site, number, result, factor=factor)

    @property
    def update_bytes(self) -> int:
        """The most that one update of the open round takes."""
        return self._update_bytes

    # ---- inside

    def _stored(self, digest: str) -> Params:
        params = load_params(self._stores.blobs.path(digest))
        return params

    def _is_going(self) -> bool:
        return not (self._stopped or self._left or self._hub.draining)

    def _check_going(self) -> None:
        if not self._is_going():
            raise Interrupted

    def rest(self) -> None:
        """Let another run have this one's place, if it has one."""
        self._gathering.rest()

    def _exchange(
        self,
        number: int,
        phase: Phase,
        state: GlobalState,
        *,
        cohort: Sequence[str],
        terms: Terms,
        steps: Mapping[str, int],
        settings: Mapping[str, Any] = NO_SETTINGS,
    ) -> Opening:
        """Open an exchange, or open it again with what it had before a crash."""
        self._check_going()
        self.spans.open(number)
        algorithm = self._method.algorithm
        message = Vectors(algorithm.broadcast(state.algorithm))
        if len(state.buffers):
            message[BUFFERS] = state.buffers
        ref = self._message_ref(state, message)
        opened, begun = opened_in(self._past, number, phase), None
        past = [e for e in self._past if e.get("round") == number and e.get("phase") == phase]
        if opened is None:
            hit("before_round_opened")
            opened = {
                "kind": "opened",
                "round": number,
                "phase": phase,
                "cohort": list(cohort),
                "clients": self._roster,
                "weight_limit": self._limit(number, cohort, terms, steps),
                "goal": terms.goal,
                "message": ref.digest,
            }
            told = {
                "steps": dict(steps),
                "settings": dict(settings),
                "vias": self._hub.vias(cohort),
            }
            opened |= {name: value for name, value in told.items() if value}
            begun = self._journal.begin(self.run, opened)
            hit("after_round_opened")
        self._hub.remember(opened.get("vias", {}))
        spec, steps = None, opened.get("steps", {})
        if phase == "train":
            limit = opened["weight_limit"]
            spec = aggregation_spec(algorithm, message, weight_limit=limit, bound=self._plan.bound)
            self._update_bytes = sum(
                v.size * np.dtype(v.dtype).itemsize for v in spec.vectors.values()
            )
        deadline = self._plan.cohort.deadline_s or self._pace.deadline_s
        ask = Ask(
            self.run,
            number,
            phase,
            tuple(opened["cohort"]),
            terms,
            deadline,
            spec,
            self._method.aggregator,
            self._method.transform,
            self._most(number, steps) if phase == "train" else {},
            steps,
            opened.get("settings", {}),
            self._plan.cohort.grace_s,
            {},
            self.spans,
        )
        exchange = MergingExchange(ask, self._desk, spill=self._spill, past=past, begun=begun)
        return Opening(exchange, ref)

    def _message_ref(self, state: GlobalState, message: Vectors) -> BlobRef:
        """Return a message's address, under which sites can fetch it from now on."""
        same = state is self._committed_state and message.x is state.algorithm.x
        if same and is_model(self.layout, message):  # most often, and then nothing need be done
            return self._model
        return self._placed(encode(to_message(self.layout, message)))

    def _placed(self, message: tuple[bytes, memoryview]) -> BlobRef:
        """Put a message where sites can fetch it; the committed model is there already.

        Another run's model may be equal, but it goes when that run no longer needs it.
        """
        digest, size = digest_of(*message), sum(len(part) for part in message)
        if digest != self._model.digest:
            self._stores.messages.put(self.run, digest, message)
            self._messages = [d for d in self._messages if d != digest] + [digest]
            self._old_messages = [d for d in self._old_messages if d != digest]
        return BlobRef(digest=digest, size=size)

    def _performed(self, opening: Opening, evaluated: GlobalState | None = None) -> tuple[str, ...]:
        """Hand out the tasks, wait for the end, and make the closing durable."""
        ask, began = opening.open.ask, monotonic()
        key = TaskKey(run=self.run, round=ask.number, phase=ask.phase)
        self._open = opening.open
        try:
            self._check_going()
            with self._hub.opened(opening.open, Task(key=key, message=opening.message)):
                self._forget()  # while sites are at work
                if evaluated is not None:
                    self._model_facts = model_facts(to_files(self.layout, evaluated)[0])
                accepted = opening.open.wait()
                hit("before_round_closed")
                closed = any(
                    e["kind"] == "closed" and e["round"] == ask.number and e["phase"] == ask.phase
                    for e in self._past
                )
                if not closed:
                    fact = {"round": ask.number, "phase": ask.phase, "accepted": list(accepted)}
                    self._note_closed({"kind": "closed", **fact}, opening.open)
                hit("after_round_closed")
        finally:
            self._open = None
        if not ask.questions:  # of those there may be very many in a round
            self.spans.note("exchange", began, phase=ask.phase, clients=len(ask.cohort))
        self._used |= opening.open.digests if ask.spec or ask.questions else set()
        return accepted

    def _note_closed(self, fact: Event, exchange: Exchange) -> None:
        """Make a closing durable where the results alone would not close the round again.

        When everybody has answered they would, so the fact can wait for the commit.
        """
        self._closings.append(fact)
        if any(s is ClientStatus.LEFT_OUT for s in exchange.state.clients.values()):
            self._journal.record(self.run, *self._closings)
            self._closings.clear()

    def _limit(
        self, number: int, cohort: Sequence[str], terms: Terms, steps: Mapping[str, int]
    ) -> float:
        """Return what the weights cannot exceed; sites have said how many examples they hold."""
        said = self._gathering.said or self._journal.standings(self.run)
        known = [said[s].examples for s in self._roster if s in said]
        examples = sum(known) if len(known) == len(self._roster) and all(known) else None
        plan, algorithm = self._plan, self._method.algorithm
        # Who is mandatory is waited for, however many others have answered.
        clients = len(cohort) if terms.mandatory else terms.goal or len(cohort)
        asked = sum(steps.values())
        return weight_limit(
            plan, algorithm, number, clients=clients, examples=examples, steps=asked
        )

    def _most(self, number: int, steps: Mapping[str, int]) -> dict[str, float]:
        """Return what the weight of each site's update cannot exceed, by the site's own word."""
        cohort = msgspec.structs.replace(self._plan.cohort, late="refuse")
        plan, algorithm = msgspec.structs.replace(self._plan, cohort=cohort), self._method.algorithm
        said = self._gathering.said or self._journal.standings(self.run)
        return {
            site: weight_limit(
                plan,
                algorithm,
                number,
                clients=1,
                examples=word.examples or None,
                steps=steps.get(site, 0),
            )
            for site, word in said.items()
        }

    def _problems(self, exchange: Exchange) -> list[Problem]:
        """Log who dropped out at once: the round may never be committed."""
        problems = exchange.problems()
        facts = [
            {**p._asdict(), "kind": "problem", "what": p.kind, "phase": exchange.ask.phase}
            for p in problems
        ]
        if facts:
            self._journal.record(self.run, *facts)
        return problems

    def _forget(self) -> None:
        """Remove updates and messages that only the last committed round needed."""
        if not self._forgetting:
            return
        self._forgetting = False
        # Of rounds for which a site may still be late, only what has counted goes.
        last = self.committed - self.late_rounds
        self._stores.updates.forget(self.run, up_to=last)
        for number in range(max(1, last + 1), self.committed + 1):
            self._stores.updates.remove(self.run, number, self._used)
        self._used.clear()
        self._stores.messages.drop(self.run, self._old_messages)
        self._old_messages.clear()
        hit("after_updates_removed")
