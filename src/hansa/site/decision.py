"""The decision on a request as a site's folder stands: settings, approvals, ledger, keys."""

from __future__ import annotations

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
from hansa.site.ledger import LEDGER_FILE, Ledger
from hansa.site.policy import Decision, decide
from hansa.site.requests import Request, read_approvals, rounds_done
from hansa.site.settings import SiteSettings

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
    last = {e.run: e.detail for e in Ledger(folder / LEDGER_FILE).entries() if e.kind == "standing"}
    start = f"refused: {CANNOT}: "
    return {run: d.removeprefix(start) for run, d in last.items() if d.startswith(start)}


def decision_on(
    folder: Path,
    request: Request,
    settings: SiteSettings,
    *,
    at: float,
    task: tuple[str, int] | None = None,
) -> Decision:
    """Return what the site does about a request now.

    Args:
      folder: of the site.
      request: what asks.
      settings: of the site.
      at: now, seconds since 1970.
      task: a run and a round of it that is asked for; if it has begun here, it may be finished.

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
    approvals = read_approvals(folder)
    bounded = any(a.max_rounds is not None for a in approvals if a.identity == request.identity)
    done = 0
    if bounded:
        ledger = Ledger(folder / LEDGER_FILE)
        done = rounds_done(folder, ledger, request.identity, beside=task)
    return decide(
        request.offer, settings.policy, approvals, submitter_fingerprint=key, at=at,
        declared=settings.data, rounds_done=done,
    )  # fmt: skip
