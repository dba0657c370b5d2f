"""Training exchanges that outlast the round in which they were opened, for asynchronous runs.

Each round that asks somebody opens one.  It stays open until all whom it asked have answered or
are lost, whatever rounds are committed meanwhile.  Answers are not folded where they come in: they
are handed to the run one by one, in the order in which they became durable.

    HTTP threads   answer() -> admit -> step -> journal (durable) -> kept apart -> receipt
    run thread     wait() -> take() -> its workflow -> commit -> settle()

An answer that is here when a round is committed without it is one of those at work in that commit.
After a crash it is found again by its result in the journal, which is what its receipt says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from hansa.aggregators import Aggregator, Contribution, mean
from hansa.aggregators.admission import check_spec
from hansa.clock import monotonic
from hansa.metrics import Metrics
from hansa.protocol.messages import BlobRef, Receipt, Task, TaskKey, TaskResult
from hansa.rounds.round import Deadline, Status, Terms, step
from hansa.server.exchange import Desk, Interrupted
from hansa.server.hub import Hub
from hansa.server.journal import Event
from hansa.server.merging import MergingExchange
from hansa.server.sums import Ask
from hansa.store.client_states import ClientStates
from hansa.workflows import Arrival, AtWork, Problem

TERMS = Terms(minimum=0, goal=None)
"""Such an exchange ends when all that are not settled are lost."""


class Looked(NamedTuple):
    """What an exchange is at a moment."""

    answers: dict[str, tuple[Metrics, int]]  # durable; metrics and bytes
    problems: Sequence[Problem]
    busy: set[str]  # who may still answer


class Outlasting(MergingExchange):
    """An exchange that says whenever something has changed, and is never waited for alone."""

    def __init__(
        self, ask: Ask, desk: Desk, *, spill: ClientStates, past: Sequence[Event], told: Told
    ) -> None:
        self._told, self.until = told.told, monotonic() + ask.deadline_s
        self.apart: dict[str, Contribution] = {}
        ask = ask._replace(aggregator=_apart(self.apart))
        super().__init__(ask, desk, spill=spill, past=past, begun=told.begun)

    def answer(self, client: str, result: TaskResult) -> Receipt:
        """Take a site's result; see `Exchange`."""
        try:
            return super().answer(client, result)
        finally:
            self._told()

    def lost(self, client: str) -> None:
        """A client has not been heard of."""
        super().lost(client)
        self._told()

    def withhold(self, client: str, reason: str) -> None:
        """Go on without a client whose owner has to decide: others fill the buffer meanwhile."""
        if self.waits_for(client):
            self.answer(client, TaskResult(state="failed", code="site-cancelled", reason=reason))

    def _break(self, error: BaseException) -> None:
        super()._break(error)
        self._told()

    def look(self) -> Looked:
        """Give up what can no longer come, and return what there is.

        Raises:
          Interrupted: the server ends, or the run is stopped.
        """
        with self._changed:
            if self._broken is not None:
                raise self._broken
            if self._leave:
                raise Interrupted
            if monotonic() >= self.until and not self._open_answers:
                if self.state.status is Status.OPEN:
                    self.state, _ = step(self.state, Deadline())
                self._give_up_missing()
            for client in self._missing & self._away:
                self._give_up_missing(client)
            answers = {client: self._results[client] for client in self._durable}
            problems = self.problems()
            over = answers.keys() | {problem.client for problem in problems}
            return Looked(answers, problems, set(self.state.clients) - over)


class Told(NamedTuple):
    """Whom an exchange tells of changes, and what it waits for before it records anything."""

    told: Callable[[], None]
    begun: Future[None] | None = None


class _Open(NamedTuple):
    exchange: Outlasting
    given_out: contextlib.ExitStack


class Taken(NamedTuple):
    """Answers that a round uses."""

    updates: list[Arrival]
    metrics: dict[str, Metrics]
    bytes_up: int


class Overlapping:
    """The exchanges of one run that are going on, by round; of the run's thread, but for `end`.

    Args:
      hub: hands out their tasks.
      desk: journal, updates and key.
      spill: not used by what is kept apart; exchanges want one.
    """

    def __init__(self, hub: Hub, desk: Desk, spill: ClientStates) -> None:
        self._hub, self._desk, self._spill = hub, desk, spill
        self._open: dict[int, _Open] = {}
        self._ready: list[tuple[int, str]] = []  # in order of arrival, not yet used
        self._over: dict[tuple[int, str], Problem | None] = {}  # used, or dropped out
        self._new_problems: list[Problem] = []
        self.digests: set[str] = set()  # of updates that were used since the last commit
        self.used: list[tuple[int, str]] = []  # the same, by round and client

    def rounds(self) -> Collection[int]:
        """Return the rounds whose exchanges are open."""
        return self._open.keys()

    def open(
        self,
        ask: Ask,
        message: BlobRef,
        *,
        past: Sequence[Event] = (),
        begun: Future[None] | None = None,
    ) -> None:
        """Hand out a round's tasks, until all whom it asks are settled.

        Args:
          ask: whose cohort may be those alone who are still at work after a restart.
          message: that they get.
          past: events about these clients in this round from before a crash, in order.
          begun: done once the exchange's beginning is durable.
        """
        told = Told(self._hub.stir, begun)
        exchange = Outlasting(ask, self._desk, spill=self._spill, past=past, told=told)
        key = TaskKey(run=ask.run, round=ask.number, phase=ask.phase)
        stack = contextlib.ExitStack()
        stack.enter_context(self._hub.opened(exchange, Task(key=key, message=message)))
        self._open[ask.number] = _Open(exchange, stack)

    def wait(self, count: int, going: Callable[[], None]) -> None:
        """Wait for so many answers that are not used yet, or until nobody is at work.

        Args:
          count: of answers.
          going: raises when the run shall not go on.
        """
        mark = -1
        while True:
            going()
            busy = self._look()
            if len(self._ready) >= count or not busy:
                return
            until = min(entry.exchange.until for entry in self._open.values())
            mark = self._hub.stirred("", mark, max(0.05, until - monotonic()))

    def take(self, count: int, evaluated: Event | None = None) -> Taken:
        """Return the answers that came first, and never again.

        Args:
          count: of answers.
          evaluated: what opened the evaluation of their model before a crash: it names them.
        """
        taken, ready = Taken([], {}, 0), self._ready
        before = [(number, client) for number, client in (evaluated or {}).get("used", ())]
        chosen = [answer for answer in before if answer in ready] or ready[:count]
        for number, client in chosen:
            exchange = self._open[number].exchange
            contribution = exchange.apart.pop(client)
            vectors, weight = contribution.vectors, float(contribution.weight)
            metrics, size = exchange.look().answers[client]
            taken.updates.append(Arrival(client, number, vectors, weight))
            taken.metrics[client] = metrics
            taken = taken._replace(bytes_up=taken.bytes_up + size)
            self.digests.add(exchange.state.digests[client])
            self._over[number, client] = None
        self._ready = [answer for answer in ready if answer not in chosen]
        self.used += chosen
        taken.updates.sort(key=lambda update: update.client)
        return taken

    def at_work(self) -> dict[str, AtWork]:
        """Return whose answers are not used yet, here or still to come."""
        busy = self._look()  # who has answered since the last look is now among the ready ones
        return {client: AtWork(number) for number, client in [*self._ready, *busy]}

    def problems(self) -> list[Problem]:
        """Return who has dropped out since this was last asked."""
        found, self._new_problems = self._new_problems, []
        return sorted(found, key=lambda problem: (problem.client, problem.round))

    def settle(self) -> None:
        """Close the exchanges of which nothing more will come: what was used is committed."""
        self.used.clear()
        self.digests.clear()
        for number, (exchange, given_out) in list(self._open.items()):
            if all((number, client) in self._over for client in exchange.state.clients):
                given_out.close()
                del self._open[number]
                for client in exchange.state.clients:
                    del self._over[number, client]

    def end(self, reason: str) -> None:
        """Let all stop who are at work; what has come and is not used yet counts for nothing."""
        for exchange, given_out in list(self._open.values()):
            exchange.stop(reason)
            given_out.close()
        self._open.clear()
        self._ready.clear()
        self._over.clear()

    def leave(self) -> None:
        """Let the run thread go; nothing is decided by that."""
        for exchange, _ in list(self._open.values()):
            exchange.leave()

    def close(self) -> None:
        """Hand nothing out any more; after a restart it goes on."""
        for _, given_out in self._open.values():
            given_out.close()
        self._open.clear()

    def _look(self) -> list[tuple[int, str]]:
        """Note what has come; return who may still answer, by round."""
        busy: list[tuple[int, str]] = []
        for number, (exchange, _) in self._open.items():
            looked = exchange.look()
            busy += [(number, client) for client in looked.busy]
            known = {client for r, client in self._ready if r == number}
            for client in looked.answers:
                if client not in known and (number, client) not in self._over:
                    self._ready.append((number, client))
            for problem in looked.problems:
                if (number, problem.client) not in self._over:
                    self._over[number, problem.client] = problem
                    self._new_problems.append(problem)
        return busy


def _apart(found: dict[str, Contribution]) -> Aggregator:
    """Return an aggregator that keeps contributions apart, each of which stays in its file."""

    def add(acc: None, contribution: Contribution) -> None:
        found[contribution.client] = contribution

    return mean._replace(name="apart", zero=check_spec, add=add)
