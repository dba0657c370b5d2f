"""The deployed federation: the handle of `hansa.workflows`, over real sites and a journal.

Its methods never await: a run has a thread of its own, which waits for sites here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from hansa.aggregators.aggregator import Vector
from hansa.clock import monotonic
from hansa.failpoints import hit
from hansa.metrics import Metrics
from hansa.params import Params
from hansa.plan import Method, Plan
from hansa.protocol.messages import (
    BlobRef,
    Offer,
    Phase,
    Receipt,
    Standing,
    Task,
    TaskKey,
    TaskResult,
)
from hansa.rounds.questions import asking, once
from hansa.rounds.round import ClientStatus, Terms
from hansa.server.asks import Asks
from hansa.server.exchange import Desk, Exchange, Interrupted
from hansa.server.following import Following
from hansa.server.gathering import Gathering, Needs
from hansa.server.hub import Hub
from hansa.server.journal import Event, Journal, RunRow
from hansa.server.keeping import Keeping
from hansa.server.merging import MergingExchange
from hansa.server.openings import Opening, answered, open_asking, opened_in, roster_of
from hansa.server.overlapping import TERMS, Overlapping
from hansa.server.places import Places
from hansa.server.results import few
from hansa.server.round_files import Stores
from hansa.server.run_models import RunModels, layout_of
from hansa.server.sums import Ask
from hansa.spans import Spans, memory_kb
from hansa.store.client_states import ClientStates
from hansa.workflows import (
    ANYBODY,
    NO_SETTINGS,
    Answered,
    Arrived,
    AtWork,
    Commit,
    Evaluated,
    GlobalState,
    Problem,
    Trained,
    problem_events,
)
from hansa.workflows.state_files import as_stored, rounded


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
        self.gathering = Gathering(
            row, needs, hub=hub, journal=desk.journal, places=places, gather_s=pace.gather_s
        )
        submission = row.submission
        self.layout = layout_of(submission, stores.blobs)
        self.offer = Offer(
            run=row.run,
            identity=submission.identity,
            plan=submission.plan,
            package=submission.package,
            tensors=submission.tensors,
            buffers=submission.buffers,
            constants=submission.constants,
            submitter=row.submitter,
            certificate=submission.certificate,
            signature=submission.signature,
            purpose=submission.purpose,
        )
        self.committed = 0
        self._began, self._before = monotonic(), 0.0
        self._open: Exchange | None = None
        self._stopped, self._left = "", False
        self._past: list[Event] = []  # of this round, from before the last start
        self._roster: list[str] = []
        self._closings: list[Event] = []  # not yet durable
        self._noted: set[Problem] = set()  # of this round, already among its events
        self._performing: Exchange | None = None  # the last, whose results may not be durable
        self._following = Following(f"hansa-commit-{row.run}", hub.stir)
        self._forgetting = False  # what the last committed round needed is still there
        self._used: set[str] = set()  # digests of this round's updates
        self._spill = ClientStates(stores.spill / row.run)
        self._asked: frozenset[tuple[int, str]] = frozenset()  # rounds and named tasks
        self._keeping = Keeping(
            row.run, plan, stores, layout=self.layout, transform=method.transform
        )
        self.spans = Spans()
        self._models = RunModels(
            row.run,
            self.layout,
            method.algorithm,
            stores=stores,
            journal=desk.journal,
            keeping=self._keeping,
            spans=self.spans,
        )
        self._asks = Asks(
            row.run,
            plan,
            method,
            deadline_s=plan.cohort.deadline_s or pace.deadline_s,
            spans=self.spans,
        )
        self._overlapping = Overlapping(hub, desk, self._spill)
        self._at_work: dict[str, int] = {}  # round in which each was asked whose update may come

    def look(self) -> int:
        """Find out how far the run is; return the round that comes next, 0 if there is none."""
        event, self._past = self._journal.since_commit(self.run)
        self.committed, self._at_work = event["round"], event.get("at_work", {})
        return 0 if event["progress"].get("ended") else self.committed + 1

    # ---- the handle

    def resume(self) -> Commit:
        """Return the last commit, read back from the journal and its model file."""
        self._following.settle()
        event, self._past = self._journal.since_commit(self.run)
        state = self._models.resume(event)
        self.committed, self._before = event["round"], event["elapsed"]
        self._at_work = event.get("at_work", {})
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
            self._roster = self.gathering.again(opened["clients"], self._check_going)
        else:
            self._roster = self.gathering.roster(round_number, self._check_going)
        return self._roster

    def recall(self, round_number: int) -> GlobalState:
        """Return a model that was kept, read back from its file."""
        self._following.settle()
        return self._models.recall(round_number)

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

    async def arrivals(
        self,
        round_number: int,
        state: GlobalState,
        cohort: Sequence[str],
        *,
        at_work: Mapping[str, AtWork],
        count: int,
    ) -> Arrived:
        """Have a cohort begin, and wait for the next updates of all that are at work."""
        self._check_going()
        self._begin_again(at_work)
        self._models.use(round_number - 1)
        opened = opened_in(self._past, round_number, "train")
        cohort = cohort if opened is None else opened["cohort"]
        if cohort and round_number not in self._overlapping.rounds():
            self._begin(round_number, state, cohort)
        self._at_work = {c: w.round for c, w in at_work.items()} | {c: round_number for c in cohort}
        self._forget()  # while sites are at work
        self._overlapping.wait(count, self._check_going)
        hit("before_round_closed")
        evaluated = opened_in(self._past, round_number, "evaluate")
        taken = self._overlapping.take(count, evaluated)
        problems = self._overlapping.problems()
        self._note_problems(problems, "train")
        return Arrived(
            taken.updates,
            self._overlapping.at_work(),
            few(taken.metrics),
            problems,
            bytes_down=len(cohort) * self._models.last.size,
            bytes_up=taken.bytes_up,
        )

    def hold(self, client: str, number: int, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors among the server's models."""
        self._models.hold(client, number, vectors)

    def held(self, client: str, number: int) -> Mapping[str, Vector]:
        """Return what was held."""
        return self._models.held(client, number)

    def stored(self, state: GlobalState) -> GlobalState:
        """Return a state as it is once it has been committed and read back."""
        return as_stored(self.layout, state)

    async def evaluate(
        self, round_number: int, state: GlobalState, clients: Sequence[str]
    ) -> Evaluated:
        """Have sites evaluate on their validation parts."""
        if not clients:
            return Evaluated({}, [])
        if self._overlapping.at_work().keys() & set(clients):
            self._overlapping.end("the model is evaluated")
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
        plain = self._asks.plain(asked.number, asked.phase, clients, terms)
        opening = open_asking(
            asked,
            plain,
            self._desk,
            stores=self._stores,
            past=self._past,
            roster=self._roster,
            begin=self._begin_with,
        )
        self._performed(opening)
        return answered(opening, self._stores, problems=self._problems(opening.open))

    async def test(self, round_number: int, state: GlobalState) -> Metrics:
        """Return nothing: a server holds no data."""
        return {}

    async def commit(self, commit: Commit, problems: Sequence[Problem]) -> None:
        """Make a round durable, then forget what only this round needed."""
        hit("before_model_written")
        own = [problem for problem in problems if problem not in self._noted]  # the workflow's
        closings, self._closings = [*self._closings, *problem_events(own, "round")], []
        durable = self._models.record(
            commit, closings, elapsed=self.elapsed(), settle=self._settle_results
        )
        at_work = {client: work.round for client, work in commit.at_work.items()}
        self._following.then(lambda: self._committed(commit.round, at_work, durable))
        if at_work or self._overlapping.rounds():  # exchanges are closed by what is committed
            self._following.settle()
        self._used |= self._overlapping.digests
        self._overlapping.settle()
        self._past, self._asked, self._noted = [], frozenset(), set()
        if not self._method.aggregator.streaming:
            self._spill.clear()
        self._models.outdate()
        self._forgetting = True

    def _committed(self, number: int, at_work: dict[str, int], durable: Callable[[], None]) -> None:
        """Make a commit durable, then let it be known; while the next round begins."""
        durable()
        hit("after_round_committed")
        self._at_work = at_work
        self.committed = number

    def _settle_results(self) -> None:
        """See that all results so far are durable."""
        if self._performing is not None:
            self._performing.settle()
            self._performing = None

    # ---- what the server tells a run

    def stop(self, reason: str) -> None:
        """Let the run end; its thread is woken wherever it waits."""
        self._stopped = reason
        if self._open is not None:
            self._open.stop(reason)
        self._overlapping.leave()
        self._hub.stir()

    def leave(self) -> None:
        """Let the run's thread go; the run goes on when the server is back."""
        self._left = True
        if self._open is not None:
            self._open.leave()
        self._overlapping.leave()
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

    def settled(self, site: str) -> int:
        """Return the last round whose update a site need not keep any longer (law L5)."""
        kept = self.committed - self.late_rounds  # what is late may still be sent
        return max(0, min(kept, self._at_work.get(site, self.committed + 1) - 1))

    def is_to_come(self, number: int, phase: Phase) -> bool:
        """Return whether an exchange may be opened in a moment, as after a restart."""
        overlapping = phase == "train" and number in self._at_work.values()
        return number == self.committed + 1 or overlapping

    def close(self) -> None:
        """Hand out no tasks any more, and wait until the last commit is durable.

        Raises:
          what `commit` would have raised, had it waited: it goes before what came of the rest.
        """
        self._overlapping.close()
        try:
            self._following.close()
            self._settle_results()  # what was computed with has its receipt, however a run ends
        finally:
            self._models.close()

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
        return self._asks.update_bytes

    # ---- inside

    def _is_going(self) -> bool:
        return not (self._stopped or self._left or self._hub.draining)

    def _check_going(self) -> None:
        if not self._is_going():
            raise Interrupted
        self._following.check()

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
        ask, ref, begun = self._begun(
            number, phase, state, cohort=cohort, terms=terms, steps=steps, settings=settings
        )
        past = [e for e in self._past if e.get("round") == number and e.get("phase") == phase]
        exchange = MergingExchange(ask, self._desk, spill=self._spill, past=past, begun=begun)
        return Opening(exchange, ref)

    def _begun(
        self,
        number: int,
        phase: Phase,
        state: GlobalState,
        *,
        cohort: Sequence[str],
        terms: Terms,
        steps: Mapping[str, int],
        settings: Mapping[str, Any] = NO_SETTINGS,
    ) -> tuple[Ask, BlobRef, Future[None] | None]:
        """Note that an exchange begins, unless it did before a crash; return what is asked."""
        self._check_going()
        self.spans.open(number)
        message = self._asks.message(state)
        ref = self._models.message_ref(state, message)
        opened, begun = opened_in(self._past, number, phase), None
        if opened is None:
            hit("before_round_opened")
            opened = {
                "kind": "opened",
                "round": number,
                "phase": phase,
                "cohort": list(cohort),
                "clients": self._roster,
                "weight_limit": self._asks.room(
                    number, cohort, terms, roster=self._roster, said=self._words(), steps=steps
                ),
                "goal": terms.goal,
                "message": ref.digest,
            }
            told = {
                "steps": dict(steps),
                "settings": dict(settings),
                "vias": self._hub.vias(cohort),
                "used": [*self._overlapping.used] if phase == "evaluate" else [],
            }
            opened |= {name: value for name, value in told.items() if value}
            begun = self._begin_with(opened)
            hit("after_round_opened")
        self._hub.remember(opened.get("vias", {}))
        ask = self._asks.of(opened, message, terms=terms, said=self._words())
        return ask, ref, begun

    def _begin_with(self, opened: Event) -> Future[None]:
        """Record the beginning of an exchange, once the round before is durable."""
        return self._following.then(lambda: self._journal.begin(self.run, opened).result())

    def _words(self) -> Mapping[str, Standing]:
        return self.gathering.said or self.gathering.standings()

    # ---- rounds that overlap

    def _begin(self, number: int, state: GlobalState, cohort: Sequence[str]) -> None:
        """Have a cohort begin; some have done so before a crash."""
        ask, ref, begun = self._begun(number, "train", state, cohort=cohort, terms=TERMS, steps={})
        past = [e for e in self._past if e.get("round") == number and e.get("phase") == "train"]
        self._overlapping.open(ask, ref, past=past, begun=begun)

    def _begin_again(self, at_work: Mapping[str, AtWork]) -> None:
        """After a restart, go on waiting for those who were asked in rounds that are committed."""
        rounds = {work.round for work in at_work.values()} - set(self._overlapping.rounds())
        if not rounds:
            return
        results = self._journal.all_events(self.run, "result")
        for opened in self._journal.all_events(self.run, "opened"):
            number = opened["round"]
            if number not in rounds or opened["phase"] != "train":
                continue
            mine = [c for c in opened["cohort"] if c in at_work and at_work[c].round == number]
            past = [e for e in results if e["round"] == number and e["phase"] == "train"]
            past = [e for e in past if e["client"] in mine]
            message = self._asks.message(self.recall(number - 1))
            opened = {**opened, "cohort": mine}
            ask = self._asks.of(opened, message, terms=TERMS, said=self._words())
            self._overlapping.open(ask, self._models.of(number - 1), past=past)

    def _performed(self, opening: Opening, evaluated: GlobalState | None = None) -> tuple[str, ...]:
        """Hand out the tasks, wait for the end, and make the closing durable."""
        ask, began = opening.open.ask, monotonic()
        self._settle_results()
        self._performing = opening.open
        key = TaskKey(run=self.run, round=ask.number, phase=ask.phase)
        self._open = opening.open
        try:
            self._check_going()
            with self._hub.opened(opening.open, Task(key=key, message=opening.message)):
                self._forget()  # while sites are at work
                if evaluated is not None:
                    self._models.look_at(evaluated)
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
            self._following.settle()
            self._journal.record(self.run, *self._closings)
            self._closings.clear()

    def _problems(self, exchange: Exchange) -> list[Problem]:
        problems = exchange.problems()
        self._note_problems(problems, exchange.ask.phase)
        return problems

    def _note_problems(self, problems: Sequence[Problem], phase: Phase) -> None:
        """Log who dropped out at once: the round may never be committed."""
        self._noted.update(problems)
        if problems:
            self._following.settle()
            self._journal.record(self.run, *problem_events(problems, phase))

    def _forget(self) -> None:
        """Remove updates and messages that only the last committed round needed."""
        if not self._forgetting:
            return
        self._following.settle()
        self._forgetting = False
        # Of rounds for which a site may still be late, only what has counted goes.
        last = min((self.committed - self.late_rounds, *(n - 1 for n in self._at_work.values())))
        self._stores.updates.forget(self.run, up_to=last)
        for number in range(max(1, last + 1), self.committed + 1):
            self._stores.updates.remove(self.run, number, self._used)
        self._used.clear()
        self._models.forget_messages()
        hit("after_updates_removed")
