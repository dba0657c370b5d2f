"""The handle through which a workflow acts: the same in simulation and on real sites (law L1).

A workflow chooses cohorts, exchanges tasks and commits; how clients are reached, what a crash
does, and where a commit is stored is the handle's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from hansa.aggregators import Aggregate
from hansa.aggregators.aggregator import Vector
from hansa.algorithms import Vectors
from hansa.metrics import Metrics
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.rounds import Terms
from hansa.rounds.questions import Answer

ANYBODY = Terms(minimum=0)
"""An exchange that is not in vain when nobody answers."""


NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


class Problem(NamedTuple):
    """A client whose part of a round did not count, and why."""

    round: int
    client: str
    kind: str  # "failed": it raised or died; "refused": its update was not admitted
    code: str
    message: str
    file: str | None = None  # in the run folder, with the traceback


def problem_events(problems: Iterable[Problem], phase: str) -> list[dict[str, Any]]:
    """Return the events of a run that tell problems.

    Args:
      problems: of one phase.
      phase: of the round; "round" where it is the workflow's own word and no exchange's.
    """
    return [{**p._asdict(), "kind": "problem", "what": p.kind, "phase": phase} for p in problems]


class Trained(NamedTuple):
    """What a cohort's training came to."""

    aggregate: Aggregate | None  # None when no update was accepted
    metrics: Mapping[str, Metrics]  # by client, measured while training
    problems: Sequence[Problem]
    bytes_down: int
    bytes_up: int
    asked: int | None = None  # clients; None: the whole cohort


class AtWork(NamedTuple):
    """What a client trains on while rounds go by."""

    round: int  # in which it was asked; its model is that of the round before
    until: float = 0.0  # seconds, from the end of the last round, of a simulated client


class Arrival(NamedTuple):
    """One client's update, on its own."""

    client: str
    asked: int  # round in which it was asked
    vectors: Mapping[str, Vector]  # may lie in a file; of one client at a time there is room
    weight: float


class Arrived(NamedTuple):
    """What has come in a round that waits for some of those who are at work."""

    updates: Sequence[Arrival]  # in the order of the clients' names
    at_work: Mapping[str, AtWork]  # who goes on, by client
    metrics: Mapping[str, Metrics]  # by client, measured while training
    problems: Sequence[Problem]
    bytes_down: int
    bytes_up: int


class Evaluated(NamedTuple):
    """What clients measured with the global model on their own data."""

    metrics: Mapping[str, Metrics]  # by client
    problems: Sequence[Problem]


class Answered(NamedTuple):
    """What clients answered to a named task."""

    answers: Mapping[str, Answer]  # by client, in the order of their names
    problems: Sequence[Problem]
    bytes_down: int
    bytes_up: int


class GlobalState(NamedTuple):
    """The server's side of a run: the algorithm's state, and the model's averaged buffers."""

    algorithm: Vectors
    buffers: np.ndarray  # [B] float64


class Commit(NamedTuple):
    """The durable end of a round; a run continues from its last one."""

    round: int
    state: GlobalState
    row: dict[str, Any]  # this round's metrics, plain JSON data
    progress: dict[str, Any]  # what the workflow itself must remember
    at_work: Mapping[str, AtWork] = MappingProxyType({})  # who trains on, beyond this round
    holds: frozenset[tuple[str, int]] = frozenset()  # client and number: what `hold` shall keep

    @property
    def needs(self) -> list[int]:
        """Rounds whose models stay, for somebody trains on them."""
        return sorted({work.round - 1 for work in self.at_work.values()})


class Watcher(Protocol):
    """Whoever wants to see a run while it goes on."""

    def working(self, what: str, done: int, total: int) -> None:
        """Say how far an exchange is; `what` is "training" or "evaluating"."""

    def committed(self, row: dict[str, Any], problems: Sequence[Problem]) -> None:
        """Say that a round is done."""


class Federation(Protocol):
    """What a workflow can do."""

    @property
    def layout(self) -> ModelLayout:
        """The model's tensors, and which of them are trained."""

    def resume(self) -> Commit:
        """Return the last commit; round 0 holds the seed model."""

    def elapsed(self) -> float:
        """Return seconds of work so far, interruptions not counted."""

    async def roster(self, round_number: int) -> Sequence[str]:
        """Wait until enough clients can be asked; return those that can be in this round.

        The names are sorted or otherwise in an order of their own; they may be many and lazy.
        """

    def recall(self, round_number: int) -> GlobalState:
        """Return the model of a round that was kept: the last, the best, or every n-th.

        That of the round before one in which somebody began who is still at work is kept too.
        What the algorithm kept besides is not; see `Plan.keep`.
        """

    async def train(
        self,
        round_number: int,
        state: GlobalState,
        cohort: Sequence[str],
        *,
        terms: Terms,
        steps: Mapping[str, int] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Trained:
        """Have a cohort train on the state's model and aggregate what comes back.

        `steps` are the local steps of those clients that shall take others than the plan says, and
        `settings` what all are told besides, as plain JSON data (see `Hyper.settings`); in a round
        that is opened again after a crash they must be the same.  `terms.goal` is below
        the cohort's size where more clients are asked than are wanted; the wanted ones come first,
        so a handle that loses nobody may ask these alone.
        """

    async def arrivals(
        self,
        round_number: int,
        state: GlobalState,
        cohort: Sequence[str],
        *,
        at_work: Mapping[str, AtWork],
        count: int,
    ) -> Arrived:
        """Ask a cohort to train on the state's model, and wait for as many updates of anybody.

        Args:
          round_number: the round.
          state: of the last commit.
          cohort: who begins; may be empty.
          at_work: who was asked in earlier rounds, as the last commit says.
          count: updates to wait for; it are fewer where those at work fail or are lost.

        Returns:
          Updates of this and of earlier rounds, each client's once.  Who is in neither `updates`
          nor `at_work` has a problem and is at nobody's work any more.

        Raises:
          RunError: the model's precision is not that of its updates (plan-impossible).
        """

    def hold(self, client: str, number: int, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors for as long as each commit's `holds` names them."""

    def held(self, client: str, number: int) -> Mapping[str, Vector]:
        """Return what was held; it may be read from its file."""

    def stored(self, state: GlobalState) -> GlobalState:
        """Return a state as it is once it has been committed and read back."""

    async def evaluate(
        self, round_number: int, state: GlobalState, clients: Sequence[str]
    ) -> Evaluated:
        """Have clients evaluate the state's model on their validation part.

        Where one of them is still at work for `arrivals`, all that are stop.
        """

    async def ask(
        self,
        round_number: int,
        task: str,
        clients: Sequence[str],
        *,
        message: Mapping[str, Params] | Params | None = None,
        settings: Mapping[str, Any] = NO_SETTINGS,
        terms: Terms = ANYBODY,
        step: int = 0,
    ) -> Answered:
        """Have clients answer a named task of the project: its own code, on their own data.

        A round may hold many such exchanges, beside training and evaluation.  In a round that is
        opened again after a crash they must be the same ones: a client answers one question of a
        name and step, and its answer counts once.

        Args:
          round_number: the round that goes on.
          task: the task's name.
          clients: who is asked; with a goal the wanted ones come first.
          message: tensors for all, or by client.
          settings: a JSON object for all.
          terms: when the exchange ends; by default once all have answered, failed or are lost.
          step: tells apart several exchanges of one task in one round.

        Raises:
          RunError: task-question, this cannot be asked, or was asked before in this round.
        """

    async def test(self, round_number: int, state: GlobalState) -> Metrics:
        """Evaluate the state's model on the server's own data; empty if it has none."""

    async def commit(self, commit: Commit, problems: Sequence[Problem]) -> None:
        """Make a round durable; once this returns, the round is never repeated."""
