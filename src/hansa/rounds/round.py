"""One round as a pure function of what happens: `step(state, event) -> (state, effects)`.

Everything that decides which updates of a round count lives in this file, and nothing else does.
There is no socket, file, clock or thread here: whoever runs the round turns what happens into
events, and the effects that come back into receipts, files and messages.

Theory of operation
-------------------
A round is OPEN, then CLOSED or STOPPED for good.  It knows the clients that were asked, its
cohort, and keeps for each of them one word:

    WAITING    was asked, nothing is known yet
    LOST       has not been heard of for a while; may come back, or answer after all
    ANSWERED   its update counts; never more than one
    FAILED     said that it could not train
    REFUSED    sent something that cannot be aggregated
    LEFT_OUT   was WAITING or LOST when the round ended

ANSWERED, FAILED, REFUSED and LEFT_OUT are settled and never change again.  An answer is known by
the digest of its bytes, so the same answer may arrive any number of times: the first time it
counts (`Count`), later it is only receipted again (`Repeat`), and another one in its place is
turned down (`Reject`).  What one client says changes only its own word; therefore the order in
which clients are heard, or how often, does not change whose updates count, unless the round ends
before it has heard them all.

A combiner's sum (`Together`) is the answer of several clients at once, and cannot be taken apart:
it counts if each of them could still answer, and otherwise not at all.

`TABLE` holds every transition of a client's word.  What is not in it changes nothing and is not
answered: a second failure, a loss of somebody who has answered.  After each event that leaves the
round open, `_over` says whether it has ended; then `Close` is the last effect.  It ends

    when all clients are settled;
    when as many have answered as the goal says, all that are mandatory among them;
    when all that are not settled are LOST, and the minimum and all mandatory have answered;
    when the minimum can no longer be met, or a mandatory client has not answered and never will;
    at `Deadline`; and at `Stop`, without `Close`.

Whether a closed round has enough updates is for the workflow to say.

    >>> state = open_round(["north", "south"], Terms(minimum=1))
    >>> state, effects = step(state, Answered("north", "blake3:5e"))
    >>> effects
    (Count(client='north', digest='blake3:5e'),)
    >>> state, effects = step(state, Lost("south"))
    >>> effects
    (Close(accepted=('north',)),)
    >>> state.why, state.clients["south"]
    ('the clients that have not answered are lost', <ClientStatus.LEFT_OUT: 'left out'>)

Source: the form is h11's: transitions in a table, from which the documentation is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    """Of a round."""

    OPEN = "open"
    CLOSED = "closed"
    STOPPED = "stopped"


class ClientStatus(StrEnum):
    """Of a client in a round."""

    WAITING = "waiting"
    LOST = "lost"
    ANSWERED = "answered"
    FAILED = "failed"
    REFUSED = "refused"
    LEFT_OUT = "left out"


class Heard(StrEnum):
    """What a round hears of a client; an answer is told apart from the one that counts."""

    ANSWER = "an answer"
    SAME = "the same answer"
    OTHER = "another answer"
    FAILURE = "a failure"
    REFUSAL = "a refusal"
    LOSS = "its loss"
    RETURN = "its return"


class Terms(NamedTuple):
    """When a round ends."""

    minimum: int = 1  # answers without which it is in vain
    goal: int | None = None  # answers that end it at once; None: wait for all
    mandatory: tuple[str, ...] = ()  # clients without whose answers it is in vain


class RoundState(NamedTuple):
    """All that is known of a round."""

    status: Status
    terms: Terms
    clients: Mapping[str, ClientStatus]  # the cohort
    digests: Mapping[str, str]  # of the answers that count, by client
    why: str  # how it ended; empty while it is open


class Answered(NamedTuple):
    """An admissible update of a client is here, whole and verified."""

    client: str
    digest: str


class Together(NamedTuple):
    """Admissible updates of several clients are here as one sum: all of them count, or none."""

    combiner: str  # who has folded them; what comes of it bears this name
    clients: tuple[str, ...]
    digest: str  # of the sum


class Failed(NamedTuple):
    """A client says that it cannot train."""

    client: str
    code: str


class Refused(NamedTuple):
    """A client's update cannot be aggregated."""

    client: str
    code: str


class Lost(NamedTuple):
    """A client has not been heard of for too long."""

    client: str


class Returned(NamedTuple):
    """A client is heard of again."""

    client: str


class Deadline(NamedTuple):
    """The round's time is over."""


class Stop(NamedTuple):
    """Nobody wants the round any more."""

    reason: str


class Count(NamedTuple):
    """Record this answer, give a receipt, and fold it: it counts."""

    client: str
    digest: str


class Repeat(NamedTuple):
    """Give the same receipt again, and change nothing."""

    client: str
    digest: str


class Reject(NamedTuple):
    """Turn an answer down; the code says why."""

    client: str
    code: str


class Close(NamedTuple):
    """The round is over; these and no others count."""

    accepted: tuple[str, ...]  # sorted


RoundEvent = Answered | Together | Failed | Refused | Lost | Returned | Deadline | Stop
Effect = Count | Repeat | Reject | Close

_OPEN, _ENDED = Status.OPEN, (Status.CLOSED, Status.STOPPED)
_WAITING, _LOST, _ANSWERED = ClientStatus.WAITING, ClientStatus.LOST, ClientStatus.ANSWERED
_FAILED, _REFUSED, _LEFT_OUT = ClientStatus.FAILED, ClientStatus.REFUSED, ClientStatus.LEFT_OUT


class Transition(NamedTuple):
    """What becomes of a client, and how it is answered."""

    status: ClientStatus | None  # None: not of the cohort, and never will be
    reply: str | None = None  # "count", "repeat", or the code of a rejection


TABLE: Mapping[tuple[Status, ClientStatus | None, Heard], Transition] = {
    (_OPEN, _WAITING, Heard.ANSWER): Transition(_ANSWERED, "count"),
    (_OPEN, _WAITING, Heard.FAILURE): Transition(_FAILED),
    (_OPEN, _WAITING, Heard.REFUSAL): Transition(_REFUSED),
    (_OPEN, _WAITING, Heard.LOSS): Transition(_LOST),
    (_OPEN, _LOST, Heard.ANSWER): Transition(_ANSWERED, "count"),
    (_OPEN, _LOST, Heard.FAILURE): Transition(_FAILED),
    (_OPEN, _LOST, Heard.REFUSAL): Transition(_REFUSED),
    (_OPEN, _LOST, Heard.RETURN): Transition(_WAITING),
    (_OPEN, _ANSWERED, Heard.SAME): Transition(_ANSWERED, "repeat"),
    (_OPEN, _ANSWERED, Heard.OTHER): Transition(_ANSWERED, "update-conflict"),
    (_OPEN, _FAILED, Heard.ANSWER): Transition(_FAILED, "update-failed"),
    (_OPEN, _REFUSED, Heard.ANSWER): Transition(_REFUSED, "update-failed"),
    (_OPEN, None, Heard.ANSWER): Transition(None, "update-not-asked"),
} | {
    (ended, who, heard): Transition(who, "repeat" if heard is Heard.SAME else "update-late")
    for ended in _ENDED
    for who, heard in (
        (_ANSWERED, Heard.SAME),
        (_ANSWERED, Heard.OTHER),
        (_FAILED, Heard.ANSWER),
        (_REFUSED, Heard.ANSWER),
        (_LEFT_OUT, Heard.ANSWER),
        (None, Heard.ANSWER),
    )
}
"""Every transition: (round, client, what is heard) -> (client, reply).  None: not asked."""


def open_round(cohort: Sequence[str], terms: Terms) -> RoundState:
    """Return a round in which everybody is asked.

    One that cannot meet its minimum, or asks nobody, is CLOSED from the start.
    """
    clients = dict.fromkeys(cohort, _WAITING)
    state = RoundState(_OPEN, terms, clients, {}, "")
    over = _over(state)
    return _end(state, Status.CLOSED, over) if over else state


def step(state: RoundState, event: RoundEvent) -> tuple[RoundState, tuple[Effect, ...]]:
    """Return the round after an event, and what is to be done, in order."""
    if isinstance(event, Deadline | Stop):
        return _finish(state, event)
    if isinstance(event, Together):
        return _together(state, event)
    who = state.clients.get(event.client)
    found = TABLE.get((state.status, who, _heard(state, event)))
    if found is None:
        return state, ()
    effects: tuple[Effect, ...] = ()
    if isinstance(event, Answered):
        effects = (_reply(event, found.reply),)
    if found.status is who or found.status is None:
        return state, effects
    state = state._replace(clients={**state.clients, event.client: found.status})
    if isinstance(event, Answered):
        state = state._replace(digests={**state.digests, event.client: event.digest})
    state, closing = _closed_if_over(state)
    return state, effects + closing


def accepted(state: RoundState) -> tuple[str, ...]:
    """Return the clients whose updates count so far, sorted."""
    return tuple(sorted(state.digests))


def _finish(state: RoundState, event: Deadline | Stop) -> tuple[RoundState, tuple[Effect, ...]]:
    if state.status is not _OPEN:
        return state, ()
    if isinstance(event, Stop):
        return _end(state, Status.STOPPED, event.reason), ()
    state = _end(state, Status.CLOSED, "its time is over")
    return state, (Close(accepted(state)),)


def _together(state: RoundState, event: Together) -> tuple[RoundState, tuple[Effect, ...]]:
    combiner, clients, digest = event
    replies = []
    for client in clients:
        one = Answered(client, digest)
        found = TABLE[state.status, state.clients.get(client), _heard(state, one)]
        replies.append(found.reply or "update-conflict")
    if set(replies) == {"repeat"}:
        return state, (Repeat(combiner, digest),)
    if set(replies) != {"count"}:  # a sum cannot be taken apart
        codes = [reply for reply in replies if reply not in ("count", "repeat")]
        return state, (Reject(combiner, codes[0] if codes else "update-conflict"),)
    state = state._replace(
        clients={**state.clients, **dict.fromkeys(clients, _ANSWERED)},
        digests={**state.digests, **dict.fromkeys(clients, digest)},
    )
    state, closing = _closed_if_over(state)
    return state, (Count(combiner, digest), *closing)


def _closed_if_over(state: RoundState) -> tuple[RoundState, tuple[Effect, ...]]:
    over = _over(state)
    if not over:
        return state, ()
    state = _end(state, Status.CLOSED, over)
    return state, (Close(accepted(state)),)


def _heard(state: RoundState, event: Answered | Failed | Refused | Lost | Returned) -> Heard:
    match event:
        case Failed():
            return Heard.FAILURE
        case Refused():
            return Heard.REFUSAL
        case Lost():
            return Heard.LOSS
        case Returned():
            return Heard.RETURN
    counted = state.digests.get(event.client)
    if counted is None:
        return Heard.ANSWER
    return Heard.SAME if counted == event.digest else Heard.OTHER


def _reply(event: Answered, reply: str | None) -> Effect:
    assert reply is not None  # every answer gets one; the tests read it off the table
    if reply == "count":
        return Count(*event)
    return Repeat(*event) if reply == "repeat" else Reject(event.client, reply)


def _over(state: RoundState) -> str:
    """Say why an open round is to be closed, or nothing."""
    now = Counter(state.clients.values())
    minimum, goal, mandatory = state.terms
    needed = [state.clients.get(name) for name in mandatory]
    complete = all(word is _ANSWERED for word in needed)
    if not now[_WAITING] + now[_LOST]:
        return "all clients are heard"
    if goal is not None and now[_ANSWERED] >= goal and complete:
        return f"{goal} clients have answered, as many as were wanted"
    if now[_ANSWERED] + now[_WAITING] + now[_LOST] < minimum:
        return f"the minimum of {minimum} answers can no longer be met"
    if any(word not in (_WAITING, _LOST, _ANSWERED) for word in needed):
        return "a mandatory client has not answered and never will"
    if not now[_WAITING] and now[_ANSWERED] >= minimum and complete:
        return "the clients that have not answered are lost"
    return ""


def _end(state: RoundState, status: Status, why: str) -> RoundState:
    pending = (_WAITING, _LOST)
    clients = {name: _LEFT_OUT if word in pending else word for name, word in state.clients.items()}
    return state._replace(status=status, clients=clients, why=why)
