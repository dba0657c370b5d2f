"""What a workflow in its process wants of the federation is looked at, then done.

The process may say anything.  What would harm more than its own run is refused here, in a
sentence; what could only spoil that run is the handle's business, as it is with any workflow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
import numpy as np

from hansa.algorithms import Algorithm
from hansa.errors import RunError
from hansa.limits import (
    AT_WORK_MAX,
    FUNCTION_SLACK_BYTES,
    FUNCTION_TIMES_MAX,
    FUNCTION_VALUE_BYTES_MAX,
    OWN_CALLS_MAX,
    OWN_COMMIT_BYTES_MAX,
)
from hansa.own.values import Arrays, Unfit, as_kind
from hansa.own.wants import WANTS, Arriving, Questions, Training
from hansa.rounds import Terms, largest_parameter
from hansa.workflows import Commit, Evaluated, Federation, GlobalState, Problem, Progress
from hansa.workflows.federation import Answered, Arrived, Trained


class _Summary(msgspec.Struct):
    """One metric in a row; see `hansa.metrics.summarise`."""

    mean: float | None
    weight: float | None
    min: float | None
    q25: float | None
    median: float | None
    q75: float | None
    max: float | None
    by_client: dict[str, float | None]


class _Counts(msgspec.Struct):
    asked: int = 0
    accepted: int = 0
    failed: int = 0
    refused: int = 0


class _Bytes(msgspec.Struct):
    down: int = 0
    up: int = 0


class _Crossed(msgspec.Struct):
    model: str
    metrics: dict[str, dict[str, float | None]]


class _Row(msgspec.Struct):
    """A round's row, as far as others read it; what is left out is made up for."""

    round: int
    clients: _Counts = msgspec.field(default_factory=_Counts)
    bytes: _Bytes = msgspec.field(default_factory=_Bytes)
    train: dict[str, _Summary] = {}
    validation: dict[str, _Summary] = {}
    test: dict[str, _Summary] = {}
    seconds: float = 0.0
    cross_site: _Crossed | msgspec.UnsetType = msgspec.UNSET


class Answering:
    """What one workflow gets; of its run's thread.

    Args:
      federation: the real handle.
      expect: is told how many clients there are.
      algorithm: of the run, if it is one of Hansa's: it takes states of its own for granted.
    """

    def __init__(
        self,
        federation: Federation,
        expect: Callable[[int], None],
        algorithm: Algorithm | None = None,
    ) -> None:
        self._federation, self._expect, self._algorithm = federation, expect, algorithm
        self._last: Commit | None = None
        self._roster: frozenset[str] = frozenset()
        self._roster_of = 0  # the round whose roster that is
        self._done: set[str] = set()  # exchanges of the round that goes on
        self._holds = self._calls = 0  # since the last commit

    async def answer(self, method: str, value: Any, arrays: Arrays) -> Any:
        """Return what a workflow wants.

        Args:
          method: of the handle.
          value: its arguments, as `plain` has made them.
          arrays: those among them.

        Raises:
          RunError: it cannot have that.
        """
        self._calls += 1
        if method not in WANTS:
            raise _refused(f"{method!r:.40} of its federation, which has no such method")
        try:
            arguments = as_kind(value, arrays, WANTS[method].takes)
        except Unfit as why:
            raise _refused(f"{method} with arguments of another kind: {why}") from None
        if self._last is None and method != "resume":
            self._do_resume()
        found = getattr(self, f"_do_{method}")(*arguments)
        found = await found if hasattr(found, "__await__") else found
        self._calls -= method == "ask"
        return found

    @property
    def spent(self) -> bool:
        """Return whether the workflow has asked more in one round than any needs."""
        return self._calls > OWN_CALLS_MAX

    # ---- the methods

    def _do_resume(self) -> Commit:
        self._last = self._federation.resume()
        return self._last

    def _do_elapsed(self) -> float:
        return self._federation.elapsed()

    async def _do_roster(self, number: int) -> list[str]:
        self._check_round(number)
        found = list(await self._federation.roster(number))
        before = self._roster if self._roster_of == number else frozenset[str]()
        self._roster, self._roster_of = before.union(found), number
        self._expect(len(found))
        return found

    def _do_recall(self, number: int) -> GlobalState:
        try:
            return self._federation.recall(number)
        except (LookupError, StopIteration, OSError):
            raise _refused(f"the model of round {number}, which was not kept") from None

    async def _do_train(self, *arguments: Any) -> Trained:
        asked = Training(*arguments)
        await self._check_exchange("train", asked.number, asked.cohort, asked.state)
        self._check_terms(asked.terms, asked.cohort)
        if odd := sorted((asked.steps or {}).keys() - set(asked.cohort)):
            raise _refused(f"steps of {odd[0]!r:.80}, who is not in the cohort")
        if any(not 0 < steps < 2**31 for steps in (asked.steps or {}).values()):
            raise _refused("a number of steps that nobody can take")
        _check_json("settings", asked.settings or {}, FUNCTION_VALUE_BYTES_MAX)
        return await self._federation.train(
            asked.number,
            asked.state,
            asked.cohort,
            terms=asked.terms,
            steps=asked.steps,
            settings=asked.settings,
        )

    async def _do_arrivals(self, *arguments: Any) -> Arrived:
        asked = Arriving(*arguments)
        await self._check_exchange("train", asked.number, asked.cohort, asked.state)
        if any(not 0 < work.round <= asked.number for work in asked.at_work.values()):
            raise _refused("updates of rounds that have not been")
        if len(asked.at_work) > AT_WORK_MAX or asked.updates < 1:
            raise _refused(f"{asked.updates} updates of {len(asked.at_work)} clients at work")
        return await self._federation.arrivals(
            asked.number, asked.state, asked.cohort, at_work=asked.at_work, count=asked.updates
        )

    def _do_hold(self, client: str, number: int, vectors: Mapping[str, np.ndarray]) -> None:
        """Hold vectors, each of which is in memory until a commit."""
        last = self._last
        assert last is not None
        if not (client in self._roster or client in last.at_work):
            raise _refused(f"to hold vectors of {client!r:.80}, who is not there")
        if not 0 < number <= last.round + 1:
            raise _refused(f"to hold vectors of round {number}, which has not been")
        size = sum(vector.nbytes for vector in vectors.values())
        most = FUNCTION_TIMES_MAX * self._federation.layout.layout.nbytes + FUNCTION_SLACK_BYTES
        if size > most:
            raise _refused(f"to hold vectors of {size:,} bytes; of this model it may {most:,}")
        self._holds += 1
        if self._holds > max(1, len(self._roster)):
            raise _refused("to hold vectors of more clients in a round than there are")
        self._federation.hold(client, number, vectors)

    def _do_held(self, client: str, number: int) -> Mapping[str, Any]:
        try:
            return self._federation.held(client, number)
        except (LookupError, OSError):
            raise _refused(f"vectors of {client!r:.80}, which were not held") from None

    def _do_stored(self, state: GlobalState) -> GlobalState:
        self._check_state(state)
        return self._federation.stored(state)

    async def _do_evaluate(self, number: int, state: GlobalState, clients: list[str]) -> Evaluated:
        await self._check_exchange("evaluate", number, clients, state)
        return await self._federation.evaluate(number, state, clients)

    async def _do_ask(self, *arguments: Any) -> Answered:
        asked = Questions(*arguments)
        # A name and a step once in a round: the handle sees to that.
        await self._check_exchange("", asked.number, asked.clients)
        self._check_terms(asked.terms, asked.clients)
        return await self._federation.ask(
            asked.number,
            asked.task,
            asked.clients,
            message=asked.message if asked.messages is None else asked.messages,
            settings=asked.settings,
            terms=asked.terms,
            step=asked.step,
        )

    async def _do_test(self, number: int, state: GlobalState) -> Any:
        self._check_state(state)
        return await self._federation.test(number, state)

    async def _do_commit(self, commit: Commit, problems: list[Problem]) -> None:
        self._check_round(commit.round)
        self._check_state(commit.state)
        largest_parameter(commit.state.algorithm.x)
        if not np.isfinite(commit.state.buffers).all():
            raise _refused("to commit a model whose buffers hold NaN or infinity")
        _check_json("row", commit.row, OWN_COMMIT_BYTES_MAX)
        _check_json("progress", commit.progress, OWN_COMMIT_BYTES_MAX)
        try:
            row = msgspec.convert(commit.row, _Row)
            progress = msgspec.convert(tuple(Progress(**commit.progress)), Progress)
        except (msgspec.ValidationError, TypeError) as error:
            raise _refused(f"to commit a row or a progress that nobody can read: {error}") from None
        if row.round != commit.round or not 0 <= progress.best_round <= commit.round:
            raise _refused("to commit a row of another round")
        if len(commit.at_work) > AT_WORK_MAX or len(commit.holds) > AT_WORK_MAX:
            raise _refused(f"to commit more than {AT_WORK_MAX} clients at work, or held")
        if any(not 0 < work.round <= commit.round for work in commit.at_work.values()):
            raise _refused("to commit clients at work of rounds that have not been")
        try:
            await self._federation.commit(commit, problems)
        except LookupError:  # of what it says is held
            raise _refused("to commit vectors that were not held") from None
        self._last = commit._replace(row={}, progress={})
        self._done.clear()
        self._holds = self._calls = 0

    # ---- inside

    def _check_round(self, number: int) -> None:
        assert self._last is not None  # `answer` has seen to it
        if number != self._last.round + 1:
            raise _refused(f"round {number}, and the last commit is of round {self._last.round}")

    async def _check_exchange(
        self, phase: str, number: int, clients: Collection[str], state: GlobalState | None = None
    ) -> None:
        """Refuse an exchange with others than the roster's, one more of a round, or a bad state."""
        self._check_round(number)
        if self._roster_of != number:
            await self._do_roster(number)
        if clients and phase in self._done:
            raise _refused(f"to {phase} twice in round {number}; commit first, or ask named tasks")
        if odd := sorted(set(clients) - self._roster):
            raise _refused(f"{odd[0]!r:.80}, who is not there")
        if len(set(clients)) < len(clients):
            raise _refused("a client twice in one exchange")
        self._done |= {phase} - {""} if clients else set()
        if state is not None:
            self._check_message(state)

    def _check_terms(self, terms: Terms, clients: Collection[str]) -> None:
        goal = len(clients) if terms.goal is None else terms.goal
        if terms.minimum < 0 or goal < 0 or not set(terms.mandatory) <= set(clients):
            raise _refused(f"an exchange with {tuple(terms)!r:.80}, which cannot be")

    def _check_state(self, state: GlobalState) -> None:
        """Refuse a state that is none of this model."""
        assert self._last is not None
        known = self._last.state
        x, like = state.algorithm.get("x"), np.asarray(known.algorithm.x)
        if x is None or x.shape != like.shape or x.dtype != like.dtype:
            raise _refused("to send or commit a model of other tensors than the run's")
        if state.buffers.shape != known.buffers.shape or state.buffers.dtype != np.float64:
            raise _refused("to send or commit buffers of another model than the run's")

    def _check_message(self, state: GlobalState) -> None:
        """Refuse a state out of which the algorithm can make no message."""
        self._check_state(state)
        if self._algorithm is None:
            return
        try:
            self._algorithm.broadcast(state.algorithm)
        except AttributeError as error:
            what = f"to send a state without the {error} of {self._algorithm.name}"
            raise _refused(what) from None


def _check_json(what: str, value: Mapping[str, Any], most: int) -> None:
    try:
        size = len(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused(f"a {what} that is no JSON: {error}") from None
    if size > most:
        raise _refused(f"a {what} of {size:,} characters; {most:,} may be kept")


def _refused(what: str) -> RunError:
    return RunError(
        "function-failed",
        f"The workflow wants {what}. It was not done.",
        "Go on from resume(), choose clients out of roster(), and commit round after round.",
    )
