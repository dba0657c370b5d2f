"""Plans that ask to run at a site, with their code, and the owner's word on each.

requests/<identity>/code/...            the package, unpacked: what is reviewed is what runs
requests/<identity>/offers/<run>.json   each run of it, with when it came and whether it is over
approvals.jsonl                         approved and denied, never rewritten
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from blake3 import blake3

from hansa.clock import now
from hansa.errors import HansaError, PackageError, RunError, SiteError
from hansa.limits import REQUESTS_MAX, REQUESTS_OF_SUBMITTER_MAX
from hansa.protocol.messages import Offer
from hansa.runs.events import EventLog
from hansa.site.policy import Approval, time_told
from hansa.store.files import write_durably
from hansa.text import clean

APPROVALS_FILE = "approvals.jsonl"


class Received(msgspec.Struct, frozen=True, omit_defaults=True):
    """An offer and when it came."""

    at: str
    offer: Offer
    over: str = ""  # when this site heard that the run has ended


class Request(NamedTuple):
    """One identity that asks, or has asked, to run here."""

    identity: str
    folder: Path
    offers: tuple[Received, ...]  # one a run, oldest first; at least one

    @property
    def offer(self) -> Offer:
        """Return the newest offer."""
        return self.offers[-1].offer

    @property
    def code(self) -> Path:
        """Return the folder of the unpacked package."""
        return self.folder / "code"

    @property
    def short(self) -> str:
        """Return the start of the identity, as people type it."""
        return short(self.identity)

    @property
    def runs(self) -> list[str]:
        """Return the names of its runs."""
        return [received.offer.run for received in self.offers]

    @property
    def wanted(self) -> list[str]:
        """Return the names of its runs that have not ended, as far as this site has heard."""
        return [received.offer.run for received in self.offers if not received.over]


def short(identity: str) -> str:
    """Return the first 12 digits of a digest."""
    return identity.removeprefix("blake3:")[:12]


def request_folder(folder: Path, identity: str) -> Path:
    """Return where a request lies below a site's folder; `identity` is a checked digest."""
    return folder / "requests" / identity.removeprefix("blake3:")


def save_request(folder: Path, offer: Offer, archive: bytes | Path) -> Request:
    """Unpack an offer's code for its owner, once it is what the offer says.

    Args:
      folder: of the site.
      offer: what asks; its signature has been checked.
      archive: the package, or the path of its file.

    Raises:
      PackageError: package-identity, or all that `extract` raises; nothing is kept then.
      PlanError: the offer's plan is not one that this release knows.
      SiteError: site-request, more plans wait than a site keeps.
    """
    # With NumPy, which nobody needs who lists requests or says a word on one.
    from hansa.code import identity as identity_of
    from hansa.code import read_code
    from hansa.packages import build_archive, extract, read_archive
    from hansa.plan import PLAN_FILE, read_plan

    data = archive.read_bytes() if isinstance(archive, Path) else archive
    if f"blake3:{blake3(data).hexdigest()}" != offer.package.digest:
        raise _not_what_it_says("package", offer.package.digest)
    # The plan as its author wrote it travels along for people; what counts is the offer's plan.
    code = {name: text for name, text in read_archive(data).items() if name != PLAN_FILE}
    plan = read_plan(offer.plan, origin="the offer").plan
    if identity_of(plan, code) != offer.identity:
        raise _not_what_it_says("plan and code", offer.identity)
    place = request_folder(folder, offer.identity)
    file = place / "offers" / f"{offer.run}.json"
    if not file.is_file():
        _check_room(folder, place, offer)
    (place / "offers").mkdir(parents=True, exist_ok=True)
    extract(build_archive(code), place / "code")
    # What the approval is bound to is what a run reads: no file may hide from one of the two.
    if read_code(place / "code", plan.learner) != code:
        shutil.rmtree(place)
        raise _not_what_it_says("package holds files that are no part of the code; it", "")
    # A run that is offered is not over, whatever was heard of it: the server may be a restored one.
    if not file.is_file():
        write_durably(file, [msgspec.json.encode(Received(now(), offer))])
    elif (kept := _received(file)).over:
        _write(file, kept, over="")
    return _request(place)


def note_end(folder: Path, run: str) -> None:
    """Write down that a run is over, so that its plan no longer waits for the owner.

    Raises:
      SiteError: site-damaged, the request's file cannot be read.
    """
    for file in (folder / "requests").glob(f"*/offers/{run}.json"):
        if not (kept := _received(file)).over:
            _write(file, kept, over=now())


def _write(file: Path, received: Received, *, over: str) -> None:
    write_durably(file, [msgspec.json.encode(msgspec.structs.replace(received, over=over))])


def wanted_runs(folder: Path) -> list[str]:
    """Return the runs that have asked here and are not known to be over.

    A file that cannot be read is left out: whoever lists requests is told of it.
    """
    found = []
    for place in _folders(folder):
        for file in _offer_files(place):
            with contextlib.suppress(SiteError):
                found += [] if (kept := _received(file)).over else [kept.offer.run]
    return found


def _check_room(folder: Path, place: Path, offer: Offer) -> None:
    """See that an offer may be kept beside those that are here.

    Raises:
      SiteError: site-request.
    """
    kept, limit = len(list(_offer_files(place))), REQUESTS_MAX  # runs of this plan
    whose = "plans, or runs of one,"
    if not kept:
        folders = _folders(folder)
        kept = len(folders)
        if kept < REQUESTS_MAX and kept >= REQUESTS_OF_SUBMITTER_MAX:
            whose, limit = f"plans of {offer.submitter}", REQUESTS_OF_SUBMITTER_MAX
            kept = sum(_submitter(p) == offer.submitter for p in folders)
    if kept >= limit:
        raise SiteError(
            "site-request",
            f"{kept:,} {whose} are kept here; {offer.run} was not added.",
            f"Remove old folders from {folder / 'requests'}.",
        )


def _submitter(place: Path) -> str:
    """Return who asked first for a request, without looking at its other runs."""
    return _received(min(_offer_files(place))).offer.submitter


def _not_what_it_says(what: str, digest: str) -> PackageError:
    return PackageError(
        "package-identity",
        f"The {what} is not what the offer says ({short(digest)}). Nothing of it runs.",
        "Tell the server's operator: an honest server of the same release never sends this.",
    )


def list_requests(folder: Path) -> list[Request]:
    """Return all requests of a site, the newest last.

    Raises:
      SiteError: site-damaged, a request's file cannot be read.
    """
    found = [_request(place) for place in _folders(folder)]
    return sorted(found, key=lambda r: (r.offers[-1].at, r.identity))


def find_request(folder: Path, prefix: str) -> Request:
    """Return the one request whose identity begins with `prefix`, or that has a run of that name.

    Raises:
      SiteError: site-request, there is none, or there are several.
    """
    requests = list_requests(folder)
    start = prefix.removeprefix("blake3:").lower()
    found = [r for r in requests if start and r.identity.startswith(f"blake3:{start}")]
    found = found or [r for r in requests if prefix in r.runs]
    if len(found) == 1:
        return found[0]
    if found:
        these = ", ".join(r.short for r in found[:5])
        raise SiteError(
            "site-request",
            f"{clean(prefix)!r} could be {len(found)} requests: {these}.",
            "Type more of its digits.",
        )
    raise SiteError(
        "site-request",
        f"No request at this site begins with {clean(prefix)!r}.",
        "List them with: hansa site requests",
    )


def _folders(folder: Path) -> list[Path]:
    """Return the folders of requests that have arrived whole."""
    try:
        places = sorted((folder / "requests").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    named = [p for p in places if re.fullmatch("[0-9a-f]{64}", p.name)]
    return [p for p in named if any(_offer_files(p))]


def _offer_files(place: Path) -> Iterator[Path]:
    return (p for p in (place / "offers").glob("*.json") if not p.name.startswith("."))


def _request(place: Path) -> Request:
    received = [_received(path) for path in _offer_files(place)]
    received.sort(key=lambda r: (r.at, r.offer.run))
    return Request(f"blake3:{place.name}", place, tuple(received))


def _received(path: Path) -> Received:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Received)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SiteError(
            "site-damaged",
            f"{path} is damaged: {error}.",
            f"Remove the folder {path.parent.parent}; the server offers the plan again.",
        ) from None


def approve(
    folder: Path, identity: str, *, until: float | None, max_rounds: int | None, by: str
) -> Approval:
    """Record that an identity may run.

    Args:
      folder: of the site.
      identity: digest of plan and code.
      until: seconds since 1970 when this ends; None: it does not.
      max_rounds: rounds of this site over all runs of the identity; None: as many as planned.
      by: who says so.

    Raises:
      SiteError: site-damaged, the record of approvals cannot be trusted.
    """
    facts = {"identity": identity, "until": until, "max_rounds": max_rounds, "by": by}
    return _record(folder, "approved", facts)


def deny(folder: Path, identity: str, *, reason: str = "", by: str) -> Approval:
    """Record that an identity may not run, whatever the policy says, until it is approved.

    Raises:
      SiteError: site-damaged.
    """
    return _record(folder, "denied", {"identity": identity, "reason": reason, "by": by})


def _record(folder: Path, verdict: str, facts: Mapping[str, object]) -> Approval:
    read_approvals(folder)  # nothing is written behind damage
    event = EventLog(folder / APPROVALS_FILE).append(verdict, **facts)
    return _approval(event)


def read_approvals(folder: Path) -> list[Approval]:
    """Return the owner's words, oldest first.

    Raises:
      SiteError: site-damaged, a line is not one that was written here; then nothing may run.
    """
    path = folder / APPROVALS_FILE
    try:
        return [_approval(event) for event in EventLog(path).events]
    except (RunError, msgspec.ValidationError) as error:
        told = error.happened if isinstance(error, HansaError) else f"{path}: {error}."
        raise SiteError(
            "site-damaged",
            f"{told} No plan runs here until the approvals can be read.",
            f"Restore {path} from a backup; or move it away, and decide anew about each plan.",
        ) from None


def _approval(event: Mapping[str, object]) -> Approval:
    facts = {key: value for key, value in event.items() if key != "kind"}
    return msgspec.convert({**facts, "verdict": event["kind"]}, Approval)


def word_on(approvals: list[Approval], identity: str) -> Approval | None:
    """Return the owner's last word on an identity."""
    return next((a for a in reversed(approvals) if a.identity == identity), None)


def runs_of(folder: Path, identity: str) -> set[str]:
    """Return the names of the runs of an identity that have asked here."""
    return {path.stem for path in _offer_files(request_folder(folder, identity))}


def told(approval: Approval) -> str:
    """Return an approval in words."""
    if approval.verdict == "denied":
        return f"denied by {approval.by}" + (f": {approval.reason}" if approval.reason else "")
    until = approval.until
    ends = "" if until is None else f", until {time_told(until)}"
    rounds = approval.max_rounds
    counted = f", for {rounds} round{'s' * (rounds != 1)}" if rounds else ""
    return f"approved by {approval.by}{ends}{counted}"
