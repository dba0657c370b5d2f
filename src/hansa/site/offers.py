"""Runs that ask for this site: shown to the owner, decided by policy and word, and reported.

A decision holds until the owner's files change: then every run is looked at again, so that an
approval is felt within a second, and a denial too.  A denial waits for nobody: what it needs are
the owner's files alone, no worker and no server.  It is looked for before each task besides.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from hansa.clock import wall
from hansa.errors import HansaError, PackageError, RequestRefused, SiteError
from hansa.limits import MESSAGE_CHARS_MAX, OWNER_FILES_S, PACKAGE_BYTES_MAX, SITE_PAUSE_S
from hansa.protocol.messages import Offer, Standing
from hansa.protocol.transfer import download
from hansa.site.decision import CANNOT, decision_about, submitter_key
from hansa.site.policy import may_not_ask
from hansa.site.requests import save_request
from hansa.site.settings import SITE_FILE, load_settings
from hansa.site.slots import asked_for, lacking
from hansa.site.taken import InHand, Rounds
from hansa.site.tasks import Desk, Joined, Patient
from hansa.text import clean

log = logging.getLogger("hansa.site")

_OWN_FILES = ("site-settings", "site-damaged", "identity-membership")
"""Codes of errors that tell places and contents of a site's own files."""


class Known(NamedTuple):
    """A run that has asked."""

    offer: Offer
    key: str  # fingerprint of the key that signed it; empty if none has
    standing: Standing
    joined: Joined | None
    told: Standing | None = None  # what the server has heard last


class Offers:
    """What has been offered to a site, and what became of it.

    Args:
      folder: of the site.
      desk: the site's connection, ledger and workers.
      patient: calls something until the server is reached.
    """

    def __init__(
        self,
        folder: Path,
        desk: Desk,
        *,
        patient: Patient,
    ) -> None:
        self._folder, self._desk, self._patient = folder, desk, patient
        self._queue: queue.SimpleQueue[Offer | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._decided = threading.Condition(self._lock)
        self._closed = threading.Event()
        self._known: dict[str, Known] = {}
        self._queued: set[str] = set()
        self._again: set[str] = set()  # of those that are queued: to be judged once more
        self._taking = threading.Lock()  # runs of one plan have one package, and one folder
        self._beginning: dict[
            str, tuple[Offer, str]
        ] = {}  # whose code is started to count examples
        self._rounds: dict[str, Rounds] = {}
        self._seen = self._stamp()

    def put(self, offer: Offer) -> bool:
        """Take up an offer, once; return whether it was not in hand."""
        with self._lock:
            if offer.run in self._queued:
                return False
            self._queued.add(offer.run)
        self._queue.put(offer)
        return True

    def _judge_again(self, offer: Offer) -> None:
        """Have an offer judged anew, also if it is being judged now."""
        with self._lock:
            queued = offer.run in self._queued
            (self._again if queued else self._queued).add(offer.run)
        if not queued:
            self._queue.put(offer)

    def close(self) -> None:
        """Let the threads of `work` end."""
        self._closed.set()
        self._queue.put(None)

    def work(self) -> None:
        """Look at offers; runs in several threads, for the code of one may take long to start."""
        while (offer := self._queue.get()) is not None:
            try:
                self._consider(offer)
            except OSError as error:  # what cannot be written down is not said: later
                log.error("%s: %s; it is tried again", offer.run, error)
                self._closed.wait(SITE_PAUSE_S)
                self._queue.put(offer)
                continue
            except BaseException:
                self._again.discard(offer.run)
                self._unqueue(offer)
                raise
            self._unqueue(offer)
        self._queue.put(None)  # for the next of the threads

    def _unqueue(self, offer: Offer) -> None:
        with self._decided:
            if offer.run in self._again:
                self._queue.put(offer)
                return
            self._queued.discard(offer.run)
            self._decided.notify_all()

    def look_again(self) -> bool:
        """Consider every run anew if the owner's files have changed; return whether they have.

        What may not go on ends here; what else there is to do is left to `work`.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        with contextlib.suppress(SiteError):  # told wherever the settings are needed
            self._desk.workers.settings = load_settings(self._folder)
        with self._lock:
            known, beginning = list(self._known.values()), list(self._beginning.values())
            self._again |= self._queued
        for run in known:
            self._judge_again(run.offer)
        for run in known:
            if run.joined is not None and (against := self._against(run.offer, run.key)):
                self._withdraw(run.offer.run, against)
        for begins in beginning:
            if self._against(*begins):
                self._desk.workers.cancel(begins[0].run)
        self._seen = stamp
        return True

    def reported(self) -> list[str]:
        """Return the runs whose standing the server knows, or is about to."""
        with self._lock:
            return sorted({*self._known, *self._queued})

    @contextlib.contextmanager
    def word_on(
        self, run: str, number: int, *, over: Callable[[], bool]
    ) -> Iterator[Joined | Standing]:
        """Give the run that a task of a round belongs to, or how it stands if it is not done.

        A run that is still looked at is waited for.  While the task is in hand its round counts
        for all runs of the same plan.

        Args:
          run: name.
          number: of the round.
          over: nobody waits for the task any more.
        """
        with self._decided:
            while run not in self._known and not over():
                self._decided.wait(OWNER_FILES_S)
            known = self._known.get(run)
        if known is None:
            yield Standing(state="refused", reason="Nobody waits for it.")
            return
        try:
            yield self._let_through(known, number)
        finally:
            self._rounds_of(known.offer).end(run)

    def _let_through(self, known: Known, number: int) -> Joined | Standing:
        offer, task, rounds = known.offer, (known.offer.run, number), self._rounds_of(known.offer)
        if known.joined is None:
            return known.standing
        with rounds.lock:
            against = self._against(offer, known.key, task=task, others=True)
            if against is None:
                rounds.begin(task)
                return known.joined
        if self._against(offer, known.key, task=task):  # also once other runs have ended theirs
            self._withdraw(offer.run, against)
            return against
        return Standing(state="refused", reason=against.reason)  # this task; the run goes on

    def stopped(self, run: str, number: int) -> Standing | None:
        """Return how a run stands whose task was let through and may not go on; None if it may."""
        with self._lock:
            known = self._known.get(run)
        if known is None:
            return None
        if known.joined is None:
            return known.standing
        if self._stamp() == self._seen:
            return None
        against = self._against(known.offer, known.key, task=(run, number))
        if against is not None:
            self._withdraw(run, against)
        return against

    def goes_on(self, run: str) -> bool:
        """Tell whether tasks of a run may be done, as far as is known without a look at files."""
        with self._lock:
            known = self._known.get(run)
            return known is not None and known.joined is not None

    def forget(self, run: str) -> bool:
        """Forget a run that is over; return whether it was known."""
        with self._lock:
            known = self._known.pop(run, None)
            used = {k.offer.package.digest for k in self._known.values()}
        if known is not None and known.offer.package.digest not in used:
            self._archive(known.offer).unlink(missing_ok=True)
        return known is not None

    def tidy(self) -> None:
        """Remove the archives of an earlier life; one that is needed is fetched again."""
        shutil.rmtree(self._folder / "cache" / "packages", ignore_errors=True)

    def _consider(self, offer: Offer) -> None:
        """Decide on an offer, and tell the server."""
        while True:
            with self._lock:
                self._again.discard(offer.run)
                before = self._known.get(offer.run)
            known = self._judged(offer, before)
            with self._decided:
                if offer.run in self._again:
                    continue  # the owner has changed something meanwhile
                if before is not None:
                    known = known._replace(told=before.told)
                self._known[offer.run] = known
                self._decided.notify_all()
            break
        if before is not None and before.joined is not None and known.joined is None:
            self._desk.workers.cancel(offer.run)
        if known.told != known.standing:
            self._tell(known)

    def _tell(self, known: Known) -> None:
        run, standing = known.offer.run, known.standing
        log.info("%s: %s %s", run, standing.state, standing.reason)
        self._report(run, standing)
        with self._lock:
            if (now := self._known.get(run)) is not None:
                self._known[run] = now._replace(told=standing)

    def _withdraw(self, run: str, standing: Standing) -> None:
        """Let a run go no further from now on, and end what it does; `work` tells the server."""
        with self._lock:
            known = self._known.get(run)
            if known is None or known.joined is None:
                return
            self._known[run] = known._replace(standing=standing, joined=None)
        self._judge_again(known.offer)
        self._desk.workers.cancel(run)

    def _judged(self, offer: Offer, before: Known | None) -> Known:
        """Return an offer with what the site does about it.

        Args:
          offer: the offer.
          before: the same run when it was judged last.
        """
        key = ""
        try:
            key = submitter_key(offer, self._desk.membership.trusted_pem)
            policy = load_settings(self._folder).policy
            if policy and (fault := may_not_ask(offer, policy, key)):
                # Nothing of it is kept.
                return Known(offer, key, Standing(state="refused", reason=fault), None)
            if before is not None and before.joined is not None and before.offer == offer:
                # It is here and has begun: nothing has to be fetched or waited for.
                against = self._against(offer, key)
                return before if against is None else Known(offer, key, against, None)
            with self._taking:
                request = save_request(self._folder, offer, self._fetched(offer))
            with self._lock:
                self._beginning[offer.run] = (offer, key)
            if against := self._against(offer, key):
                return Known(offer, key, against, None)
            self._desk.workers.settings = load_settings(self._folder)
            examples = self._desk.workers.examples(offer, request.code)
        except (HansaError, OSError) as error:
            return Known(offer, key, self._cannot(offer, error), None)
        finally:
            with self._lock:
                self._beginning.pop(offer.run, None)
        ready = Standing(state="ready", examples=examples)
        return Known(offer, key, ready, Joined(offer, request.code))

    def _against(
        self, offer: Offer, key: str, *, task: InHand | None = None, others: bool = False
    ) -> Standing | None:
        """Return the standing of a run that may not run; None if it may.

        It is as the owner's files say now, and waits for nothing.

        Args:
          offer: the run.
          key: fingerprint of the key that signed it.
          task: a round that may be finished once it has begun; None: the one in hand.
          others: whether the rounds count that other runs of the plan have in hand.
        """
        rounds = self._rounds_of(offer)
        try:
            settings = load_settings(self._folder)
            decision = decision_about(
                offer, self._folder, settings, key=key, at=wall(),
                done=partial(rounds.done, task=task or rounds.in_hand(offer.run), others=others),
            )  # fmt: skip
        except (HansaError, OSError) as error:
            return self._cannot(offer, error)
        if decision.state == "ask":
            return Standing(state="waiting", reason=decision.reason)
        if decision.state == "refuse":
            return Standing(state="refused", reason=decision.reason)
        if short := lacking(asked_for(offer.plan), settings.resources):
            return Standing(state="refused", reason=short)
        return None

    def _rounds_of(self, offer: Offer) -> Rounds:
        with self._lock:
            if offer.identity not in self._rounds:
                self._rounds[offer.identity] = Rounds(
                    self._folder, offer.identity, self._desk.ledger.after
                )
            return self._rounds[offer.identity]

    def _cannot(self, offer: Offer, error: HansaError | OSError) -> Standing:
        log.warning("%s: %s", offer.run, error)
        words = clean(f"{CANNOT}: {self._said(error)}", MESSAGE_CHARS_MAX)
        own = isinstance(error, HansaError) and error.code in _OWN_FILES
        return Standing(state="waiting" if own else "refused", reason=words)

    def _said(self, error: HansaError | OSError) -> str:
        """Return what the server may hear of an error: nothing of the owner's files."""
        if not isinstance(error, HansaError):
            return "its disk refused something"
        if error.code in _OWN_FILES:
            return "its owner must look at its own files"
        return self._desk.workers.without_paths(error.happened)

    def _fetched(self, offer: Offer) -> Path:
        """Return the package's archive, fetched unless it is here."""
        target = self._archive(offer)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            if offer.package.size > PACKAGE_BYTES_MAX:
                raise PackageError(
                    "package-too-large",
                    f"The package of {offer.run} has {offer.package.size} bytes; a site takes up "
                    f"to {PACKAGE_BYTES_MAX >> 20} MiB.",
                    "Let its submitter leave out what is no code.",
                )
            self._patient(
                lambda: download(self._desk.connection, offer.package, target), threading.Event()
            )
        return target

    def _archive(self, offer: Offer) -> Path:
        name = offer.package.digest.removeprefix("blake3:")
        return self._folder / "cache" / "packages" / f"{name}.zip"

    def _report(self, run: str, standing: Standing) -> None:
        """Tell the server; what it says is written down like all that leaves."""
        body = msgspec.json.encode(standing)
        detail = standing.state + (f": {standing.reason}" if standing.reason else "")
        if standing.state == "ready":
            detail += f", {standing.examples or 'uncounted'} examples"
        self._desk.ledger.sent("standing", size=len(body), run=run, detail=detail)
        try:
            self._patient(
                lambda: self._desk.connection.call(
                    "POST", f"/v1/runs/{run}/standing", standing, kind=dict[str, str]
                ),
                threading.Event(),
            )
        except RequestRefused as refusal:
            # The run stays known: if it is over, the answer to the next poll says so.
            log.info("%s: %s", run, refusal.happened)

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        """Return what changes when the owner decides something."""
        stamps = []
        for name in ("approvals.jsonl", SITE_FILE):
            try:
                facts = (self._folder / name).stat()
                stamps.append((facts.st_mtime_ns, facts.st_size))
            except FileNotFoundError:
                stamps.append((0, 0))
        return tuple(stamps)
