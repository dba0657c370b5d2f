"""One run at a combiner: its rounds with the sites here, folded into one partial sum each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hansa.limits import COMBINER_TIME_SHARE
from hansa.metrics.summary import finite_or_none
from hansa.params import Layout, Params
from hansa.params.model import ModelLayout
from hansa.protocol.connection import Connection
from hansa.protocol.messages import Offer, Partial, Phase, Standing, Task, TaskKey, Unable
from hansa.protocol.transfer import download
from hansa.rounds import aggregation_spec
from hansa.rounds.messages import from_message
from hansa.rounds.round import ClientStatus, Terms
from hansa.server.combining import judged
from hansa.server.exchange import Desk
from hansa.server.hub import Hub
from hansa.server.journal import Journal
from hansa.server.merging import MergingExchange
from hansa.server.round_files import Stores
from hansa.server.sums import Ask
from hansa.spans import Spans
from hansa.store.addresses import mapped
from hansa.store.client_states import ClientStates
from hansa.store.files import load_params

log = logging.getLogger("hansa.combiner")


class FoldingExchange(MergingExchange):
    """An exchange whose sum is passed on, and not finished here."""

    def total(self) -> Params | None:
        """Return the sum of what counts as a file; None where there is none."""
        return None if self._total is None or not self._results else self._total.dump()

    @property
    def weight(self) -> float:
        """Return what all that count weigh together."""
        return 0.0 if self._total is None else self._total.weight

    def unable(self) -> dict[str, Unable]:
        """Return who does not count, and why."""
        refused = ClientStatus.REFUSED
        return {
            p.client: Unable(
                code=p.code, reason=p.message, refused=self.state.clients[p.client] is refused
            )
            for p in self.problems()
        }


class Below:
    """How the sites behind a combiner stand in a run."""

    def __init__(self, journal: Journal, run: str) -> None:
        self._journal, self._run = journal, run

    def standings(self) -> Mapping[str, Standing]:
        """Return what sites have said last."""
        return self._journal.standings(self._run)

    def is_short(self) -> bool:
        """Return False: what the run cannot do without is known above."""
        return False


class CombinedRun:
    """A run of the server above, as far as the sites of this combiner have a part in it.

    Args:
      offer: as the server above gives it, with its submitter's signature.
      committed: the last round known to be committed there.
      hub: where this combiner's sites are reached.
      desk: journal, updates and key of this combiner.
      stores: its files.
      connection: to the server above.
      scratch: folder for what is being fetched.
    """

    def __init__(
        self,
        offer: Offer,
        committed: int,
        *,
        hub: Hub,
        desk: Desk,
        stores: Stores,
        connection: Connection,
        scratch: Path,
    ) -> None:
        self.run, self.offer, self.committed = offer.run, offer, committed
        self._hub, self._desk, self._stores = hub, desk, stores
        self._connection, self._scratch = connection, scratch
        self._plan, self._method, self.fault = judged(offer.plan)
        tensors = ((n, d, tuple(shape)) for n, d, shape in offer.tensors)
        self._layout = ModelLayout(Layout.of(tensors), offer.buffers, offer.constants)
        self.gathering = Below(desk.journal, offer.run)
        self._lock = threading.Lock()
        self._open: dict[TaskKey, FoldingExchange] = {}
        self._messages: dict[int, set[str]] = {}
        self.update_bytes = 0
        self.spans = Spans()  # of its own sites; nobody asks for them

    @property
    def late_rounds(self) -> int:
        """Return 0: a sum of several rounds could not be told apart."""
        return 0

    def settled(self, site: str) -> int:
        """Return the last round whose update a site need not keep any longer (law L5)."""
        return self.committed

    def is_to_come(self, number: int, phase: Phase) -> bool:
        """Return whether an exchange may be opened in a moment, as after a restart."""
        return 0 < number - self.committed <= 2  # the round before may just have been committed

    def fold(self, task: Task) -> tuple[Partial, Params | None]:
        """Have the sites do a task, and fold what they send; return what came of it.

        After a crash it goes on with what it had, for the clients that were asked then.

        Raises:
          Interrupted: nobody wants it any more, or this process ends.
        """
        assert task.fold is not None  # who speaks to a combiner says which sites
        key = task.key
        self.spans.open(key.round)
        path = self._fetched(task)
        message = from_message(self._layout, load_params(path))
        # What is committed above may be known only when the next round has begun.
        _, events = self._desk.journal.since_commit(self.run, up_to=max(0, key.round - 2))
        past = [e for e in events if (e.get("round"), e.get("phase")) == (key.round, key.phase)]
        opened = next((e for e in past if e["kind"] == "opened"), None)
        begun = None
        if opened is None:
            opened = {
                "kind": "opened",
                "round": key.round,
                "phase": key.phase,
                "cohort": task.fold.clients,
                "minimum": task.fold.minimum,
                "weight_limit": task.fold.weight_limit,
                "message": task.message.digest,
            }
            begun = self._desk.journal.begin(self.run, opened)
        spill = ClientStates(self._stores.spill / self.run)
        ask = self._ask(task, message, opened)
        exchange = FoldingExchange(ask, self._desk, spill=spill, past=past, begun=begun)
        with self._lock:
            self._open[key] = exchange
        try:
            site_task = Task(key=key, message=task.message)
            with self._hub.opened(exchange, site_task):
                accepted = exchange.wait()
                exchange.settle()  # what the server above hears of is known here after a crash
                if not any(e["kind"] == "closed" for e in past):
                    closed = {"kind": "closed", "round": key.round, "phase": key.phase}
                    self._desk.journal.record(self.run, {**closed, "accepted": list(accepted)})
        finally:
            with self._lock:
                self._open.pop(key, None)
        metrics = {client: _pairs(found) for client, found in exchange.metrics.items()}
        left_out = {c: _LEFT_OUT for c in opened["cohort"] if c not in metrics}
        partial = Partial(
            metrics=metrics, problems=left_out | exchange.unable(), weight=exchange.weight
        )
        return partial, exchange.total()

    def _ask(self, task: Task, message: Any, opened: dict[str, Any]) -> Ask:
        assert task.fold is not None
        fold, key, method = task.fold, task.key, self._method
        assert method is not None  # where there is none, no task is taken
        spec = None
        if key.phase == "train":
            spec = aggregation_spec(
                method.algorithm, message, weight_limit=opened["weight_limit"],
                bound=self._plan.bound,
            )  # fmt: skip
            self.update_bytes = sum(
                v.size * np.dtype(v.dtype).itemsize for v in spec.vectors.values()
            )
        return Ask(
            self.run,
            key.round,
            key.phase,
            tuple(opened["cohort"]),
            # A sum of nobody is none; with evaluations one may go on without anybody.
            Terms(minimum=max(opened["minimum"], 1 if key.phase == "train" else 0)),
            fold.seconds * COMBINER_TIME_SHARE,
            spec,
            method.aggregator,
            method.transform,
            fold.most,
            fold.steps,
        )

    def cancel(self, key: TaskKey, reason: str) -> None:
        """End an exchange that the server above has closed."""
        with self._lock:
            exchange = self._open.get(key)
        if exchange is not None:
            exchange.stop(reason)

    def leave(self) -> None:
        """Let every exchange go; they go on when this combiner is back."""
        with self._lock:
            exchanges = list(self._open.values())
        for exchange in exchanges:
            exchange.leave()

    def stop(self, reason: str) -> None:
        """End every exchange for good."""
        with self._lock:
            exchanges = list(self._open.values())
        for exchange in exchanges:
            exchange.stop(reason)

    def advance(self, number: int) -> bool:
        """Take note that a round is committed above; return whether that is news."""
        if number <= self.committed:
            return False
        fact = {"kind": "committed", "round": number, "model": "", "row": {}}
        self._desk.journal.record(self.run, fact)
        self.committed = number
        self._stores.updates.forget(self.run, up_to=number)
        with self._lock:
            old = set[str]().union(*(self._messages.pop(n) for n in sorted(self._messages)
                                     if n <= number))  # fmt: skip
            kept = set[str]().union(*self._messages.values())
        self._stores.messages.drop(self.run, sorted(old - kept))
        return True

    def wants(self, site: str, number: int) -> bool:
        """Tell whether a site's update is waited for."""
        exchange = self._hub.exchange(self.run, number, "train")
        return exchange is not None and bool(exchange.waits_for(site))

    def _fetched(self, task: Task) -> Path:
        """Return the message, from now on where this combiner's sites can fetch it too."""
        digest, store = task.message.digest, self._stores.messages
        if not store.store.has(digest):
            self._scratch.mkdir(parents=True, exist_ok=True)
            target = self._scratch / f"{digest.removeprefix('blake3:')}.message"
            download(self._connection, task.message, target)
            with mapped(target) as data:
                store.put(self.run, digest, [data])
            target.unlink()
        else:
            with mapped(store.store.path(digest)) as data:
                store.put(self.run, digest, [data])
        with self._lock:
            self._messages.setdefault(task.key.round, set()).add(digest)
        return store.store.path(digest)


_LEFT_OUT = Unable(code="client-silent", reason="it had not answered when its combiner closed")


def _pairs(metrics: Any) -> dict[str, tuple[float | None, float | None]]:
    """Return metrics as they travel."""
    return {
        name: (finite_or_none(mean.total), finite_or_none(mean.weight))
        for name, mean in metrics.items()
    }
