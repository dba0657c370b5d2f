"""A server's runs: each has a thread that drives its workflow, from its last commit to its end."""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

from hansa.clock import monotonic
from hansa.errors import HansaError, RequestRefused, ServerError
from hansa.failpoints import hit
from hansa.limits import (
    FAILURE_CHARS_MAX,
    MESSAGE_CHARS_MAX,
    PARTIAL_MEMBER_BYTES,
    PARTIAL_TIMES,
    RETRY_S,
)
from hansa.protocol.messages import ENDED, Phase, Receipt, Submission, TaskResult
from hansa.rounds.questions import most_bytes
from hansa.server.exchange import Desk, Interrupted
from hansa.server.federation import DeployedFederation, Pace
from hansa.server.hub import Hub
from hansa.server.journal import RunRow
from hansa.server.places import Places
from hansa.server.round_files import Stores
from hansa.server.stuck import Stuck
from hansa.server.submissions import Serving, read_plan
from hansa.text import few
from hansa.workflows import Progress
from hansa.workflows.driving import drive

log = logging.getLogger("hansa.server")

_NAMED = 10  # runs that are told one by one
_LASTING = ("function-refused",)  # errors of a server that do not pass by themselves


class Ending(NamedTuple):
    """How a run has come to its end."""

    state: str
    reason: str
    code: str = ""
    trace: str = ""  # of code of the project that ran here, for whoever submitted it


class Runs:
    """Starts, resumes, stops and ends runs.

    Args:
      hub: where sites are reached.
      desk: journal, updates and key.
      stores: files.
      pace: the operator's times.
      at_once: runs at work at the same time.
      serving: what the operator lets server functions do.
    """

    def __init__(
        self,
        hub: Hub,
        desk: Desk,
        *,
        stores: Stores,
        pace: Pace,
        at_once: int,
        serving: Serving,
    ) -> None:
        self._hub, self._desk, self._stores, self._pace = hub, desk, stores, pace
        self._serving = serving
        self.places = Places(at_once, hub.stir)
        self._lock = threading.Lock()
        self._active: dict[str, DeployedFederation] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._leaving = threading.Event()

    def resume(self) -> None:
        """Go on with every run that has not ended."""
        rows = self._desk.journal.runs(unfinished=True)
        if rows:
            log.info("going on with %s", few([row.run for row in rows], _NAMED))
        self._hub.expect([row.run for row in rows])
        for row in rows:
            self._hold(row)
        for row in rows:
            if self._desk.journal.has(row.run, "started"):
                self._desk.journal.record(row.run, {"kind": "resumed"})
            self._launch(row)

    def _hold(self, row: RunRow) -> None:
        """Let a run that was at work keep its place, and the slots of its last round's sites."""
        asks = row.submission.plan.get("resources") or {}
        waits = self._desk.journal.last(row.run, "waiting") if row.state == "waiting" else None
        if row.state == "running" or (waits and waits.get("kept")):
            opened = self._desk.journal.last(row.run, "opened") if asks else None
            self.places.hold(row.run, opened["clients"] if opened else (), asks)

    def submit(self, submission: Submission, submitter: str) -> str:
        """Record a submission that has been checked, and start it; return the run's name."""
        hit("before_run_recorded")
        run, fresh = self._desk.journal.submit(submission, submitter)
        hit("after_run_recorded")
        if fresh:
            row = self._desk.journal.run(run)
            assert row is not None  # it has just been recorded
            self._launch(row)
        return run

    def stop(self, run: str, who: str) -> None:
        """End a run on somebody's word.

        Raises:
          RequestRefused: it has ended already.
        """
        row = self._desk.journal.run(run)
        if row is None or row.state in ENDED:
            state = row.state if row else "unknown here"
            raise RequestRefused(
                "run-ended", f"The run {run} is {state}.", "Nothing is to be stopped.", status=409
            )
        reason = f"stopped by {who}"
        self._end(run, Ending("stopped", reason, "run-stopped"))
        with self._lock:
            active = self._active.get(run)
        if active is not None:
            active.stop(reason)

    def leave(self, patience_s: float = 10.0) -> None:
        """Let every run's thread go; they are resumed when the server starts again."""
        self._leaving.set()
        with self._lock:
            active, threads = list(self._active.values()), list(self._threads.values())
        for federation in active:
            federation.leave()
        self._hub.stir()
        until = monotonic() + patience_s  # for all of them together
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))

    def update_bytes(self, site: str, run: str, number: int) -> int:
        """Return the most that a site may upload for a round; 0 when none is wanted of it."""
        with self._lock:
            active = self._active.get(run)
        if active is None:
            return 0
        if self._hub.is_asked(run, number, site):
            return most_bytes(active.layout.layout.nbytes)
        exchange = self._hub.exchange(run, number, "train")
        if exchange is not None and (behind := self._hub.behind(site)):
            if any(exchange.waits_for(client) for client in behind):
                return PARTIAL_TIMES * active.update_bytes + PARTIAL_MEMBER_BYTES * len(behind)
            return 0
        wanted = exchange is not None and exchange.waits_for(site)
        late = 0 <= active.committed + 1 - number <= active.late_rounds and number > 0
        return active.update_bytes if wanted or (active.late_rounds and late) else 0

    def tasks_in(self, run: str) -> int:
        """Return how many exchanges the open round of a run has had."""
        with self._lock:
            active = self._active.get(run)
        return 1 if active is None else max(1, active.exchanges)

    def late(
        self, run: str, number: int, *, phase: Phase, site: str, result: TaskResult
    ) -> Receipt | None:
        """Count a late result if its run's plan wants that; None if it does not."""
        with self._lock:
            active = self._active.get(run)
        if active is None or phase != "train":
            return None
        return active.late(site, number, result)

    def _launch(self, row: RunRow) -> None:
        thread = threading.Thread(
            target=self._work, args=(row,), name=f"run-{row.run}", daemon=True
        )
        with self._lock:
            self._threads[row.run] = thread
        thread.start()

    def _work(self, row: RunRow) -> None:
        """Drive one run until it ends or the server does; runs in its own thread."""
        ending: Ending | None = None
        over, stuck = False, Stuck(row.run, self._desk.journal, self.places)
        try:
            while not over and not self._leaving.is_set():
                # An end that could not be written is written later: the work is not done again.
                try:
                    ending = ending or self._outcome(row)
                    if ending is not None:
                        self._end(row.run, ending)
                        hit("after_run_ended")
                    over = self._has_ended(row.run)
                except Exception as error:  # noqa: BLE001 - of whatever kind: the run waits, and says why
                    stuck.at(error)
                    self._stores.spares.clear()  # the disk may be full
                if not over:  # a full disk, for instance, may have room again
                    self._leaving.wait(RETRY_S)
        finally:
            with self._lock:
                self._active.pop(row.run, None)
                self._threads.pop(row.run, None)
            self.places.leave(row.run)
            if over:  # of any other, sites keep what they have
                self._hub.deactivate(row.run)
                self._stores.forget(row.run)

    def _outcome(self, row: RunRow) -> Ending | None:
        """Work on a run; return how it ended, or None if it was interrupted.

        Raises:
          OSError, ServerError: it may pass by itself; the run goes on from its last commit.
        """
        try:
            self._begin(row)
            progress = self._drive(row)
        except Interrupted:
            return None
        except OSError:
            raise
        except HansaError as error:
            if isinstance(error, ServerError) and error.code not in _LASTING:
                raise
            if not self._is_wanted(row.run):  # what it computed for nobody was cut off
                return None
            trace = "\n".join(getattr(error, "__notes__", ()))[-FAILURE_CHARS_MAX:]
            return Ending("failed", str(error), error.code, trace)
        except Exception as error:
            log.exception("run %s", row.run)
            reason = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX]
            return Ending("failed", reason, "defect")
        hit("before_run_ended")
        assert progress.ended is not None  # a workflow returns when it is over
        return Ending("finished", progress.ended)

    def _begin(self, row: RunRow) -> None:
        """Make the seed model the run's round 0, if it is not yet."""
        journal = self._desk.journal
        if not journal.has(row.run, "committed"):
            seed = row.submission.seed_model
            fact = {
                "kind": "committed",
                "round": 0,
                "model": seed.digest,
                "model_size": seed.size,
                "state": None,
                "row": {},
                "progress": Progress()._asdict(),
                "elapsed": 0.0,
            }
            journal.commit(row.run, fact, keep=lambda _: True)
        if not journal.has(row.run, "started"):
            journal.record(row.run, {"kind": "started", "engine": "federation"})

    def _drive(self, row: RunRow) -> Progress:
        row = self._desk.journal.run(row.run) or row  # it may have been told why it waits
        if row.state in ENDED:
            raise Interrupted
        serving = self._serving._replace(wanted=lambda: self._is_wanted(row.run))
        plan, method, workflow = read_plan(row.submission, self._stores.blobs, serving)
        federation = DeployedFederation(
            row,
            plan,
            method,
            hub=self._hub,
            desk=self._desk,
            stores=self._stores,
            pace=self._pace,
            places=self.places,
        )
        following = federation.look()  # the offer below says how far the run is
        with self._lock:
            self._active[row.run] = federation
        # Whoever stops it, or the server, either finds it in the table or has been before.
        if not self._is_wanted(row.run):
            raise Interrupted
        self._hub.activate(federation)
        try:
            if following:  # no model is held by a run that only waits
                drive(federation.roster(following))
            return drive(workflow.run(federation, plan, method.algorithm))
        finally:
            federation.close()

    def _is_wanted(self, run: str) -> bool:
        return not (self._leaving.is_set() or self._has_ended(run))

    def _has_ended(self, run: str) -> bool:
        row = self._desk.journal.run(run)
        return row is not None and row.state in ENDED

    def _end(self, run: str, ending: Ending) -> None:
        """Make the end durable; a run that has ended stays as it is."""
        if ending.trace:
            self._desk.journal.record(run, {"kind": "raised", "trace": ending.trace})
        self._desk.journal.end(run, ending.state, ending.reason, code=ending.code)
        self._hub.deactivate(run)
