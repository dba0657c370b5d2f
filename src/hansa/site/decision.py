"""The decision on a request as a site's folder stands: settings, approvals, ledger, keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from hansa.errors import IdentityError
from hansa.identity import (
    check_certificate,
    from_text,
    key_fingerprint,
    load_membership,
    submission_text,
    verify,
)
from hansa.protocol.messages import Offer
from hansa.site.ledger import LEDGER_FILE, Entry, Place, read_ledger
from hansa.site.policy import Approval, Decision, decide
from hansa.site.requests import Request, read_approvals, word_on
from hansa.site.settings import SiteSettings
from hansa.site.taken import Rounds

CANNOT = "The site cannot take part"
"""How a site begins what it reports of a run that is allowed and cannot be begun."""


def submitter_key(offer: Offer, authority_pem: str) -> str:
    """Return the fingerprint of the key that signed an offer.

    The certificate's time is not looked at: a submitter's lasts a day, and a run may wait longer.

    Raises:
      IdentityError: the certificate is not the federation's or not the submitter's, or the
        signature is not over this identity and this package.
    """
    member = check_certificate(offer.certificate, authority_pem, at=None)
    if member.name != offer.submitter or member.role not in ("submitter", "admin"):
        raise IdentityError(
            "identity-certificate",
            f"The offer of {offer.run} shows the certificate of {member.name}, a {member.role}, "
            f"as that of its submitter {offer.submitter}. Nothing of it runs.",
            "Tell the server's operator: an honest server never sends this.",
        )
    text = submission_text(offer.identity, offer.package.digest)
    verify(member.public, from_text(offer.signature), text)
    return key_fingerprint(member.public)


def cannot_run(folder: Path) -> dict[str, str]:
    """Return, by run, why this site could not take part when it last reported on it.

    Raises:
      SiteError: the ledger is damaged.
    """
    entries = (entry for entry, _ in read_ledger(folder / LEDGER_FILE))
    last = {e.run: e.detail for e in entries if e.kind == "standing"}
    start = f"refused: {CANNOT}: "
    return {run: d.removeprefix(start) for run, d in last.items() if d.startswith(start)}


def decision_on(folder: Path, request: Request, settings: SiteSettings, *, at: float) -> Decision:
    """Return what the site does about a request now.

    Args:
      folder: of the site.
      request: what asks.
      settings: of the site.
      at: now, seconds since 1970.

    Raises:
      SiteError: a record of the site is damaged; then nothing may run.
      IdentityError: the folder is no membership.
    """
    try:
        key = submitter_key(request.offer, load_membership(folder).trusted_pem)
    except IdentityError as error:
        if error.code == "identity-membership":
            raise
        return Decision("refuse", error.happened)
    rounds = Rounds(folder, request.identity, partial(_read, folder))
    return decision_about(request.offer, folder, settings, key=key, at=at, done=rounds.done)


def decision_told(request: Request, decision: Decision) -> str:
    """Return a decision in words, of a request whose runs may all be over."""
    if request.wanted:
        return decision.reason
    again = {
        "run": f"Another run of it would begin: {decision.reason}",
        "ask": "Another run of it would ask again.",
        "refuse": f"Another run of it would be refused: {decision.reason}",
    }
    return f"Nothing is to be decided: no run of it goes on. {again[decision.state]}"


def _read(folder: Path, place: Place) -> Iterator[tuple[Entry, Place]]:
    return read_ledger(folder / LEDGER_FILE, after=place)


def decision_about(
    offer: Offer,
    folder: Path,
    settings: SiteSettings,
    *,
    key: str,
    at: float,
    done: Callable[[Approval], int],
) -> Decision:
    """Return what the site does about an offer, as its owner's files are now.

    Args:
      offer: the offer; its signature has been checked.
      folder: of the site.
      settings: of the site.
      key: fingerprint of the key that signed the offer.
      at: now, seconds since 1970.
      done: says how many rounds count towards an approval; asked only of one that is for so many.

    Raises:
      SiteError: a record of the site is damaged; then nothing may run.
    """
    approvals = read_approvals(folder)
    word = word_on(approvals, offer.identity)
    count = 0 if word is None or word.max_rounds is None else done(word)
    return decide(
        offer, settings.policy, approvals, submitter_fingerprint=key, at=at,
        declared=settings.data, rounds_done=count,
    )  # fmt: skip
