"""How an exchange is opened, from what the journal says of it or anew; and what is kept after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from hansa.params import encode
from hansa.protocol.messages import BlobRef, Phase
from hansa.rounds.questions import Asking, asked_in
from hansa.server.exchange import Desk
from hansa.server.journal import Event
from hansa.server.merging import MergingExchange
from hansa.server.round_files import Stores
from hansa.server.sums import Ask
from hansa.store.addresses import digest_of
from hansa.workflows import Answered, Problem


class Opening(NamedTuple):
    """An exchange, and what its cohort gets."""

    open: MergingExchange
    message: BlobRef


def open_asking(
    asked: Asking,
    ask: Ask,
    desk: Desk,
    *,
    stores: Stores,
    past: Sequence[Event],
    roster: Sequence[str],
    begin: Callable[[Event], Future[None]],
) -> Opening:
    """Open the exchange of a named task, or open it again with what it had before a crash.

    Args:
      asked: who is asked what; somebody is.
      ask: the same for the exchange, without the questions' addresses.
      desk: the server's journal, updates and key.
      stores: files; sites can fetch the questions from now on.
      past: events of the round from before a crash.
      roster: who was there when the round began.
      begin: records the beginning of an exchange, in time.
    """
    refs: dict[int, BlobRef] = {}  # by question: most often there is one for all
    for question in asked.questions.values():
        if id(question) not in refs:
            file = encode(question)
            digest = digest_of(*file)
            stores.messages.put(ask.run, digest, file)
            refs[id(question)] = BlobRef(digest=digest, size=sum(map(len, file)))
    questions = {client: refs[id(question)] for client, question in asked.questions.items()}
    opened, begun = opened_in(past, ask.number, ask.phase), None
    if opened is None:
        opened = {
            "kind": "opened",
            "round": ask.number,
            "phase": ask.phase,
            "cohort": list(ask.cohort),
            "clients": list(roster),
            "goal": ask.terms.goal,
        }
        begun = begin(opened)
    cohort = tuple(client for client in opened["cohort"] if client in questions)
    mine = [e for e in past if e.get("round") == ask.number and e.get("phase") == ask.phase]
    ask = ask._replace(cohort=cohort, questions=questions)
    exchange = MergingExchange(ask, desk, spill=None, past=mine, begun=begun)
    return Opening(exchange, next(iter(questions.values())))


def answered(opening: Opening, stores: Stores, *, problems: Sequence[Problem]) -> Answered:
    """Return what came of the exchange of a named task; nobody fetches its questions any more."""
    exchange, questions = opening.open, opening.open.ask.questions
    digests = {ref.digest for ref in questions.values()}
    stores.messages.drop(exchange.ask.run, sorted(digests))
    down = sum(ref.size for ref in questions.values())
    return Answered(exchange.answers(), problems, bytes_down=down, bytes_up=exchange.bytes_up)


def opened_in(past: Sequence[Event], number: int, phase: Phase) -> Event | None:
    """Return the event that opened an exchange before a crash."""
    return next(
        (e for e in past if e["kind"] == "opened" and e["round"] == number and e["phase"] == phase),
        None,
    )


def roster_of(past: Sequence[Event], number: int) -> Event | None:
    """Return an event that says who was there when a round began, if it has begun."""
    opened = (e for e in past if e["kind"] == "opened" and e["round"] == number)
    return next((e for e in opened if e["phase"] == "train" or asked_in(e["phase"])), None)
