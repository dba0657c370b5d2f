"""Runs clients one after the other and folds their updates; the inside of every engine.

An exchange is opened, clients take part in any order, and the result is one partial aggregate.
What a client raises is that client's problem, never the exchange's.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from hansa.aggregators import AggregationSpec, Aggregator, Contribution, admit
from hansa.algorithms import Vectors
from hansa.client import Client, Update, failure_of, plain
from hansa.clock import monotonic
from hansa.errors import AggregationError, StoreError, UpdateRefused
from hansa.learners.learner import evaluate
from hansa.learners.named_tasks import bad_answer
from hansa.metrics import Mean, Metrics
from hansa.params import Layout, Params
from hansa.params.dtypes import dtype_name
from hansa.plan import hyper_at
from hansa.plan.measured import asked_of
from hansa.project import Project
from hansa.rounds import BUFFERS, aggregation_spec
from hansa.rounds.questions import Asking, most_bytes, unpacked
from hansa.seeds import Key
from hansa.simulation.population import Population
from hansa.store.client_states import ClientStates
from hansa.store.lineage import Lineage
from hansa.workflows.pace import drawn_seconds, speed_key, with_pace
from hansa.workflows.state_files import own_model

_NO_STEPS: Mapping[str, int] = MappingProxyType({})
_NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


class Report(NamedTuple):
    """What is known of one client after its part of an exchange."""

    client: str
    metrics: dict[str, tuple[float, float]]  # totals and weights
    bytes_up: int = 0
    weight: float = 0.0
    kind: str = "done"  # or "failed", "refused"
    code: str = ""
    message: str = ""
    trace: str = ""  # the user's traceback
    seconds: float = 0.0  # of its part, on this machine
    fold_s: float = 0.0  # of these, adding its update to the sum
    steps: int = 0  # local steps that were taken
    epoch_steps: int = 0  # of one pass over the examples
    answer: Any = None  # to a named task: packed Params; between processes a file's path

    def means(self) -> Metrics:
        """Return the metrics as `Mean`s."""
        return {name: Mean(*pair) for name, pair in self.metrics.items()}


class Runner:
    """Runs the clients of one project.

    Args:
      project: plan, method and learner.
      population: whose data is what.
      client: the client half, with the model's layout.
      states: where client states are kept between rounds.
      lineage: where clients' models are kept, if the plan wants that.
    """

    def __init__(
        self,
        project: Project,
        population: Population,
        *,
        client: Client,
        states: ClientStates,
        lineage: Lineage | None = None,
    ) -> None:
        self._project, self._population, self._lineage = project, population, lineage
        self._client, self._states, self._kept = client, states, states.of_tasks()
        self._root = Key.root(project.plan.seed)
        self.aggregator: Aggregator = project.method.aggregator
        self.learner = project.learner
        self.layout = client.layout

    def open(
        self,
        number: int,
        message: Vectors,
        weight_limit: float,
        steps: Mapping[str, int] = _NO_STEPS,
        settings: Mapping[str, Any] = _NO_SETTINGS,
    ) -> None:
        """Begin an exchange; the arguments are those of `simulation.engine.Exchange`."""
        self._number, self._message, self._steps = number, message, steps
        self._settings = settings
        self.spec: AggregationSpec = aggregation_spec(
            self._client.algorithm,
            message,
            weight_limit=weight_limit,
            bound=self._project.plan.bound,
        )
        self.partial: Any = self.aggregator.zero(self.spec)
        self._hyper = hyper_at(self._project.plan, number)
        self._model = self._client.layout.join(message.x, message.get(BUFFERS, np.empty(0)))

    def ask_steps(self, name: str, steps: int | None) -> None:
        """Let a client take so many local steps in this exchange; None leaves it to the plan."""
        if steps is not None:
            self._steps = {**self._steps, name: steps}

    def train(self, name: str) -> Report:
        """Have one client train, and fold its update."""
        began = monotonic()
        try:
            return self._train(name)._replace(seconds=monotonic() - began)
        except UpdateRefused as refusal:
            return Report(name, {}, kind="refused", code=refusal.code, message=refusal.sentences)
        except (AggregationError, StoreError):
            raise  # not the fault of the client that happened to come last
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code
            return failure(name, error)

    def evaluate(self, name: str) -> Report:
        """Have one client evaluate the model on its validation part."""
        began = monotonic()
        try:
            validation = self._population.data(name).validation
            if validation is None:
                return Report(name, {})
            asked = asked_of(self._project.plan)
            metrics = evaluate(self._client.learner, self._model, validation, asked)
            return Report(name, plain(metrics), seconds=monotonic() - began)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code
            return failure(name, error)

    def ask(self, name: str, asking: Asking, question: Params) -> Report:
        """Have one client answer a named task."""
        number, task, step = asking.number, asking.task, asking.step
        try:
            data, begun = self._population.data(name), unpacked(question).state
            mine = self._kept.load(name, begun)
            found, state = self._client.answer(
                task, question, data, name=name, number=number, step=step, mine=mine
            )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code
            return failure(name, error)
        most = most_bytes(self.layout.layout.nbytes)
        if found.nbytes > most:
            what = f"returned {found.nbytes} bytes; up to {most} can be sent"
            return failure(name, bad_answer(task, what))
        if state is not None:
            self._kept.save(name, number, state, begun=begun)
        return Report(name, {}, bytes_up=found.nbytes, answer=found)

    def _train(self, name: str) -> Report:
        data = self._population.data(name).train
        hyper = self._hyper.told(self._settings)
        if name in self._steps:
            hyper = hyper._replace(steps=self._steps[name])
        update, mine = self._client.train(
            self._message,
            data,
            self._states.load(name, before=self._number),
            name=name,
            hyper=hyper,
            key=self._root.child("client", self._number, name),
        )
        size = encoded_bytes(update.vectors)
        decoded = dict(update.vectors)
        buffers = decoded.pop(BUFFERS, None)
        # A transform may narrow floats; the sum is in the precision that the round declared.
        vectors = {
            name: v.astype(self.spec.vectors[name].dtype, copy=False)
            if name in self.spec.vectors and v.dtype.kind == "f"
            else v
            for name, v in self._project.method.transform.decode(decoded).items()
        }
        if buffers is not None:
            vectors[BUFFERS] = buffers
        contribution = admit(Contribution(name, vectors, update.weight), self.spec)
        self._states.save(name, self._number, mine)
        self._keep_model(contribution)
        began = monotonic()
        self.partial = self.aggregator.add(self.partial, self._keep(contribution))
        metrics = plain(timed(self._project, name, update))
        return Report(
            name,
            metrics,
            bytes_up=size,
            weight=update.weight,
            fold_s=monotonic() - began,
            steps=update.steps,
            epoch_steps=update.epoch_steps,
        )

    def _keep_model(self, contribution: Contribution) -> None:
        """Keep the client's own model, if the plan wants that."""
        newest = self._project.plan.keep.clients
        if self._lineage is not None and newest is not None:
            buffers = self._message.get(BUFFERS, np.empty(0))
            vectors = contribution.vectors
            model = own_model(self.layout, self._message.x, buffers, vectors)
            self._lineage.add(self._number, [(contribution.client, model)], newest=newest)

    def _keep(self, contribution: Contribution) -> Contribution:
        """Move what a rule over all updates must keep from memory to disk."""
        if self.aggregator.streaming:
            return contribution
        stored = self._states.spill(contribution.client, self._number, contribution.vectors)
        return contribution._replace(vectors=stored)


def timed(project: Project, name: str, update: Update) -> Metrics:
    """Return a client's metrics, with the time that it would have taken if that is wanted."""
    workflow, steps = project.workflow, update.steps
    if not workflow.timed:
        return update.metrics
    key = speed_key(project.plan.seed, name)
    seconds = drawn_seconds(key, steps=steps, spread=workflow.spread)
    return with_pace(update.metrics, seconds=seconds, steps=steps, epoch_steps=update.epoch_steps)


def examples_of(project: Project, population: Population, name: str) -> int | None:
    """Return how many examples a client trains on; None where only its own code can tell."""
    try:
        return project.learner.examples(population.data(name).train)
    except (Exception, SystemExit):  # noqa: BLE001 - the user's; it is told when the client trains
        return None


def failure(name: str, error: BaseException) -> Report:
    """Return the report of a client whose code raised."""
    told = failure_of(error)
    return Report(name, {}, kind="failed", code=told.code, message=told.message, trace=told.trace)


def encoded_bytes(vectors: Mapping[str, np.ndarray]) -> int:
    """Return what these vectors take as a file or an upload."""
    shapes = tuple((name, dtype_name(v.dtype), v.shape) for name, v in vectors.items())
    return _header_bytes(shapes) + sum(v.nbytes for v in vectors.values())


@functools.lru_cache(maxsize=8)
def _header_bytes(tensors: tuple[tuple[str, str, tuple[int, ...]], ...]) -> int:
    layout = Layout.of(tensors)
    return Params(layout, np.empty(layout.nbytes, np.uint8)).nbytes - layout.nbytes
