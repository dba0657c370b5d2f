"""What a site's owner allows, and the decision on one run; pure, and closed wherever in doubt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from hansa.clock import date_of
from hansa.protocol.messages import Digest, Offer

Submitter = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(#\S{1,128})?\Z", max_length=200)
]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table [policy] of site.toml.  Without it nothing runs."""

    submitters: tuple[Submitter, ...] | None = None
    """who may submit: names, or "name#fingerprint" for one key alone; without it anyone may ask"""
    approve: Literal["ask", "submitters"] = "ask"
    """ask: you approve every plan by hand; submitters: theirs run without being asked"""
    packages: tuple[Digest, ...] = ()
    """identities of plan and code that run without being asked; submitters still holds"""
    data: tuple[str, ...] | None = None
    """names of data that may be used; by default all that are declared"""
    tasks: tuple[str, ...] | None = None
    """named tasks that a run's code may answer besides training and evaluation; by default all
    that the plan asks for, which you approve with it; others are never answered"""
    filters: tuple[dict[str, Any], ...] = ()
    """what is done to every update and answer before it leaves, in this order, by the agent and not
    by the run's code: [{ name = "clip", norm = 1.0 }, { name = "exclude", tensors = ["head.*"] }];
    also percentile and sparse_vector, as transforms of a plan are"""
    sandbox: Literal["required", "preferred", "none"] = "required"
    """required: without a sandbox nothing runs; none: code runs with the rights of the agent"""
    max_rounds: Annotated[int, Meta(ge=1)] | None = None
    """plans that ask for more rounds are refused"""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """An owner's word on one identity; the last word holds."""

    identity: Digest
    verdict: Literal["approved", "denied"]
    by: str
    at: str
    until: float | None = None  # seconds since 1970; it ends then
    max_rounds: int | None = None  # of this site, over all runs of the identity
    reason: str = ""


class Decision(NamedTuple):
    """What a site does about a run, and why, in words for its owner and the submitter."""

    state: Literal["run", "ask", "refuse"]
    reason: str


def decide(
    offer: Offer,
    policy: Policy | None,
    approvals: Sequence[Approval],
    *,
    submitter_fingerprint: str,
    at: float,
    declared: Collection[str] | None = None,
    rounds_done: int = 0,
) -> Decision:
    """Decide whether a run may use this site's data.

    The caller has checked that the offer's signature and identity are true.

    Args:
      offer: what is asked for.
      policy: the owner's; None refuses everything.
      approvals: the owner's words so far, oldest first.
      submitter_fingerprint: of the key that signed the offer.
      at: now, seconds since 1970; a wrong clock can only end approvals, or let one live on.
      declared: names of the data that the site has; None leaves that to the loader.
      rounds_done: rounds that this site did for the identity since it was last approved.
    """
    if policy is None:
        return Decision("refuse", "The site has no policy, so nothing runs there.")
    word = next((a for a in reversed(approvals) if a.identity == offer.identity), None)
    if word is not None and word.verdict != "approved":
        return Decision("refuse", "The site's owner has denied it" + _because(word.reason))
    if fault := _not_allowed(offer, policy, submitter_fingerprint, declared=declared):
        return Decision("refuse", fault)
    if word is None:  # the owner's word on this very plan goes before what holds for many
        if offer.identity in policy.packages:
            return Decision("run", "The policy names this plan and code.")
        if policy.approve == "submitters" and policy.submitters:
            return Decision("run", f"The policy runs what {offer.submitter} submits.")
        return Decision("ask", "It waits for the site's owner to approve or deny it.")
    if word.until is not None and not at < word.until:
        return Decision("ask", f"The owner's approval ended at {time_told(word.until)}.")
    if word.max_rounds is not None and not rounds_done < word.max_rounds:
        told = (
            f"The owner's approval was for {_rounds(word.max_rounds)}, all done or begun, and the "
            f"plan has {offer.plan.get('rounds')}. The site takes part again once its owner "
            "approves the plan anew."
        )
        return Decision("ask", told)
    if word.max_rounds is not None:
        left = f"for {_rounds(word.max_rounds)}, {rounds_done} of them done or begun"
        return Decision("run", f"{word.by} has approved it {left}.")
    return Decision("run", f"{word.by} has approved it.")


def fewer_told(approved: int | None, planned: object) -> str:
    """Say what comes of an approval for fewer rounds than a plan has; nothing where it has enough.

    >>> fewer_told(5, 3), fewer_told(None, 3)
    ('', '')
    """
    if approved is None or type(planned) is not int or approved >= planned:
        return ""
    return (
        f"The plan has {planned} rounds: after {approved} this site takes no part until you "
        "approve it again, and a run that cannot do without it waits for you, up to its deadline."
    )


def _rounds(count: int) -> str:
    return f"{count} round{'s' * (count != 1)}"


def may_not_ask(offer: Offer, policy: Policy, fingerprint: str) -> str | None:
    """Return why a policy does not even listen to an offer's submitter.

    Args:
      offer: what is asked for.
      policy: the owner's.
      fingerprint: of the key that signed the offer.
    """
    if policy.submitters is None or _is_named(offer.submitter, fingerprint, policy):
        return None
    return f"The policy does not let {offer.submitter} submit with this key."


def time_told(seconds: float) -> str:
    """Return a wall time in ISO 8601; the number itself where no calendar has it."""
    try:
        return date_of(seconds).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} seconds after 1970"


def _because(reason: str) -> str:
    return f": {reason}" if reason else "."


def _not_allowed(
    offer: Offer, policy: Policy, fingerprint: str, *, declared: Collection[str] | None
) -> str | None:
    """Return which rule of the policy stands against a run, whoever approves it."""
    if fault := may_not_ask(offer, policy, fingerprint):
        return fault
    rounds = offer.plan.get("rounds")
    if policy.max_rounds is not None and (
        type(rounds) is not int or not 1 <= rounds <= policy.max_rounds
    ):
        return f"The plan asks for {rounds} rounds; the policy allows {policy.max_rounds}."
    table = offer.plan.get("data")
    data = table.get("set", 0) if isinstance(table, dict) else 0
    if data is not None and not isinstance(data, str):
        return "The plan does not say what data it asks for."
    if policy.data is not None and data not in policy.data:
        return f"The plan asks for {_named(data)}, which the policy does not allow."
    if declared is not None and data is not None and data not in declared:
        return f"The plan asks for {_named(data)}, which the site does not have."
    return None


def _is_named(name: str, fingerprint: str, policy: Policy) -> bool:
    for entry in policy.submitters or ():
        named, keyed, key = entry.partition("#")
        if named == name and (not keyed or (key and key == fingerprint)):
            return True
    return False


def _named(data: str | None) -> str:
    """Return data in words; None leaves it to the project's code."""
    return "data that its own code chooses" if data is None else f"the data {data!r}"
