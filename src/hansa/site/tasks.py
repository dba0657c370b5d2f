"""One task at a site, from the server's message to its receipt.

    fetch the message -> have the worker do it -> keep the result -> write the ledger -> send it

What has been done is never done again: a result that was kept before a crash is sent as it is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from blake3 import blake3

from hansa.clock import monotonic
from hansa.errors import PlanError, RequestRefused, SiteError
from hansa.failpoints import hit
from hansa.identity import Membership
from hansa.limits import (
    LOCAL_STEPS_MAX,
    MESSAGE_CHARS_MAX,
    MESSAGES_KEPT,
    UPDATE_SLACK_BYTES,
    UPDATE_TIMES_MAX,
)
from hansa.params import Layout
from hansa.plan import Plan
from hansa.protocol.connection import Connection
from hansa.protocol.delivery import deliver
from hansa.protocol.messages import (
    BlobRef,
    Effort,
    Offer,
    Receipt,
    Standing,
    Task,
    TaskKey,
    TaskResult,
)
from hansa.protocol.patience import is_passing
from hansa.protocol.transfer import Known, download, upload
from hansa.rounds.questions import asked_in, most_bytes
from hansa.site.ledger import Answered, Ledger
from hansa.site.outbox import Kept, Outbox
from hansa.site.outcomes import Behind, Dropped, NotDone, Withheld
from hansa.site.outgoing import build_filters, facts_told, filtered, sendable
from hansa.site.receipts import check_own, receipts_of
from hansa.site.worker_messages import Ask
from hansa.site.workers import WorkerResult, Workers
from hansa.store.addresses import digest_of_file
from hansa.store.files import load_params
from hansa.store.spares import Spares
from hansa.text import clean

log = logging.getLogger("hansa.site")

T = TypeVar("T")

_TOO_LARGE = 413


class Joined(NamedTuple):
    """A run in which this site takes part."""

    offer: Offer
    package: Path  # folder of the approved code


class Desk(NamedTuple):
    """What every task of a site works with."""

    folder: Path
    membership: Membership
    connection: Connection
    ledger: Ledger
    outbox: Outbox
    workers: Workers
    chunks: dict[Path, Sequence[str]]  # digests of those of the messages that are kept and whole
    spares: dict[str, Spares]  # of messages, by run

    def spares_of(self, run: str) -> Spares:
        """Return the messages of a run that are to be written over."""
        if run not in self.spares:
            self.spares[run] = Spares(self.folder / "cache" / run / "spare")
        return self.spares[run]


class Patient(Protocol):
    """Does something with the server until it works, or nobody wants it any more."""

    def __call__(self, work: Callable[[], T], dropped: threading.Event, /) -> T:
        """Return what `work` returns."""


class TaskRun:
    """One task while it is in hand.

    Args:
      task: what is asked.
      desk: the site's.
      patient: calls something until the server is reached, unless `dropped` is set meanwhile.
      stopped: says how the run stands if the owner lets it go no further; None if it may go on.
      others: gives the other tasks of the run that this site has in hand.
    """

    def __init__(
        self,
        task: Task,
        desk: Desk,
        *,
        patient: Patient,
        stopped: Callable[[], Standing | None] = lambda: None,
        others: Callable[[], Collection[TaskKey]] = tuple,
    ) -> None:
        self.key, self._task, self._desk = task.key, task, desk
        self._patient, self._stopped, self._others = patient, stopped, others
        self._answered: Answered = {}
        self._too_soon = 0  # how often the server was not ready for the result
        self.dropped = threading.Event()
        self.computing = False
        self.over = False  # nothing is done about it any more
        self.refused = False  # the server has been told that this site does not do it
        self.withheld = False  # it is done once the owner lets it
        self._heard = monotonic()

    def perform(self, joined: Joined, answered: Answered) -> Receipt | None:
        """Do the task and report it; None if nobody wants it any more.

        Args:
          joined: the run it belongs to.
          answered: which messages of the run this site has answered; the task's is added.
        """
        hit("site_after_task_received")
        self._answered = answered
        try:
            self._check_policy(joined.offer)
            self._check_told(joined)
            self._check_message(joined, answered)
            kept = self._desk.outbox.kept(self.key) or self._computed(joined)
            answered[self.key.round, self.key.phase] = self._task.message.digest
            return self._reported(kept)
        except Dropped:
            pass  # before it was computed, or the agent ends and sends it after its next start
        except Behind:
            log.info("%s: kept until the server asks for it again", _words(self.key))
        except Withheld as later:
            self.withhold(*later.args)
        except NotDone as no:
            self.refuse(*no.args)
        except RequestRefused as refusal:
            log.warning("%s: %s", _words(self.key), refusal)
            self._uncounted()
            if refusal.status == _TOO_LARGE or refusal.said == "request-message":
                # Done again, it would be the same: the server must hear that it gets none.
                self.refuse(refusal.happened, refusal.code)
        return None

    def withhold(self, reason: str) -> None:
        """Let it rest until the owner has decided; the server is told how the run stands."""
        log.info("%s waits: %s", _words(self.key), reason)
        self.withheld = True

    def refuse(self, reason: str, code: str = "site-cancelled") -> None:
        """Tell the server, once, that it gets no result from this site."""
        if self.refused or self.dropped.is_set():
            return
        log.warning("%s: %s", _words(self.key), reason)
        words = clean(reason, MESSAGE_CHARS_MAX)
        result = TaskResult(state="failed", code=code, reason=words)
        try:
            self._reported(Kept(result=result))
        except (Dropped, Behind):
            return
        except RequestRefused as refusal:
            log.warning("%s: %s", _words(self.key), refusal)
        self.refused = True

    def drop(self) -> None:
        """Stop computing; what is finished is still sent, for it may have been counted."""
        self.dropped.set()
        if self.computing:
            self._desk.workers.cancel(self.key.run)

    def _check_stopped(self) -> None:
        """See that the owner still lets the run go on.

        Raises:
          Withheld: the owner has to decide.
          NotDone: the owner has said no.
        """
        if (now := self._stopped()) is not None:
            raise (Withheld if now.state == "waiting" else NotDone)(now.reason)

    def _check_policy(self, offer: Offer) -> None:
        """See that the owner lets code answer this named task.

        Raises:
          NotDone: the approved plan does not ask for it, or the policy does not name it.
        """
        asked, policy = asked_in(self.key.phase), self._desk.workers.settings.policy
        if not asked:
            return
        from hansa.workflows.building import named_tasks  # an idle agent needs no workflow

        wanted = named_tasks(msgspec.convert(offer.plan, Plan))
        if wanted is not None and asked[0] not in wanted:
            raise NotDone(f"The plan of the run has no task {asked[0]}.", "site-task")
        allowed = None if policy is None else policy.tasks
        if allowed is not None and asked[0] not in allowed:
            raise NotDone(f"The policy does not let the task {asked[0]} run.", "site-task")

    def _check_told(self, joined: Joined) -> None:
        """See that the server says no more about the training than the approved plan lets it.

        How many steps on how many examples decides what an update says of each of them.

        Raises:
          NotDone: the plan says these things itself.
        """
        steps, settings = self._task.steps, self._task.settings
        if self.key.phase != "train" or not (steps or settings):
            return
        from hansa.workflows.building import of_project, steps_told  # as above

        plan, odd = msgspec.convert(joined.offer.plan, Plan), []
        if steps and not steps_told(plan):
            odd.append(f"{steps} local steps")
        if settings and not (of_project(plan) or _has_settings(plan, joined.package)):
            odd.append(f"settings ({', '.join(settings)})")
        if odd:
            told = f"The server asks for {' and '.join(odd)}, which the plan does not leave to it."
            raise NotDone(told, "site-task")

    def _check_message(self, joined: Joined, answered: Answered) -> None:
        """See that the message is one that this site may take.

        Each answer to another message says more about the data: one a round is what was agreed.

        Raises:
          NotDone: the task was done for another message, or this one is too large.
        """
        ref = self._task.message
        kept = self._desk.outbox.kept(self.key)
        before = kept.message if kept else answered.get((self.key.round, self.key.phase), "")
        if before and before != ref.digest:
            raise NotDone(
                f"This site has answered another message in {_words(self.key)}; it answers one."
            )
        limit = UPDATE_TIMES_MAX * _model_bytes(joined.offer) + UPDATE_SLACK_BYTES
        if asked_in(self.key.phase):
            limit = most_bytes(_model_bytes(joined.offer))
        if ref.size > limit:
            raise NotDone(
                f"The round's message has {ref.size} bytes; for this model a site takes {limit}."
            )

    def _uncounted(self) -> None:
        """What the client has learned about itself belongs to an update that nobody has.

        The update goes with it: if the server asks for it after all, both are computed once more,
        and are the same.
        """
        self._desk.outbox.discard(self.key)
        if self.key.phase == "train":
            self._desk.workers.states.uncounted(self.key.run, self.key.round)

    def _settled(self) -> None:
        """Forget what this site has learned about itself in rounds that closed without it.

        Whether they did is known if the receipt has come; else the server is asked, once after a
        crash between an update's making and its receipt.
        """
        states, run = self._desk.workers.states, self.key.run
        provisional = states.provisional(run, before=self.key.round)
        if not provisional:
            return
        receipts = self._patient(
            lambda: receipts_of(self._desk.connection, self._desk.membership), self.dropped
        )
        counted = {r.round: r.digest for r in receipts if r.run == run and r.phase == "train"}
        for number, digest in provisional.items():
            if counted.get(number) == digest:
                states.counted(run, number)
            else:
                log.info("%s: round %s closed without this site", run, number)
                self._desk.outbox.discard(TaskKey(run=run, round=number, phase="train"))
                states.uncounted(run, number)

    def _computed(self, joined: Joined) -> Kept:
        if self.key.phase == "train":
            self._settled()
        message = self._fetched(self._task.message)
        hit("site_after_message_fetched")
        if self.dropped.is_set():
            raise Dropped
        self._check_stopped()
        desk, key = self._desk, self.key
        place = desk.outbox.place(key)
        began = monotonic()
        result = self._worked(joined, message, place.update)
        effort = _effort(result, wait_s=began - self._heard, work_s=monotonic() - began)
        hit("site_before_update_kept")
        if result.state == "done" and key.phase != "evaluate":
            result = self._filtered(result, place.update, joined.offer)
        update = None
        if result.state == "done" and key.phase != "evaluate":
            update = BlobRef(digest=result.digest, size=place.update.stat().st_size)
        if result.state == "failed":
            log.warning("%s failed: %s (%s)", _words(key), result.reason, result.trace_file)
        kept = Kept(
            result=TaskResult(
                state=result.state,
                metrics=sendable(result.metrics) if result.state == "done" else {},
                update=update,
                weight=result.weight,
                code=result.code,
                reason=result.reason,
                effort=effort if result.state == "done" else None,
            ),
            message=self._task.message.digest,
            tensors=[(n, d, list(s)) for n, d, s in result.tensors],
            told=self._told(),
        )
        desk.outbox.keep(key, kept)
        hit("site_after_update_kept")
        return kept

    def _told(self) -> str:
        """Return what the server says about the training, as the ledger has it."""
        said: dict[str, Any] = {} if self._task.steps is None else {"steps": self._task.steps}
        said |= {"settings": self._task.settings} if self._task.settings else {}
        words = ", ".join(f"{name} {msgspec.json.encode(v).decode()}" for name, v in said.items())
        return clean(words, MESSAGE_CHARS_MAX) if self.key.phase == "train" else ""

    def _filtered(self, result: WorkerResult, update: Path, offer: Offer) -> WorkerResult:
        """Do to a result what the owner's policy says about all that leaves.

        Raises:
          NotDone: it cannot be done to this one, so it does not leave.
        """
        policy = self._desk.workers.settings.policy
        if policy is None or not policy.filters:
            return result
        try:
            named = asked_in(self.key.phase) is not None
            digest, size = filtered(update, build_filters(policy.filters), offer, named=named)
        except SiteError as error:
            self._uncounted()
            raise NotDone(error.happened, error.code) from None
        return result._replace(digest=digest, size=size)

    def _worked(self, joined: Joined, message: Path, update: Path) -> WorkerResult:
        """Have the run's worker do the task.

        Raises:
          Dropped: it was cancelled meanwhile.
          NotDone: the owner has denied the run meanwhile.
        """
        result = self._tried(joined, message, update)
        if result.code == "client-lost" and not self.dropped.is_set():
            # Out of memory, or killed by somebody: as in simulation, once is no reason to fail.
            log.warning("%s: %s; trying once more", _words(self.key), result.reason)
            result = self._tried(joined, message, update)
        if self.dropped.is_set():
            self._uncounted()
            raise Dropped
        try:
            self._check_stopped()
        except NotDone:  # the update is here, and stays here
            self._uncounted()
            raise
        return result

    def _tried(self, joined: Joined, message: Path, update: Path) -> WorkerResult:
        workers, key, offer = self._desk.workers, self.key, joined.offer
        self.computing = True
        try:
            if key.phase == "train":
                return workers.train(
                    offer,
                    joined.package,
                    key.round,
                    message=message,
                    update=update,
                    steps=self._task.steps,
                    settings=self._task.settings,
                )
            if asked := asked_in(key.phase):
                ask = Ask(key.round, str(message), *asked)
                limit = most_bytes(_model_bytes(offer))
                return workers.answer(offer, joined.package, ask, answer=update, limit=limit)
            return workers.evaluate(offer, joined.package, key.round, message=message)
        finally:
            self.computing = False

    def _fetched(self, ref: BlobRef) -> Path:
        """Return the round's message, fetched unless it is here already."""
        desk, cache = self._desk, self._desk.folder / "cache" / self.key.run
        cache.mkdir(parents=True, exist_ok=True)
        target = cache / f"{ref.digest.removeprefix('blake3:')}.safetensors"
        if not self._is_whole(target, ref):
            there = (path for path in cache.glob("*.safetensors") if path != target)
            kept = sorted(there, key=lambda p: p.stat().st_mtime_ns)
            known = [Known(path, desk.chunks.get(path, ())) for path in kept[-1:]]
            # A run's code has seen its messages, and may look again: at the run's own alone.
            spares = desk.spares_of(self.key.run)
            for old in kept[: 1 - MESSAGES_KEPT]:  # one is written over now
                spares.give(old)
            desk.chunks[target] = self._patient(
                lambda: download(desk.connection, ref, target, known=known, spares=spares),
                self.dropped,
            )
            for path in list(desk.chunks):
                if not path.exists():  # of this run, or of one that has ended
                    desk.chunks.pop(path, None)
        return target

    def _is_whole(self, message: Path, ref: BlobRef) -> bool:
        """Tell whether a message is here, and survived what ended the process that fetched it."""
        if not message.exists():
            return False
        chunks = self._desk.chunks
        if message not in chunks and digest_of_file(message) == (ref.digest, ref.size):
            chunks[message] = ()
        return message in chunks

    def _reported(self, kept: Kept) -> Receipt | None:
        """Write down what is about to leave, send it, and keep the receipt.

        Raises:
          NotDone: it cannot be written down, ever.
          Behind: the server is not ready for it, and waits for something else.
        """
        ledger = self._desk.ledger
        hit("site_before_ledger_written")
        try:
            seq = self._written_down(kept)
        except SiteError as error:
            if error.code != "site-limit":
                raise
            self._uncounted()
            raise NotDone(error.happened, error.code) from None
        hit("site_after_ledger_written")
        receipt = self._patient(lambda: self._sent_in_turn(kept), threading.Event())
        hit("site_after_receipt")
        if receipt.digest:  # a failure counts for nothing, and there is nothing to prove later
            check_own(receipt, self.key, self._desk.membership)
        if kept.result.state == "done":
            ledger.confirmed(seq, receipt)
            if self.key.phase == "train":
                self._desk.workers.states.counted(self.key.run, self.key.round)
        hit("site_after_receipt_kept")
        return receipt

    def _written_down(self, kept: Kept) -> int:
        key, result, ledger = self.key, kept.result, self._desk.ledger
        body = msgspec.json.encode(result)
        if result.state == "failed":
            detail = f"{result.code}: {result.reason}"
            return ledger.sent(
                "failure", size=len(body), run=key.run, round=key.round, detail=detail
            )
        names = ", ".join(sorted(result.metrics))
        spent = "" if result.effort is None else ", seconds and steps of the work"
        if result.update is None:
            metrics = msgspec.json.encode(result.metrics, order="deterministic")
            return ledger.sent(
                "metrics",
                size=len(body),
                run=key.run,
                round=key.round,
                digest=f"blake3:{blake3(metrics).hexdigest()}",
                message=kept.message,
                detail=(f"totals of {names}" if names else "no metrics") + spent,
            )
        if asked := asked_in(key.phase):
            return ledger.sent(
                "answer",
                size=result.update.size + len(body),
                run=key.run,
                round=key.round,
                digest=result.update.digest,
                message=kept.message,
                tensors=kept.tensors,
                task=key.phase,
                detail=facts_told(asked, load_params(self._desk.outbox.place(key).update)) + spent,
            )
        detail = f"weight {result.weight:g}" + (f", totals of {names}" if names else "") + spent
        detail += f"; the server asked for {kept.told}" if kept.told else ""
        return ledger.sent(
            "update",
            size=result.update.size + len(body),
            run=key.run,
            round=key.round,
            digest=result.update.digest,
            message=kept.message,
            tensors=kept.tensors,
            detail=detail,
        )

    def _sent_in_turn(self, kept: Kept) -> Receipt:
        """Send a result, unless the server has gone back to a task that was done before.

        A server that lost an update, or was restored from a backup, takes this result only after
        that other one, which nobody else brings: to wait for each other would last for ever.  One
        that is only about to be ready is given the time that it asks for.

        Raises:
          Behind: it has.
        """
        try:
            return self._sent(kept)
        except RequestRefused as refusal:
            if refusal.said == "round-not-open":
                self._too_soon += 1
                done = any((k.round, k.phase) in self._answered for k in self._others())
                if done and self._too_soon > 1:
                    raise Behind from None
            raise

    def _sent(self, kept: Kept) -> Receipt:
        """Send a result, once.

        Raises:
          NotDone: the owner has denied the run since it was made, which may be long ago.
        """
        if kept.result.state == "done":
            self._check_stopped()
        key, connection = self.key, self._desk.connection
        if kept.result.update is not None:
            try:
                if (receipt := self._delivered(kept.result, kept.result.update)) is not None:
                    return receipt
            except RequestRefused as refusal:
                if refusal.said != "upload-unwanted":
                    raise
                # It may count already, and only its receipt was lost: the answer below says so.
        path = f"/v1/runs/{key.run}/rounds/{key.round}/{key.phase}/result"
        return connection.call("POST", path, kept.result, kind=Receipt)

    def _delivered(self, result: TaskResult, ref: BlobRef) -> Receipt | None:
        """Send the update; return the receipt if its result went with it, else that must follow."""
        connection, update = self._desk.connection, self._desk.outbox.place(self.key).update

        def chunk(_: int = 0) -> None:
            hit("site_after_chunk_sent")

        def sent() -> None:
            chunk()
            hit("site_after_update_sent")

        try:
            receipt = deliver(
                connection, update, ref=ref, task=self.key, result=result, on_sent=sent
            )
        except RequestRefused as refusal:
            # As when a proxy takes headers away that it does not know, or refuses them itself.
            if refusal.said not in ("request-message", "server-refused") or is_passing(refusal):
                raise
            receipt = None
        if receipt is None:
            upload(connection, update, to="updates", ref=ref, task=self.key, on_chunk=chunk)
            hit("site_after_update_sent")
        return receipt


def _has_settings(plan: Plan, package: Path) -> bool:
    """Return whether a plan names server functions, and they say settings."""
    if (file := plan.server_functions.file) is None:
        return False
    from hansa.functions.serving import defined_in

    try:
        return "settings" in defined_in(file, {file: (package / file).read_bytes()})
    except PlanError:
        return False


def _effort(result: WorkerResult, *, wait_s: float, work_s: float) -> Effort:
    """Return how long a task took; its steps are the word of the run's code."""
    steps, epoch = (min(max(n, 0), LOCAL_STEPS_MAX) for n in (result.steps, result.epoch_steps))
    return Effort(wait_s=wait_s, work_s=work_s, steps=steps, epoch_steps=epoch)


def _model_bytes(offer: Offer) -> int:
    return Layout.of((name, dtype, tuple(shape)) for name, dtype, shape in offer.tensors).nbytes


def _words(key: TaskKey) -> str:
    return f"round {key.round} ({key.phase}) of {key.run}"
