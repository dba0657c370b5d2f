"""The way upwards: one thread asks the server above for work, one tells it about the sites here.

poll    offers -> adopted, and offered to the sites here
        tasks  -> each folded in a thread of its own, then sent
        cancelled, committed, ended -> passed on
tell    who is there, and what they say of each run, whenever that changes
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

import hansa
from hansa.clock import monotonic
from hansa.combiner.folding import CombinedRun
from hansa.combiner.outgoing import Outgoing
from hansa.errors import HansaError, RequestRefused
from hansa.identity import Membership
from hansa.limits import MESSAGE_CHARS_MAX, SITE_IDLE_S, SITE_PAUSE_S
from hansa.protocol.enrolment import connection_of, poll
from hansa.protocol.messages import (
    Offer,
    Partial,
    Poll,
    PollAnswer,
    Receipt,
    Standing,
    Standings,
    Submission,
    Task,
    TaskKey,
    Unable,
)
from hansa.protocol.patience import with_jitter, with_patience
from hansa.protocol.transfer import download
from hansa.server.exchange import Desk, Interrupted
from hansa.server.federation import Pace
from hansa.server.hub import Hub
from hansa.server.round_files import Stores
from hansa.server.runs import Runs
from hansa.server.submissions import Serving
from hansa.site.ledger import LEDGER_FILE, Ledger
from hansa.site.outbox import Outbox
from hansa.store.addresses import mapped
from hansa.text import clean

log = logging.getLogger("hansa.combiner")

T = TypeVar("T")


class Relay(Runs):
    """The runs of the server above, as far as the sites here have a part in them.

    Args:
      folder: of the combiner.
      membership: of the federation above.
      hub: where the sites here are reached.
      desk: journal, updates and key of this combiner.
      stores: its files.
      pace: the operator's times.
    """

    def __init__(
        self, folder: Path, membership: Membership, hub: Hub, desk: Desk, *, stores: Stores,
        pace: Pace,
    ) -> None:  # fmt: skip
        super().__init__(hub, desk, stores=stores, pace=pace, at_once=1, serving=Serving())
        self._folder, self._membership = folder, membership
        self._connection = connection_of(membership)
        self._ledger = Ledger(folder / LEDGER_FILE)
        outbox = Outbox(folder / "outbox")
        self._outgoing = Outgoing(membership, self._connection, ledger=self._ledger, outbox=outbox)
        self._known: dict[str, CombinedRun | None] = {}  # None: its package is being fetched
        self._work_on: dict[TaskKey, threading.Event] = {}  # set when nobody wants it any more
        self._instance, self._twice = os.urandom(8).hex(), False
        self._sites_told: list[str] | None = None
        self._standings_told: dict[str, dict[str, Standing]] = {}

    # ---- what the server calls

    def resume(self) -> None:
        """Go on with every run that has not ended, as the server above says."""
        self._hub.expect([row.run for row in self._desk.journal.runs(unfinished=True)])
        for work in (self._poll, self._tell):
            threading.Thread(target=self._lasting, args=(work,), daemon=True).start()

    def submit(self, submission: Submission, submitter: str) -> str:
        """Refuse: runs come from the server above."""
        raise self._elsewhere("submitted")

    def stop(self, run: str, who: str) -> None:
        """Refuse: runs are stopped where they were submitted."""
        raise self._elsewhere("stopped")

    def leave(self, patience_s: float = 10.0) -> None:
        """Let every thread go; all goes on when this combiner is back."""
        if self._leaving.is_set():
            return
        self._leaving.set()
        for run in self._combined():
            run.leave()
        self._hub.stir()
        self._connection.close()

    def update_bytes(self, site: str, run: str, number: int) -> int:
        """Return the most that a site may upload for a round; 0 when none is wanted of it."""
        found = self._known.get(run)
        if found is None:
            return 0
        if found.wants(site, number):
            return found.update_bytes
        return super().update_bytes(site, run, number)

    def late(self, *_: object, **__: object) -> Receipt | None:
        """Return None: late updates are not counted through a combiner."""
        return None

    # ---- polling

    def _poll(self) -> None:
        while not self._leaving.is_set():
            began = monotonic()
            self._settled(lambda: self._patiently(self._forget_ended))
            answer = self._settled(lambda: self._patiently(self._asked))
            if answer is None:
                continue
            news = self._do(answer)
            if answer.again_s:
                self._leaving.wait(with_jitter(answer.again_s))
            elif not news:
                self._leaving.wait(max(0.0, began + SITE_IDLE_S - monotonic()))

    def _settled(self, work: Callable[[], T]) -> T | None:
        """Do something; None after a pause if the server above said no, or the disk is full."""
        try:
            return work()
        except (HansaError, OSError) as error:
            if self._leaving.is_set():
                return None
            log.error("%s", error)
        self._leaving.wait(SITE_PAUSE_S)
        return None

    def _forget_ended(self) -> None:
        """End what has ended above while this combiner was away; all other runs are offered.

        It is asked before each poll: a disk may have been full, or the server above about to end.
        Once all runs that are not over are known, nothing is left to ask.
        """
        rows = self._desk.journal.runs(unfinished=True)
        left = {row.run for row in rows} | set(self._outgoing.outbox.runs())
        if left := left - self._known.keys():
            for run in self._asked(wait=False, runs=sorted(left)).ended:
                self._over(run)

    def _asked(self, *, wait: bool = True, runs: Sequence[str] = ()) -> PollAnswer:
        sites = self._there()
        with self._lock:
            asked = Poll(
                holding=tuple(self._work_on),
                runs=tuple(runs or sorted(self._known)),
                version=hansa.__version__,
                wait=wait,
                sites=tuple(sites),
                instance=self._instance,
            )
        self._ledger.control(len(msgspec.json.encode(asked)))
        answer = poll(self._connection, self._membership, asked)
        if answer.twice and not self._twice:
            log.error("another combiner uses this one's key at the same time; stop one of the two")
        self._twice = answer.twice
        if answer.taken:
            log.warning("the server above knows others by the names %s", ", ".join(answer.taken))
        self._sites_told = [site for site in sites if site not in answer.taken]
        return answer

    def _do(self, answer: PollAnswer) -> bool:
        """Do what the server above says; return whether any of it was new."""
        news = False
        for offer in answer.offers:
            news |= self._adopt(offer)
        for run in answer.ended:
            news |= self._over(run)
        for done in answer.committed:
            news |= self._advance(done.run, done.round)
        for key in answer.cancelled:
            with self._lock:
                dropped = self._work_on.get(key)
            found = self._known.get(key.run)
            if dropped is not None and found is not None:
                dropped.set()
                found.cancel(key, "the server above has closed the round")
        for task in answer.tasks:
            news |= self._take(task)
        return news

    def _adopt(self, offer: Offer) -> bool:
        with self._lock:
            if offer.run in self._known:
                return False
            self._known[offer.run] = None
        threading.Thread(target=self._guarded, args=(lambda: self._begin_run(offer),),
                         daemon=True).start()  # fmt: skip
        return True

    def _begin_run(self, offer: Offer) -> None:
        """Fetch a run's package, record the run, and offer it to the sites here."""
        try:
            self._patiently(lambda: self._fetch(offer))
            self._desk.journal.adopt(offer)
            last, _ = self._desk.journal.since_commit(offer.run)
            found = CombinedRun(
                offer,
                last["round"],
                hub=self._hub,
                desk=self._desk,
                stores=self._stores,
                connection=self._connection,
                scratch=self._folder / "scratch",
            )
        except (HansaError, OSError) as error:
            if not self._leaving.is_set():
                log.error("%s: %s", offer.run, error)
                self._leaving.wait(SITE_PAUSE_S)
            with self._lock:
                self._known.pop(offer.run, None)  # it is offered again
            return
        with self._lock:
            if offer.run not in self._known:  # over meanwhile
                return
            self._known[offer.run] = found
        if not found.fault:
            self._hub.activate(found)
        self._hub.stir()

    def _fetch(self, offer: Offer) -> None:
        """Have the package here, where the sites can fetch it by the same digest."""
        blobs = self._stores.blobs
        if blobs.has(offer.package.digest):
            return
        scratch = self._folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        target = scratch / f"{offer.package.digest.removeprefix('blake3:')}.zip"
        download(self._connection, offer.package, target)
        with mapped(target) as data:
            blobs.put_bytes([data])
        target.unlink()

    def _advance(self, run: str, number: int) -> bool:
        found = self._known.get(run)
        if found is None or not found.advance(number):
            return False
        self._outgoing.outbox.forget(run, up_to=number)
        self._hub.wake()
        return True

    def _over(self, run: str) -> bool:
        """End a run here that is over above."""
        with self._lock:
            known = run in self._known
            found = self._known.pop(run, None)
            for key, dropped in self._work_on.items():
                if key.run == run:
                    dropped.set()
        if found is not None:
            found.stop("the run is over")
        self._standings_told.pop(run, None)
        self._desk.journal.end(run, "finished", "over at the server above", code="")
        self._hub.deactivate(run)
        self._stores.forget(run)
        self._outgoing.outbox.forget_run(run)
        return known

    # ---- tasks

    def _take(self, task: Task) -> bool:
        found = self._known.get(task.key.run)
        if found is None or task.fold is None:
            return False  # its package is still being fetched; it is given out again
        # The commit before this round may not be durable above; the one before that one is.
        self._advance(task.key.run, task.key.round - 2)
        dropped = threading.Event()
        with self._lock:
            if task.key in self._work_on:
                return False
            self._work_on[task.key] = dropped
        threading.Thread(
            target=self._guarded, args=(lambda: self._perform(found, task, dropped),), daemon=True
        ).start()
        return True

    def _perform(self, run: CombinedRun, task: Task, dropped: threading.Event) -> None:
        key = task.key
        done = False
        try:
            partial = self._outgoing.kept(key)
            if partial is None:
                partial = self._outgoing.keep(key, *run.fold(task))
            if not dropped.is_set():
                self._send(key, partial, task)
            done = True
        except Interrupted:
            pass
        except (HansaError, OSError) as error:
            # The server above asks again for what it still wants.
            log.error("round %s (%s) of %s: %s", key.round, key.phase, key.run, error)
            self._leaving.wait(1.0)
        finally:
            with self._lock:
                self._work_on.pop(key, None)
            if not done:  # the open poll says that it is in hand; another one gets it again
                self._sites_told = None
                self._hub.stir()

    def _send(self, key: TaskKey, partial: Partial, task: Task) -> None:
        message = task.message.digest
        try:
            self._outgoing.send(key, partial, message=message, patient=self._patiently)
        except RequestRefused as refusal:
            log.warning("round %s (%s) of %s: %s", key.round, key.phase, key.run, refusal)
            words = clean(refusal.happened, MESSAGE_CHARS_MAX)
            unable = Unable(code=refusal.said, reason=words)
            nobody = Partial(problems={c: unable for c in (*partial.metrics, *partial.problems)})
            # Sent again it would be the same: the server above must hear that it gets nothing.
            self._outgoing.send(key, nobody, message=message, patient=self._patiently)

    # ---- telling

    def _there(self) -> list[str]:
        return sorted(s for s, presence in self._hub.clients().items() if presence.online)

    def _tell(self) -> None:
        mark = -1
        while not self._leaving.is_set():
            mark = self._hub.stirred("", mark, SITE_PAUSE_S)
            self._settled(lambda: self._patiently(self._told))

    def _told(self) -> None:
        """Tell the server above who is there, and then what they say of its runs."""
        sites = self._there()
        if sites != self._sites_told:
            self._do(self._asked(wait=False))
        for run in self._combined():
            told = self._standings_told.setdefault(run.run, {})
            said = self._desk.journal.standings(run.run)
            if run.fault:
                refused = Standing(
                    state="refused", reason=f"Its combiner cannot take part: {run.fault}."
                )
                said = dict.fromkeys(self._sites_told or (), refused)
            there = set(self._sites_told or ())
            news = {s: w for s, w in said.items() if s in there and told.get(s) != w}
            if not news:
                continue
            body = Standings(sites=news)
            self._ledger.sent(
                "standing",
                size=len(msgspec.json.encode(body)),
                run=run.run,
                detail="; ".join(f"{site}: {word.state}" for site, word in sorted(news.items())),
            )
            path = f"/v1/runs/{run.run}/standings"
            try:
                self._connection.call("POST", path, body, kind=dict[str, str])
            except RequestRefused as refusal:
                log.info("%s: %s", run.run, refusal.happened)  # over; the next poll says so
            told.update(news)

    # ---- inside

    def _combined(self) -> list[CombinedRun]:
        with self._lock:
            return [run for run in self._known.values() if run is not None]

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do something with the server above until it works, however long that is away.

        Raises:
          Interrupted: this combiner ends.
          RequestRefused: the server above has said no.
        """
        if self._leaving.is_set():
            raise Interrupted
        try:
            return with_patience(
                work,
                until=None,
                most_s=SITE_PAUSE_S,
                pause=self._leaving.wait,
                given_up=self._leaving.is_set,
            )
        except HansaError:
            if self._leaving.is_set():
                raise Interrupted from None
            raise

    def _guarded(self, work: Callable[[], object]) -> None:
        """Run a thread; what it cannot get over is logged, and all others go on."""
        try:
            work()
        except Interrupted:
            pass
        except Exception:
            if not self._leaving.is_set():
                log.exception("a thread of the combiner has failed")

    def _lasting(self, work: Callable[[], object]) -> None:
        """Run a thread that no failure may end: without it the server above would hear nothing."""
        while not self._leaving.is_set():
            self._guarded(work)
            self._leaving.wait(SITE_IDLE_S)

    def _elsewhere(self, done: str) -> RequestRefused:
        return RequestRefused(
            "request-route",
            f"This is the combiner {self._membership.name}; nothing is {done} here.",
            f"Runs belong to the server above it: {self._membership.url}",
            status=409,
        )
