"""The client half of a round, from message to update; the same at a site and in simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hansa.algorithms import Algorithm, Vectors
from hansa.errors import HansaError, LearnerError
from hansa.learners.batches import steps_per_epoch
from hansa.learners.generators import seeded
from hansa.learners.learner import ClientData, Hyper, Learner, LocalWork, Task
from hansa.learners.named_tasks import NamedTask, TaskContext, bad_answer, perform
from hansa.limits import MESSAGE_CHARS_MAX
from hansa.metrics import Metrics
from hansa.optimizers import Module
from hansa.params import Params, encode
from hansa.params.dtypes import quietly
from hansa.params.model import ModelLayout
from hansa.plan import Plan, weighting_of
from hansa.rounds import BUFFERS
from hansa.rounds.questions import from_state, most_bytes, packed, phase_of, unpacked
from hansa.seeds import Key
from hansa.store.addresses import digest_of
from hansa.traces import sound, trace_of
from hansa.transforms import Transform, Wire

INITIAL_WEIGHTS = "initial_weights"
"""The named task whose answers are the first model, if a plan says so."""


class Update(NamedTuple):
    """What one client returns."""

    vectors: Wire  # as encoded for the wire
    weight: float
    metrics: Metrics  # measured while training
    examples: int
    steps: int = 0  # local steps that were taken
    epoch_steps: int = 0  # local steps of one pass over the examples


class Client(NamedTuple):
    """What a client needs to take part, the same for all clients of a run."""

    plan: Plan
    algorithm: Algorithm
    transform: Transform
    learner: Learner
    layout: ModelLayout
    chain: Module | None = None  # of its local steps, if the plan has one
    tasks: Mapping[str, NamedTask] = {}  # functions that answer named tasks

    def train(
        self,
        message: Vectors,
        data: Any,
        mine: Vectors | None,
        *,
        name: str,
        hyper: Hyper,
        key: Key,
    ) -> tuple[Update, Vectors]:
        """Take part in one round.

        Args:
          message: what the server broadcast, NumPy vectors.
          data: this client's training part.
          mine: the client state that this returned in its last round; None the first time.
          name: of the client.
          hyper: the round's hyper-parameters.
          key: of (run, round, client).

        Raises:
          LearnerError: no examples, or the learner's result cannot be used.
        """
        examples = self.learner.examples(data)
        if not examples:
            raise LearnerError(
                "learner-no-data",
                f"{name} has no training examples.",
                "Use fewer clients, or a split with a minimum such as data.split.minimum = 1.",
            )
        buffers = message.get(BUFFERS, np.empty(0))
        optimizer = self.plan.learner.optimizer
        assert bool(optimizer.chain or optimizer.regularizers) == (self.chain is not None)
        hyper = hyper._replace(chain=self.chain)
        with quietly():  # an update that is not finite is refused with a sentence, and told once
            work = self.learner.begin(Task(name, self.layout, buffers, hyper, key), data)
            lifted = _lift(work, Vectors({k: v for k, v in message.items() if k != BUFFERS}))
            state = _lift(work, mine) if mine is not None else self.algorithm.client_init(lifted.x)
            update, state = self.algorithm.client(work, lifted, state, key.child("algorithm"))
            vectors = self.transform.encode(_lower(work, update), key.child("transform"))
        if len(buffers):
            vectors = {**vectors, BUFFERS: work.buffers}
        weight = self._weight(work, examples)
        epoch = steps_per_epoch(examples, hyper.batch_size)
        made = Update(vectors, weight, work.metrics, examples, int(work.steps), epoch)
        return made, _lower(work, state)

    def answer(
        self,
        task: str,
        question: Params,
        data: ClientData,
        *,
        name: str,
        number: int,
        step: int,
        mine: Params | None = None,
    ) -> tuple[Params, Params | None]:
        """Answer a named task.

        Args:
          task: its name.
          question: tensors and settings, packed; see `hansa.rounds.questions`.
          data: of this client.
          name: of the client.
          number: of the round.
          step: of the round's exchanges of this task.
          mine: the state that the question names.

        Returns:
          The answer, packed, and the state that it names; None where the task left nothing.

        Raises:
          LearnerError: task-unknown or task-answer.
          Exception: whatever the function raises.
        """
        params, settings, _ = unpacked(question)
        root = Key.root(self.plan.seed).child("client", number, name)
        key = root.child(phase_of(task, step))
        before = {} if mine is None else mine.copy().to_dict()
        ctx = TaskContext(name, number, step, settings, key.child("task").generator(), before)
        with seeded(key):
            tensors, facts = perform(self._tasks(), task, params, data, ctx)
        state = Params.of(ctx.state) if ctx.state else None
        most = most_bytes(self.layout.layout.nbytes)
        if state is not None and state.nbytes > most:
            raise bad_answer(task, f"left {state.nbytes} bytes of state; up to {most} are kept")
        left = "" if state is None else digest_of(*encode(state))
        try:
            return packed(from_state(tensors, left), facts), state
        except ValueError as error:
            raise bad_answer(task, f"returned facts that cannot be sent: {error}") from None

    def _tasks(self) -> Mapping[str, NamedTask]:
        """Return the project's named tasks, and the one that a plan asks every learner for."""
        if self.plan.initial == "server":
            return self.tasks
        return {INITIAL_WEIGHTS: self._initial_weights, **self.tasks}

    def _initial_weights(self, params: Any, data: ClientData, ctx: TaskContext) -> Any:
        """Answer with the model that the learner makes of this client's data."""
        seed = self.learner.init(data.train, Key.root(int(ctx.rng.integers(2**31))))
        return seed.params, {"weight": self.learner.examples(data.train) or 1}

    def _weight(self, work: LocalWork, examples: int) -> float:
        match weighting_of(self.plan, self.algorithm):
            case "examples":
                return float(examples)
            case "steps":
                return float(work.steps)
            case "uniform":
                return 1.0
        if work.weight is None:
            raise LearnerError(
                "learner-metrics",
                'The plan says weighting = "user", and the training code set no weight.',
                "Set ctx.weight, or task.send(..., weight=...), or write examples or weight into "
                "result.json.",
            )
        return float(work.weight)


def _lift(work: LocalWork, vectors: Vectors) -> Vectors:
    return Vectors({name: work.lift(vector) for name, vector in vectors.items()})


def _lower(work: LocalWork, vectors: Vectors) -> Vectors:
    return Vectors({name: work.lower(vector) for name, vector in vectors.items()})


class Failure(NamedTuple):
    """What is said of a client whose part failed."""

    code: str
    message: str  # one sentence
    trace: str  # the user's traceback


def failure_of(error: BaseException) -> Failure:
    """Describe what a client's code raised, in text that can be written anywhere."""
    code, message = "client-failed", f"{type(error).__name__}: {error}"
    if isinstance(error, HansaError):
        code, message = error.code, error.sentences
    return Failure(code, sound(message[:MESSAGE_CHARS_MAX]), trace_of(error))


def plain(metrics: Metrics) -> dict[str, tuple[float, float]]:
    """Return metrics as JSON data: totals and weights."""
    return {str(name): (float(m.total), float(m.weight)) for name, m in metrics.items()}
