"""Named tasks: what a client is asked besides training and evaluation, and what it answers.

A question is tensors and settings, an answer tensors and facts; settings and facts are objects of
JSON.  Either is one file of tensors whose metadata holds the object, so that its digest names all
of it: a question that differs in one setting is another one, and an answer is counted once.

What a client keeps for itself between two tasks, its state, never travels.  An answer names the
state that it left by its digest, and a question names the one to begin from; so whatever is
repeated after a crash begins from the state that a commit, or an answer that counts, has named.

    >>> question = packed(None, {"bins": 4})
    >>> unpacked(question)
    Answer(params=None, facts={'bins': 4}, state='')
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from hansa.errors import RunError
from hansa.limits import ANSWER_SLACK_BYTES, ASK_STEPS_MAX, FACTS_BYTES_MAX, UPDATE_TIMES_MAX
from hansa.params import Params

FACTS = "hansa.facts"
"""Key of the metadata under which the object travels."""

STATE = "hansa.state"
"""Key of the metadata under which the digest of a client's state travels."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_PHASE = re.compile(r"ask\.([A-Za-z][A-Za-z0-9_-]{0,63})\.(0|[1-9][0-9]{0,5})", re.ASCII)
_DIGEST = re.compile(r"blake3:[0-9a-f]{64}", re.ASCII)


class Answer(NamedTuple):
    """What one client answers; also what it was asked, where `facts` are the settings."""

    params: Params | None
    facts: dict[str, Any]  # JSON
    state: str = ""  # digest of what the client kept, or begins from; "" is nothing


class Asking(NamedTuple):
    """One exchange of a named task: who is asked what."""

    number: int  # of the round
    task: str
    step: int
    questions: Mapping[str, Params]  # by client, packed

    @property
    def phase(self) -> str:
        """What this exchange is called among those of its round."""
        return phase_of(self.task, self.step)


def asking(
    number: int,
    task: str,
    clients: Iterable[str],
    *,
    message: Mapping[str, Params] | Params | None,
    settings: Mapping[str, Any],
    step: int,
) -> Asking:
    """Return an exchange of a named task.

    Args:
      number: of the round.
      task: its name.
      clients: who is asked.
      message: the tensors for all, or those of each client.
      settings: JSON, the same for all.
      step: tells apart exchanges of one task in one round.

    Raises:
      RunError: task-question, this cannot be asked.
    """
    if not _NAME.fullmatch(task) or not 0 <= step < ASK_STEPS_MAX:
        raise _cannot_ask(f"The workflow asks for the task {task!r:.80}, step {step}.")
    names = list(clients)
    if isinstance(message, Params) or message is None:
        return Asking(number, task, step, dict.fromkeys(names, _question(task, message, settings)))
    if lacking := [name for name in names if name not in message]:
        raise _cannot_ask(f"The workflow asks {lacking[0]} for {task} without a message for it.")
    return Asking(
        number, task, step, {name: _question(task, message[name], settings) for name in names}
    )


def once(asked: Asking, before: frozenset[tuple[int, str]]) -> frozenset[tuple[int, str]]:
    """Return the exchanges of the round that goes on, with one more.

    Args:
      asked: the one more.
      before: rounds and phases.

    Raises:
      RunError: task-question, it is among them.
    """
    if (asked.number, asked.phase) in before:
        raise _cannot_ask(
            f"The workflow asks for {asked.task}, step {asked.step}, twice in round {asked.number}."
        )
    return before | {(asked.number, asked.phase)}


def phase_of(task: str, step: int) -> str:
    """Return the name of a named task's exchange.

    >>> phase_of("histogram", 2)
    'ask.histogram.2'
    """
    return f"ask.{task}.{step}"


def asked_in(phase: str) -> tuple[str, int] | None:
    """Return name and step of the named task that an exchange asks for; None for other exchanges.

    >>> asked_in("ask.histogram.2"), asked_in("train")
    (('histogram', 2), None)
    """
    found = _PHASE.fullmatch(phase)
    return (found[1], int(found[2])) if found else None


def from_state(params: Params | None, state: str) -> Params:
    """Return tensors that belong to a client's state: of a question, or of an answer.

    Args:
      params: the tensors, or none.
      state: its digest; "" is none.
    """
    found = Params.of({}) if params is None else params
    return Params(found.layout, found.body, {STATE: state} if state else {})


def packed(params: Params | None, facts: Mapping[str, Any]) -> Params:
    """Return tensors and an object as one file's content; a state that they belong to stays named.

    Raises:
      ValueError: the object is no JSON, or larger than FACTS_BYTES_MAX.
    """
    if not isinstance(facts, Mapping):
        raise ValueError(f"they are {type(facts).__name__} and not an object")
    try:
        text = msgspec.json.encode(dict(facts), enc_hook=_number, order="deterministic")
    except (TypeError, msgspec.MsgspecError, RecursionError, OverflowError) as error:
        raise ValueError(f"they are no JSON: {error}") from None
    if len(text) > FACTS_BYTES_MAX:
        raise ValueError(f"they take {len(text)} bytes of JSON; up to {FACTS_BYTES_MAX} can travel")
    metadata = {FACTS: text.decode()}
    if params is None:
        return Params.of({}, metadata)
    if STATE in params.metadata:
        metadata[STATE] = params.metadata[STATE]
    return Params(params.layout, params.body, metadata)


def unpacked(params: Params) -> Answer:
    """Return what was packed; it may come from anywhere.

    Raises:
      ValueError: it was not made by `packed`.
    """
    text, state = params.metadata.get(FACTS, ""), params.metadata.get(STATE, "")
    if state and not _DIGEST.fullmatch(state):
        raise ValueError("the state that it names is no digest")
    if params.metadata.keys() - {STATE} != {FACTS} or len(text.encode()) > FACTS_BYTES_MAX:
        raise ValueError(f"its facts are missing, or take more than {FACTS_BYTES_MAX} bytes")
    try:
        facts = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"its facts are no object of JSON: {error}") from None
    return Answer(Params(params.layout, params.body) if len(params) else None, facts, state)


def most_bytes(model_bytes: int) -> int:
    """Return the most that a question or an answer takes where the model has so many bytes."""
    return UPDATE_TIMES_MAX * model_bytes + ANSWER_SLACK_BYTES


def _question(task: str, params: Params | None, settings: Mapping[str, Any]) -> Params:
    try:
        return packed(params, settings)
    except ValueError as error:
        raise _cannot_ask(f"The settings for {task} cannot be sent: {error}.") from None


def _number(value: Any) -> Any:
    """Return NumPy's own numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no value of JSON")


def _cannot_ask(happened: str) -> RunError:
    return RunError(
        "task-question",
        f"{happened} Nothing was asked.",
        "A task's name has letters, digits, - and _; settings are an object of JSON; a task that "
        "is asked for several times in a round has another step each time.",
    )
