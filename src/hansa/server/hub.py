"""Where sites' polls and the runs' threads meet: who is there, what is open, who must be woken.

Everything here is made anew when a server starts; what must last is in the journal.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec

from hansa.clock import monotonic
from hansa.errors import HansaError
from hansa.limits import (
    CLOSED_EXCHANGES_KEPT,
    COMBINER_SITES_MAX,
    HEARTBEATS_MISSED,
    OFFERS_BYTES_MAX,
    SITES_PER_HEARTBEAT_SECOND,
)
from hansa.protocol.messages import (
    Committed,
    Fold,
    Offer,
    Phase,
    Poll,
    PollAnswer,
    Standing,
    Task,
    TaskKey,
    TaskResult,
)
from hansa.rounds.round import Status
from hansa.server.bells import Bell, Bells
from hansa.server.merging import MergingExchange
from hansa.server.through import Through
from hansa.spans import Spans

log = logging.getLogger("hansa.server")


class OpenTask(NamedTuple):
    """An exchange that is going on, with the message of its tasks."""

    exchange: MergingExchange
    task: Task


class ActiveRun(Protocol):
    """A run that sites may take part in."""

    run: str
    offer: Offer
    committed: int  # the last committed round
    spans: Spans  # of the round that is going on

    @property
    def late_rounds(self) -> int:
        """How many rounds late an update may be."""

    def settled(self, site: str) -> int:
        """Return the last round whose update a site need not keep any longer."""

    def is_to_come(self, number: int, phase: Phase) -> bool:
        """Return whether an exchange may be opened in a moment."""

    @property
    def gathering(self) -> Standings:
        """How sites stand in the run."""


class Standings(Protocol):
    """How sites stand in a run."""

    def standings(self) -> Mapping[str, Standing]:
        """Return what sites have said last."""

    def is_short(self) -> bool:
        """Return whether no round could begin with the sites that are ready now."""


class Said(NamedTuple):
    """What a site says of itself with each poll, as its owner has declared it."""

    attributes: Mapping[str, str] = MappingProxyType({})
    slots: Mapping[str, int] = MappingProxyType({})  # what it can lend to runs


NOTHING = Said()


class Presence(NamedTuple):
    """When a site was last heard of, and whether it counts as lost since."""

    heard: float
    online: bool
    version: str
    said: Said = NOTHING


class Hub:
    """The live state of a server; thread-safe.

    Args:
      heartbeat_s: how often a site is heard of, unless there are very many.
    """

    def __init__(self, heartbeat_s: float) -> None:
        self._heartbeat_s = heartbeat_s
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._presence: dict[str, Presence] = {}
        self._through = Through()
        self._runs: dict[str, ActiveRun] = {}
        self._offer_bytes: dict[str, int] = {}  # of the runs
        self._expected: set[str] = set()  # unfinished runs that are not offered yet
        self._open: dict[tuple[str, int, Phase], OpenTask] = {}
        self._polls, self._followers = Bells(), Bells()
        self._counted: dict[tuple[str, int, Phase], frozenset[str]] = {}  # of exchanges just closed
        self._closed: dict[str, tuple[int, set[Phase]]] = {}  # by run, of its last round
        self._began = monotonic()
        self._stirred: Counter[str] = Counter()  # by run; "" counts for all
        self.draining = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the event loop in which polls wait."""
        self._polls.attach(loop)
        self._followers.attach(loop)

    # ---- presence

    @property
    def heartbeat_s(self) -> float:
        """Return the present heartbeat; it grows with the number of sites."""
        polling = len(self._presence) - self._through.clients  # combiners poll for theirs
        return max(self._heartbeat_s, polling / SITES_PER_HEARTBEAT_SECOND)

    def heard(self, site: str, version: str = "", said: Said = NOTHING) -> None:
        """Note that a site is there, and what it says of itself."""
        with self._lock:
            before = self._presence.get(site)
            self._presence[site] = Presence(monotonic(), True, version, said)
            back = before is None or not before.online
            affected = self._exchanges_of(site) if back else []
        self._tell((exchange, site) for exchange in affected)
        if before is None or not before.online or before.said != said:
            self.stir()

    def relayed(self, combiner: str, sites: Collection[str], *, members: Collection[str],
                version: str) -> list[str]:  # fmt: skip
        """Note who is there behind a combiner, by its word; return names that it cannot have.

        Args:
          combiner: that has just been heard of.
          sites: those that are there.
          members: of these, the names of members of this server.
          version: of the combiner.
        """
        with self._lock:
            self._through.meet(combiner)
            mine = [
                name
                for name in sites
                if name not in members and self._through.claim(combiner, name, there=self._is_there)
            ]
            gone = [s for s in self._through.behind(combiner) - set(mine) if self._is_there(s)]
            for site in gone:
                self._presence[site] = self._presence[site]._replace(online=False)
            affected = [(e, s) for s in gone for e in self._exchanges_of(s)]
            self._forget_gone(combiner, mine)
        for site in mine:
            if not self.touch(site):
                self.heard(site, version)
        self._tell(affected)
        if gone:
            self.stir()
        return sorted(set(sites) - set(mine))

    def _forget_gone(self, combiner: str, there: Collection[str]) -> None:
        """Forget clients that are not there, where a combiner has named more than it can have."""
        behind = self._through.behind(combiner)
        if len(behind) > COMBINER_SITES_MAX:
            for name in behind.difference(there):
                if not self._exchanges_of(name):
                    self._through.drop(name)
                    self._presence.pop(name, None)

    def comes_itself(self, site: str) -> None:
        """A site that is a member of this server is behind no combiner, whatever that says."""
        with self._lock:
            self._through.drop(site)

    def behind(self, combiner: str) -> set[str]:
        """Return the clients that a combiner speaks for."""
        with self._lock:
            return self._through.behind(combiner)

    def via(self, client: str) -> str | None:
        """Return the combiner that a client stands behind; None if it comes by itself."""
        with self._lock:
            return self._through.via(client)

    def vias(self, clients: Collection[str]) -> dict[str, str]:
        """Return the combiners of those of some clients that have one."""
        with self._lock:
            found = {client: self._through.via(client) for client in clients}
        return {client: combiner for client, combiner in found.items() if combiner is not None}

    def remember(self, vias: Mapping[str, str]) -> None:
        """Know again, after a start, which combiners the clients of an open round stand behind."""
        with self._lock:
            for client, combiner in vias.items():
                if self._through.via(client) is None:
                    self._through.meet(combiner)
                    self._through.claim(combiner, client, there=self._is_there)

    def receivers(self, clients: Collection[str]) -> int:
        """Return how many there are to speak to in order to reach some clients."""
        with self._lock:
            return len({self._through.reach(client) for client in clients})

    def clients(self) -> dict[str, Presence]:
        """Return all heard of that can be asked to train: sites, and those behind combiners."""
        with self._lock:
            combiners = set(self._through.combiners)
            return {name: p for name, p in self._presence.items() if name not in combiners}

    def _is_there(self, name: str) -> bool:
        known = self._presence.get(name)
        return known is not None and known.online

    def touch(self, site: str, said: Said = NOTHING) -> bool:
        """Note that a site is still there; False if it was not, or says something else."""
        with self._lock:
            known = self._presence.get(site)
            if known is None or not known.online or not known.version or known.said != said:
                return False
            self._presence[site] = known._replace(heard=monotonic())
            return True

    def overdue(self) -> float:
        """Mark silent sites as lost; return in how many seconds the next one could be."""
        with self._lock:
            # A little less than two, so that it is noticed within them.
            limit, at = HEARTBEATS_MISSED * self.heartbeat_s, monotonic()
            online = {s: p for s, p in self._presence.items() if p.online}
            silent = [s for s, p in online.items() if at - p.heard > limit]
            for site in silent:
                self._presence[site] = self._presence[site]._replace(online=False)
            affected = [(e, s) for s in silent for e in self._exchanges_of(s)]
            oldest = min((p.heard for s, p in online.items() if s not in silent), default=at)
        self._tell(affected)
        if silent:
            self.stir()
        return max(0.05, oldest + limit - at)

    def coming_back_s(self) -> float:
        """Return how much longer sites may need to come back after a start of the server."""
        return max(0.0, self._began + 2 * self.heartbeat_s - monotonic())

    def online(self) -> dict[str, Presence]:
        """Return all sites heard of since the server started."""
        with self._lock:
            return dict(self._presence)

    def forget(self, site: str) -> None:
        """A site is revoked: nothing is waited for from it any more, and its poll ends."""
        with self._lock:
            names = {site} | self._through.behind(site)
            for name in names & self._presence.keys():  # away: nobody waits for its return
                self._presence[name] = self._presence[name]._replace(online=False)
            affected = [(exchange, name) for name in names for exchange in self._exchanges_of(name)]
        for exchange, name in affected:
            try:
                _give_up(exchange, name, f"{site} is no member any more: it was revoked")
            except (HansaError, OSError) as error:  # it has failed all the same
                log.error("%s is revoked, which could not be recorded: %s", site, error)
        self._tell(affected)  # after its reason
        self.wake([site])
        self.stir()

    def _tell(self, affected: Iterable[tuple[MergingExchange, str]]) -> None:
        """Tell every exchange whether a site is there; a disk that fails stops none of it.

        A site may come or go between the look and the word, and whoever notes that may be heard
        first: so whoever has told looks again.
        """
        for exchange, site in affected:
            told = None
            while told is not (there := self._is_online(site)):
                told = there
                try:
                    (exchange.returned if there else exchange.lost)(site)
                except (HansaError, OSError) as error:  # it counts all the same, without a note
                    word = "there" if there else "lost"
                    log.error("%s counts as %s, which could not be recorded: %s", site, word, error)

    def _is_online(self, site: str) -> bool:
        with self._lock:
            return self._is_there(site)

    def _exchanges_of(self, site: str) -> list[MergingExchange]:
        found = [task.exchange for task in self._open.values()]
        return [e for e in found if site in e.state.clients]

    # ---- runs and their exchanges

    def expect(self, runs: list[str]) -> None:
        """Some runs go on in a moment; until then no site is told that they are over."""
        with self._lock:
            self._expected.update(runs)

    def activate(self, run: ActiveRun) -> None:
        """Offer a run to all sites."""
        size = len(msgspec.json.encode(run.offer))
        with self._lock:
            self._runs[run.run], self._offer_bytes[run.run] = run, size
        self.wake()

    def deactivate(self, run: str) -> None:
        """A run is over, or leaves with the server."""
        with self._lock:
            self._runs.pop(run, None)
            self._offer_bytes.pop(run, None)
            self._expected.discard(run)
            self._stirred.pop(run, None)
            self._closed.pop(run, None)
        self.wake()

    @contextmanager
    def opened(self, exchange: MergingExchange, task: Task) -> Iterator[None]:
        """Hand out an exchange's tasks as long as the block lasts."""
        key = (task.key.run, task.key.round, task.key.phase)
        with self._lock:
            self._open[key] = OpenTask(exchange, task)
            self._counted.pop(key, None)
            self._closed_in(*key[:2]).discard(key[2])
            cohort = list(exchange.state.clients)
            for site in cohort:
                # Who was asked before a restart counts as heard of when the server started.
                self._presence.setdefault(site, Presence(self._began, True, ""))
            away = [s for s in cohort if not self._presence[s].online]
            active = self._runs.get(key[0])
        try:
            said = {} if active is None else active.gathering.standings()
            for site in cohort:  # who has changed its mind since they were chosen
                if site in said and said[site].state != "ready":
                    self._stands(exchange, active, site, said[site])
            # After that, or a round that waits for the lost alone closes before it knows why.
            self._tell((exchange, site) for site in away)
            self.wake(cohort)
            yield
        finally:
            with self._lock:
                del self._open[key]
                if exchange.state.status is not Status.OPEN:  # or it will be opened again
                    for number, clients in exchange.counted().items():
                        where = (key[0], number, key[2])
                        self._counted[where] = self._counted.get(where, frozenset()) | clients
                    self._closed_in(*key[:2]).add(key[2])
                while len(self._counted) > CLOSED_EXCHANGES_KEPT:
                    self._counted.pop(next(iter(self._counted)))
                counted = exchange.state.digests
            # Whose result counts need not be told to drop the task.
            self.wake([site for site in cohort if site not in counted])

    def exchange(self, run: str, number: int, phase: str) -> MergingExchange | None:
        """Return an open exchange."""
        with self._lock:
            found = next((t for k, t in self._open.items() if k == (run, number, phase)), None)
        return found.exchange if found else None

    def is_asked(self, run: str, number: int, site: str) -> bool:
        """Tell whether a site is to answer a named task in a round."""
        with self._lock:
            open_tasks = [t for k, t in self._open.items() if k[:2] == (run, number)]
        return any(t.exchange.ask.questions and t.exchange.waits_for(site) for t in open_tasks)

    def spans(self, run: str) -> Spans | None:
        """Return where the times of a run's open round are noted."""
        with self._lock:
            active = self._runs.get(run)
        return None if active is None else active.spans

    def tasks_of(self, site: str) -> list[OpenTask]:
        """Return what is wanted of a site at this moment."""
        with self._lock:
            tasks = list(self._open.values())
        return [t for t in tasks if t.exchange.waits_for(site)]

    # ---- long polls

    def answer(self, site: str, poll: Poll) -> PollAnswer:
        """Return all that a site does not know yet."""
        with self._lock:
            runs, known = dict(self._runs), self._runs.keys() | self._expected
            combiner = site in self._through.combiners
        tasks = self._folds(site, poll) if combiner else []
        for open_task in self.tasks_of(site):
            if open_task.task.key not in poll.holding:
                wanted = open_task.exchange.waits_for(site)
                task = open_task.task
                ask = open_task.exchange.ask
                told = {
                    "attempt": wanted or 1,
                    "steps": ask.steps.get(site),
                    "settings": dict(ask.settings),
                    "message": ask.questions.get(site, task.message),
                }
                tasks.append(msgspec.structs.replace(task, **told))
                if not self.draining and not ask.questions and task.key.run in runs:
                    runs[task.key.run].spans.handed(task.key.phase, site)
        held = () if self.draining else poll.holding
        cancelled = [key for key in held if not self._wants(site, key)]
        return PollAnswer(
            offers=[] if self.draining else self._offers(poll),
            tasks=[] if self.draining else tasks,
            cancelled=cancelled,
            committed=[
                Committed(run=name, round=runs[name].settled(site))
                for name in poll.runs
                if name in runs
            ],
            ended=[] if self.draining else [name for name in poll.runs if name not in known],
            again_s=1.0 if self.draining else 0.0,
            heartbeat_s=self.heartbeat_s,
        )

    def _folds(self, combiner: str, poll: Poll) -> list[Task]:
        """Return what is wanted of a combiner: the tasks of those behind it, one for them all."""
        with self._lock:
            behind, open_tasks = self._through.behind(combiner), list(self._open.values())
        tasks = []
        for exchange, task in open_tasks:
            if task.key in poll.holding:
                continue
            wanted = {c: exchange.waits_for(c) for c in exchange.state.clients if c in behind}
            clients = sorted(client for client, again in wanted.items() if again)
            if clients:
                ask = exchange.ask
                fold = Fold(
                    clients=clients,
                    weight_limit=1.0 if ask.spec is None else ask.spec.weight_limit,
                    seconds=exchange.seconds_left,
                    minimum=exchange.needed_of(clients),
                    most={c: ask.most[c] for c in clients if c in ask.most},
                    steps={c: ask.steps[c] for c in clients if c in ask.steps},
                )
                attempt = max(wanted.values())
                tasks.append(msgspec.structs.replace(task, attempt=attempt, fold=fold))
        return tasks

    def _offers(self, poll: Poll) -> list[Offer]:
        """Return what a site does not know: at least one, and no more than an answer can hold."""
        known, size = set(poll.runs), 0
        found: list[Offer] = []
        with self._lock:
            for name, run in self._runs.items():
                if name not in known:
                    size += self._offer_bytes[name]
                    if found and size > OFFERS_BYTES_MAX:
                        break
                    found.append(run.offer)
        return found

    def _wants(self, site: str, key: TaskKey) -> bool:
        exchange = self.exchange(key.run, key.round, key.phase)
        with self._lock:
            names = {site} | self._through.behind(site)
        if exchange is not None:
            # One that has answered knows so, or will when its receipt comes.
            asked = names & exchange.state.clients.keys()
            return any(exchange.waits_for(n) or n in exchange.state.digests for n in asked)
        if self.is_to_come(key.run, key.round, key.phase):
            return True
        with self._lock:
            run = self._runs.get(key.run)
            if not names.isdisjoint(self._counted.get((key.run, key.round, key.phase), ())):
                return True
        late = 0 if run is None or key.phase != "train" else run.late_rounds
        return run is not None and late > 0 and 0 <= run.committed + 1 - key.round <= late

    def is_to_come(self, run: str, number: int, phase: Phase) -> bool:
        """Tell whether an exchange that is not open may be opened again, as after a restart."""
        with self._lock:
            active = self._runs.get(run)
            if active is None:
                return run in self._expected
            if (run, number, phase) in self._counted or not active.is_to_come(number, phase):
                return False
            return phase not in self._closed_in(run, number)

    def is_settling(self, run: str, number: int, phase: Phase, member: str) -> bool:
        """Tell whether a member's result was counted in an exchange of a run that goes on.

        If it has no receipt yet it will have one, or the exchange will be opened again.
        """
        with self._lock:
            names = {member} | self._through.behind(member)
            counted = self._counted.get((run, number, phase), ())
            return run in self._runs and not names.isdisjoint(counted)

    def _closed_in(self, run: str, number: int) -> set[Phase]:
        """Return the exchanges that a run's last round has had: it may have very many."""
        if self._closed.get(run, (0,))[0] != number:
            self._closed[run] = (number, set())
        return self._closed[run][1]

    def stands(self, run: str, site: str, standing: Standing) -> None:
        """A site says how it stands in a run, which has been recorded.

        Nothing is waited for from one that does not take part any more.  One whose owner has to
        decide is held back if the run cannot do without it, as it would be before a round.
        """
        with self._lock:
            exchanges = [t.exchange for (name, _, _), t in self._open.items() if name == run]
            active = self._runs.get(run)
        for exchange in exchanges:
            self._stands(exchange, active, site, standing)
        if exchanges and standing.state == "ready":
            self.wake([site])

    def held_up(self, run: str) -> str:
        """Say whom a run's open rounds wait for who cannot answer now; empty if nobody."""
        with self._lock:
            exchanges = [t.exchange for (name, _, _), t in self._open.items() if name == run]
        told = (exchange.dropouts.held_up(exchange.state) for exchange in exchanges)
        return "; ".join(filter(None, told))

    def _stands(
        self, exchange: MergingExchange, active: ActiveRun | None, site: str, standing: Standing
    ) -> None:
        if standing.state == "ready":
            exchange.readmit(site)
        elif standing.state == "waiting" and active is not None and active.gathering.is_short():
            exchange.withhold(site, standing.reason)
        else:
            _give_up(exchange, site, standing.reason)

    def waiting(self, site: str) -> Bell:
        """Give a bell that is rung whenever something may have changed for a site."""
        return Bell(self._polls, site)

    def following(self, run: str) -> Bell:
        """Give a bell that is rung when a run has new events."""
        return Bell(self._followers, run)

    def wake(self, sites: list[str] | None = None) -> None:
        """Let polls look again: those of some sites, or all."""
        with self._lock:
            names = None if sites is None else set(map(self._through.reach, sites))
        self._polls.ring(names)

    def wake_followers(self, run: str) -> None:
        """Let those who follow a run look again, and the run itself."""
        self._followers.ring([run])
        self.stir(run)

    def drain(self) -> None:
        """Answer every poll at once from now on, with nothing new to do."""
        with self._lock:
            self.draining = True
        self._polls.ring()
        self._followers.ring()
        self.stir()

    # ---- run threads

    def stir(self, run: str = "") -> None:
        """Let run threads look again who is there, or one alone what has become of its run."""
        with self._changed:
            self._stirred[run] += 1
            self._changed.notify_all()

    def stirred(self, run: str, since: int, seconds: float) -> int:
        """Wait in a run's thread until something changes after `since`; return the present mark.

        Without a run, whatever changes counts.
        """

        def mark() -> int:
            return self._stirred[""] + self._stirred[run] if run else self._stirred.total()

        with self._changed:
            self._changed.wait_for(lambda: mark() != since, seconds)
            return mark()


def _give_up(exchange: MergingExchange, site: str, reason: str) -> None:
    """Wait for nothing of a site any more, whatever comes."""
    exchange.readmit(site)
    if exchange.waits_for(site):
        exchange.answer(site, TaskResult(state="failed", code="site-cancelled", reason=reason))
