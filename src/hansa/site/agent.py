"""The agent: asks the server for work, lets the owner decide, has workers do it, sends results.

One thread polls and never does anything else, so the server knows that the site is alive while
its workers train.  Each run has a thread for its tasks; offers are looked at in a few others.  No
code of a project runs in this process.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import shutil
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

import hansa
from hansa.clock import date_of, monotonic
from hansa.errors import HansaError, RequestRefused, ServerError, SiteError
from hansa.failpoints import hit
from hansa.identity import load_membership
from hansa.limits import OWNER_FILES_S, SITE_IDLE_S, SITE_PAUSE_S, STARTS_AT_ONCE_MAX
from hansa.protocol import messages
from hansa.protocol.enrolment import connection_of, poll
from hansa.protocol.messages import Poll, PollAnswer, Task, TaskKey
from hansa.protocol.patience import with_jitter, with_patience
from hansa.site import ledger, policy, receipts, worker_messages
from hansa.site.ledger import LEDGER_FILE, Answered, Ledger
from hansa.site.ledger import answered as messages_answered
from hansa.site.offers import Offers
from hansa.site.outbox import Outbox
from hansa.site.outcomes import Dropped
from hansa.site.presence import Troubles, present, remember_end
from hansa.site.requests import note_end, wanted_runs
from hansa.site.sandbox import sandbox_told
from hansa.site.settings import SiteSettings, load_settings
from hansa.site.tasks import Desk, Joined, TaskRun
from hansa.site.workers import Workers
from hansa.typed import make_known

log = logging.getLogger("hansa.site")

T = TypeVar("T")


def run_agent(
    folder: Path,
    *,
    started: Callable[[SiteSettings], None] = lambda _: None,
    workers: Callable[[Path, SiteSettings], Workers] = Workers,
) -> None:
    """Work for a site until SIGTERM or Ctrl-C.

    Args:
      folder: of the site, which has joined.
      started: called once the agent is at work.
      workers: makes what runs the code of runs.

    Raises:
      SiteError: another agent works from this folder, or its settings are wrong.
      IdentityError: the folder has not joined a federation, or is no longer a member.
    """
    with present(folder):
        settings = load_settings(folder)
        _log_to(folder / "agent.log")
        agent = Agent(folder, settings, workers=workers(folder, settings))
        log.info("the agent of %s starts, Hansa %s", settings.name, hansa.__version__)
        own = "none: runs are worked on by this process, which runs no code of theirs"
        log.info("sandbox: %s", sandbox_told(settings.policy) if workers is Workers else own)
        try:
            agent.start()
            started(settings)
            agent.wait()
        finally:
            agent.close()
            log.info("the agent of %s has ended", settings.name)


class Agent:
    """A site at work.

    Args:
      folder: of the site.
      settings: its site.toml.
      workers: run the code of runs; by default processes of their own.
    """

    def __init__(
        self, folder: Path, settings: SiteSettings, *, workers: Workers | None = None
    ) -> None:
        make_known(messages, policy, worker_messages, ledger, receipts)  # before any thread
        membership = load_membership(folder)
        self._folder, self._membership = folder, membership
        self._connection = connection_of(membership)
        kept = Ledger(folder / LEDGER_FILE)
        workers = workers or Workers(folder, settings)
        outbox = Outbox(folder / "outbox", workers.spares)
        self._desk = Desk(folder, membership, self._connection, kept, outbox, workers, {}, {})
        self._offers = Offers(folder, self._desk, patient=self._patiently)
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._holding: dict[TaskKey, TaskRun] = {}
        self._queues: dict[str, queue.SimpleQueue[TaskRun | None]] = {}
        self._failure: BaseException | None = None
        self._instance, self._twice = os.urandom(8).hex(), False
        self._attributes, self._told = settings.attributes, ""
        self._troubles = Troubles(folder)

    def start(self) -> None:
        """Begin to ask for work."""
        threading.Thread(target=self._guarded, args=(self._poll,), daemon=True).start()
        for work in (self._offers.work,) * STARTS_AT_ONCE_MAX:
            threading.Thread(target=self._guarded, args=(work,), daemon=True).start()

    def wait(self) -> None:
        """Wait for SIGTERM or Ctrl-C.

        Raises:
          HansaError: the agent cannot go on, and says why.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._ending.set())
        while not self._ending.wait(OWNER_FILES_S):
            if self._offers.look_again():
                with contextlib.suppress(SiteError):  # else it says what it has said
                    self._attributes = load_settings(self._folder).attributes
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End workers and connections; what is kept goes on with the next start."""
        self._ending.set()
        self._offers.close()
        self._desk.workers.close_all()
        self._make_room()
        try:
            self._desk.ledger.close()
        except OSError as error:
            log.error("the last polls are not in the ledger: %s", error)
        self._connection.close()

    # ---- polling

    def _poll(self) -> None:
        self._settled(self._forget_ended)
        while not self._ending.is_set():
            began = monotonic()
            answer = self._settled(lambda: self._patiently(self._asked, self._ending))
            if answer is None:
                continue
            news = self._do(answer)
            if answer.again_s:
                self._ending.wait(with_jitter(answer.again_s))
            elif not news:  # a server may repeat itself; it is not asked faster for that
                self._ending.wait(max(0.0, began + SITE_IDLE_S - monotonic()))

    def _settled(self, work: Callable[[], T]) -> T | None:
        """Do something; None after a pause if the server said no, or the disk is full."""
        try:
            return work()
        except RequestRefused as refusal:
            if refusal.said.startswith("identity-"):
                raise  # no longer a member, or never one: only people can mend that
            log.error("%s", refusal)
            self._troubles.told(refusal.happened)
        except OSError as error:
            # What cannot be written down may not leave, so the site falls silent until it can.
            log.error("%s; the agent waits", error)
            self._make_room()
            self._troubles.told(str(error))
        self._ending.wait(SITE_PAUSE_S)
        return None

    def _forget_ended(self) -> None:
        """Remove what an earlier life of this agent has kept of runs that are over."""
        self._offers.tidy()
        kept = {*self._desk.outbox.runs(), *self._desk.workers.states.runs()}
        for name in ("cache", "exchange"):
            if (self._folder / name).is_dir():
                kept.update(path.name for path in (self._folder / name).iterdir())
        runs = sorted(kept.union(wanted_runs(self._folder)))
        if runs:
            answer = self._patiently(lambda: self._asked(runs), self._ending)
            for run in set(runs) & set(answer.ended):
                self._end(run)

    def _asked(self, leftovers: list[str] | None = None) -> PollAnswer:
        hit("site_before_poll")
        with self._lock:
            for key, task in list(self._holding.items()):
                if self._may_be_done(task):
                    del self._holding[key]  # the server gives it again
            held = [key for key, task in self._holding.items() if not task.dropped.is_set()]
        runs = leftovers or self._offers.reported()
        asked = Poll(
            holding=tuple(held),
            runs=tuple(runs),
            version=hansa.__version__,
            attributes=self._attributes,
            wait=not leftovers,
            resources=self._desk.workers.settings.resources,
            instance=self._instance,
        )
        self._note_attributes(asked.attributes)
        self._desk.ledger.control(len(msgspec.json.encode(asked)))
        return poll(self._connection, self._membership, asked)

    def _note_attributes(self, said: dict[str, str]) -> None:
        """Write down, once, what the site is about to say of itself."""
        told = ", ".join(f"{name} = {value}" for name, value in said.items())
        if told != self._told:
            detail = f"attributes: {told or 'none'}"
            self._desk.ledger.sent("control", size=len(told.encode()), detail=detail)
            self._told = told

    def _do(self, answer: PollAnswer) -> bool:
        """Do what the server says; return whether any of it was new."""
        news = False
        if answer.twice and not self._twice:
            log.error(
                "another agent uses this site's key at the same time, as from a copy of its "
                "folder; stop one of the two, or tell the server's operator to revoke the key"
            )
        self._twice = answer.twice
        for offer in answer.offers:
            news |= self._offers.put(offer)
        for run in answer.ended:
            news |= self._end(run)
        with self._lock:
            dropped = [self._holding[k] for k in answer.cancelled if k in self._holding]
        for task_run in dropped:
            self._drop(task_run)
        for task in answer.tasks:
            news |= self._take(task)
        for done in answer.committed:  # last, for the disk takes its time
            self._desk.outbox.forget(done.run, up_to=done.round)
        return news or bool(dropped)

    def _take(self, task: Task) -> bool:
        """Have a task done, unless it is in hand; its thread finds out whether it may be."""
        run = task.key.run
        task_run = TaskRun(
            task,
            self._desk,
            patient=self._patiently,
            stopped=partial(self._offers.stopped, run, task.key.round),
            others=partial(self._others, task.key),
        )
        with self._lock:
            known = self._holding.get(task.key)
            if known is not None and not self._may_be_done(known):
                return False
            self._holding[task.key] = task_run
        self._queue_of(run).put(task_run)
        return True

    def _may_be_done(self, task: TaskRun) -> bool:
        """Tell whether a task was withheld whose run goes on by now."""
        return task.over and task.withheld and self._offers.goes_on(task.key.run)

    def _others(self, mine: TaskKey) -> list[TaskKey]:
        """Return the other tasks of a task's run that are in hand."""
        with self._lock:
            return [key for key in self._holding if key.run == mine.run and key != mine]

    # ---- tasks

    def _queue_of(self, run: str) -> queue.SimpleQueue[TaskRun | None]:
        if run not in self._queues:
            tasks: queue.SimpleQueue[TaskRun | None] = queue.SimpleQueue()
            self._queues[run] = tasks
            threading.Thread(
                target=self._guarded, args=(lambda: self._perform_all(run, tasks),), daemon=True
            ).start()
        return self._queues[run]

    def _perform_all(self, run: str, tasks: queue.SimpleQueue[TaskRun | None]) -> None:
        answered: Answered | None = None
        while (task := tasks.get()) is not None:
            try:
                if answered is None:
                    answered = messages_answered(self._desk.ledger.entries(), run)
                self._perform(task, answered)
            except Dropped:
                return
            except (HansaError, OSError) as error:
                if task.dropped.is_set():  # its files may be gone as well
                    continue
                # The server asks again for what it still wants.
                log.error("round %s of %s: %s", task.key.round, task.key.run, error)
                self._make_room()
                self._ending.wait(1.0)
            finally:
                with self._lock:
                    task.over = True
                    # One that was refused is held until the server drops it, or it asks again;
                    # one that was withheld also until the run may go on.
                    kept = task.refused or task.withheld
                    if not kept or task.dropped.is_set():
                        self._holding.pop(task.key, None)

    def _perform(self, task: TaskRun, answered: Answered) -> None:
        def over() -> bool:
            return task.dropped.is_set() or self._ending.is_set()

        with self._offers.word_on(task.key.run, task.key.round, over=over) as word:
            if over():
                return
            if isinstance(word, Joined):
                task.perform(word, answered)
            elif word.state == "waiting":
                task.withhold(word.reason)
            else:
                task.refuse(word.reason)

    def _drop(self, task: TaskRun) -> None:
        with self._lock:
            task.dropped.set()
            if task.over:
                self._holding.pop(task.key, None)
        task.drop()

    def _end(self, run: str) -> bool:
        """Forget a run that is over; return whether anything was known of it."""
        known = self._offers.forget(run)
        with self._lock:
            dropped = [t for k, t in self._holding.items() if k.run == run]
        for task in dropped:
            self._drop(task)
        tasks = self._queues.pop(run, None)
        if tasks is not None:
            tasks.put(None)
        self._desk.workers.forget(run)
        self._desk.outbox.forget_run(run)
        self._desk.spares.pop(run, None)
        shutil.rmtree(self._folder / "cache" / run, ignore_errors=True)
        try:
            note_end(self._folder, run)
        except (SiteError, OSError) as error:  # the next start asks again
            log.warning("that %s is over is not written down: %s", run, error)
        return known

    def _make_room(self) -> None:
        """Remove files that are kept to be written over: the disk may be full."""
        for spares in (self._desk.workers.spares, *self._desk.spares.copy().values()):
            spares.clear()

    def _patiently(self, work: Callable[[], T], dropped: threading.Event) -> T:
        """Do something with the server until it works, however long the server is away.

        Raises:
          Dropped: nobody wants it any more, or the agent ends.
          RequestRefused: the server has said no.
        """

        def over() -> bool:
            return dropped.is_set() or self._ending.is_set()

        def tried() -> T:
            try:
                done = work()
            except ServerError as error:
                log.warning("%s", error.happened)
                self._troubles.told(error.happened)
                raise
            if self._troubles.over():
                log.info("it works again with %s", self._membership.url)
            return done

        if over():
            raise Dropped
        try:
            pause = self._ending.wait
            return with_patience(tried, until=None, most_s=SITE_PAUSE_S, pause=pause, given_up=over)
        except (ServerError, RequestRefused):
            if over():
                raise Dropped from None
            raise

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread; what it cannot get over ends the agent, with its reason."""
        try:
            work()
        except Dropped:
            pass
        except Exception as error:
            if not self._ending.is_set():
                if isinstance(error, HansaError):  # says all that there is to say
                    log.error("the agent ends: %s", error)
                else:
                    log.exception("the agent ends")
                self._failure = error
                remember_end(self._folder, error)
                self._ending.set()
                signal.raise_signal(signal.SIGTERM)


class _Lines(logging.Formatter):
    """Lines with their time in UTC."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - overrides
        """Return a record's time in ISO 8601, with its zone."""
        return date_of(record.created).isoformat()


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=10 * 2**20, backupCount=1)
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("hansa")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
