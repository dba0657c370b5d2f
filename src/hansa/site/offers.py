"""Runs that ask for this site: shown to the owner, decided by policy and word, and reported.

A decision holds until the owner's files change: then every run is looked at again, so that an
approval is felt within a second, and a denial too.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from hansa.clock import wall
from hansa.errors import HansaError, PackageError, RequestRefused, SiteError
from hansa.limits import MESSAGE_CHARS_MAX, OWNER_FILES_S, PACKAGE_BYTES_MAX, SITE_PAUSE_S
from hansa.protocol.messages import Offer, Standing
from hansa.protocol.transfer import download
from hansa.site.decision import CANNOT, decision_on, submitter_key
from hansa.site.policy import may_not_ask
from hansa.site.requests import read_approvals, save_request
from hansa.site.settings import SITE_FILE, load_settings
from hansa.site.slots import asked_for, lacking
from hansa.site.tasks import Desk, Joined, Patient
from hansa.text import clean

log = logging.getLogger("hansa.site")

_OWN_FILES = ("site-settings", "site-damaged", "identity-membership")
"""Codes of errors that tell places and contents of a site's own files."""


class Known(NamedTuple):
    """A run that has asked."""

    offer: Offer
    standing: Standing
    joined: Joined | None


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
        self._seen = self._stamp()

    def put(self, offer: Offer) -> bool:
        """Take up an offer, once; return whether it was not in hand."""
        with self._lock:
            if offer.run in self._queued:
                return False
            self._queued.add(offer.run)
        self._queue.put(offer)
        return True

    def close(self) -> None:
        """Let the thread of `work` end."""
        self._closed.set()
        self._queue.put(None)

    def work(self) -> None:
        """Look at offers one after the other; runs in a thread of its own."""
        while (offer := self._queue.get()) is not None:
            try:
                self._consider(offer)
            except OSError as error:  # what cannot be written down is not said: later
                log.error("%s: %s; it is tried again", offer.run, error)
                self._closed.wait(SITE_PAUSE_S)
                self._queue.put(offer)
                continue
            except BaseException:
                self._unqueue(offer.run)
                raise
            self._unqueue(offer.run)

    def _unqueue(self, run: str) -> None:
        with self._decided:
            self._queued.discard(run)
            self._decided.notify_all()

    def look_again(self) -> bool:
        """Consider every run anew if the owner's files have changed; return whether they have."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        with contextlib.suppress(SiteError):  # told wherever the settings are needed
            self._desk.workers.settings = load_settings(self._folder)
        with self._lock:
            offers = [known.offer for known in self._known.values()]
        for offer in offers:
            self.put(offer)
        return True

    def reported(self) -> list[str]:
        """Return the runs whose standing the server knows, or is about to."""
        with self._lock:
            return sorted({*self._known, *self._queued})

    def word_on(self, run: str, number: int, *, over: Callable[[], bool]) -> Joined | str:
        """Return the run that a task of a round belongs to, or why it is not done.

        A run that is still looked at is waited for.  An approval that has an end is looked at
        again before each task.

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
            return "Nobody waits for it."
        if known.joined is None:
            return known.standing.reason
        approvals = read_approvals(self._folder)
        words = [a for a in approvals if a.identity == known.offer.identity]
        if any(a.max_rounds is not None or a.until is not None for a in words):
            known = self._consider(known.offer, task=(run, number))
        return known.joined or known.standing.reason

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

    def _consider(self, offer: Offer, *, task: tuple[str, int] | None = None) -> Known:
        """Decide on an offer, and tell the server."""
        standing, joined = self._judged(offer, task)
        with self._decided:
            before = self._known.get(offer.run)
            known = self._known[offer.run] = Known(offer, standing, joined)
            self._decided.notify_all()
        if before is not None and before.joined is not None and joined is None:
            self._desk.workers.cancel(offer.run)
        if before is None or before.standing != standing:
            log.info("%s: %s %s", offer.run, standing.state, standing.reason)
            try:
                self._report(offer.run, standing)
            except OSError:
                with self._lock:  # not said yet: the next look says it
                    self._known.pop(offer.run, None)
                raise
        return known

    def _judged(self, offer: Offer, task: tuple[str, int] | None) -> tuple[Standing, Joined | None]:
        try:
            key = submitter_key(offer, self._desk.membership.trusted_pem)
            settings = load_settings(self._folder)
            if settings.policy and (fault := may_not_ask(offer, settings.policy, key)):
                return Standing(state="refused", reason=fault), None  # nothing of it is kept
            request = save_request(self._folder, offer, self._fetched(offer))
            self._desk.workers.settings = settings
            decision = decision_on(self._folder, request, settings, at=wall(), task=task)
            if decision.state == "ask":
                return Standing(state="waiting", reason=decision.reason), None
            if decision.state == "refuse":
                return Standing(state="refused", reason=decision.reason), None
            if short := lacking(asked_for(offer.plan), settings.resources):
                return Standing(state="refused", reason=short), None
            examples = self._desk.workers.examples(offer, request.code)
        except (HansaError, OSError) as error:
            log.warning("%s: %s", offer.run, error)
            words = clean(f"{CANNOT}: {self._said(error)}", MESSAGE_CHARS_MAX)
            return Standing(state="refused", reason=words), None
        return Standing(state="ready", examples=examples), Joined(offer, request.code)

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
            detail += f", {standing.examples} examples"
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
