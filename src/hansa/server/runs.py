"""A server's runs: each has a thread that drives its workflow, from its last commit to its end."""

from __future__ import annotations

import logging
import threading

from hansa.errors import HansaError, RequestRefused, ServerError
from hansa.failpoints import hit
from hansa.limits import MESSAGE_CHARS_MAX, RETRY_S
from hansa.protocol.messages import Phase, Receipt, Submission, TaskResult
from hansa.server.exchange import Desk, Interrupted
from hansa.server.federation import DeployedFederation, Pace, Stores
from hansa.server.hub import Hub
from hansa.server.journal import ENDED, RunRow
from hansa.server.submissions import read_plan
from hansa.workflows import Progress, synchronous
from hansa.workflows.driving import drive

log = logging.getLogger("hansa.server")


class Runs:
    """Starts, resumes, stops and ends runs.

    Args:
      hub: where sites are reached.
      desk: journal, updates and key.
      stores: files.
      pace: the operator's times.
      at_once: runs at work at the same time.
    """

    def __init__(self, hub: Hub, desk: Desk, *, stores: Stores, pace: Pace, at_once: int) -> None:
        self._hub, self._desk, self._stores, self._pace = hub, desk, stores, pace
        self._places = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self._active: dict[str, DeployedFederation] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._leaving = threading.Event()

    def resume(self) -> None:
        """Go on with every run that has not ended."""
        rows = self._desk.journal.runs(unfinished=True)
        self._hub.expect([row.run for row in rows])
        for row in rows:
            events = self._desk.journal.all_events(row.run, "started")
            if events:
                self._desk.journal.record(row.run, {"kind": "resumed"})
            self._launch(row)

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
        self._end(run, "stopped", reason, code="run-stopped")
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
        for thread in threads:
            thread.join(patience_s)

    def update_bytes(self, site: str) -> int:
        """Return the most that a site may upload now; 0 when nothing is wanted of it."""
        wanted = {t.task.key.run for t in self._hub.tasks_of(site) if t.task.key.phase == "train"}
        with self._lock:
            wanted |= {name for name, run in self._active.items() if run.late_rounds}
            sizes = [self._active[r].update_bytes for r in wanted if r in self._active]
        return max(sizes, default=0)

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
        if not self._places.acquire(blocking=False):
            self._desk.journal.record(
                row.run,
                {"kind": "waiting", "reason": "other runs are at work"},
                reason="other runs are at work",
            )
            while not self._places.acquire(timeout=1.0):
                if self._leaving.is_set():
                    return
        try:
            while not self._leaving.is_set() and not self._driven(row):
                self._leaving.wait(RETRY_S)  # a full disk, for instance, may have room again
        finally:
            self._places.release()
            with self._lock:
                self._active.pop(row.run, None)
                self._threads.pop(row.run, None)
            self._hub.deactivate(row.run)

    def _driven(self, row: RunRow) -> bool:
        """Work on a run; return whether it has ended."""
        run = row.run
        try:
            self._begin(row)
            progress = self._drive(row)
            hit("before_run_ended")
            assert progress.ended is not None  # a workflow returns when it is over
            self._end(run, "finished", progress.ended, code="")
            hit("after_run_ended")
        except Interrupted:
            return self._has_ended(run)
        except (OSError, ServerError) as error:
            log.error("run %s waits: %s", run, error)
            return self._has_ended(run)
        except HansaError as error:
            self._end(run, "failed", str(error), code=error.code)
        except Exception as error:
            log.exception("run %s", run)
            reason = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX]
            self._end(run, "failed", reason, code="defect")
        return True

    def _begin(self, row: RunRow) -> None:
        """Make the seed model the run's round 0, if it is not yet."""
        journal = self._desk.journal
        if not journal.all_events(row.run, "committed"):
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
        if not journal.all_events(row.run, "started"):
            journal.record(row.run, {"kind": "started", "engine": "federation"})

    def _drive(self, row: RunRow) -> Progress:
        if self._has_ended(row.run):
            raise Interrupted
        plan, method = read_plan(row.submission.plan)
        federation = DeployedFederation(
            row,
            plan,
            method,
            hub=self._hub,
            desk=self._desk,
            stores=self._stores,
            pace=self._pace,
        )
        federation.resume()  # the offer below says how far the run is
        with self._lock:
            self._active[row.run] = federation
        # Whoever stops it, or the server, either finds it in the table or has been before.
        if self._leaving.is_set() or self._has_ended(row.run):
            raise Interrupted
        self._hub.activate(federation)
        return drive(synchronous(federation, plan, method.algorithm))

    def _has_ended(self, run: str) -> bool:
        row = self._desk.journal.run(run)
        return row is not None and row.state in ENDED

    def _end(self, run: str, state: str, reason: str, *, code: str) -> None:
        """Make the end durable; a run that has ended stays as it is."""
        self._desk.journal.end(run, state, reason, code=code)
        self._hub.deactivate(run)
