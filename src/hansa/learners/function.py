"""A learner made of plain functions, for training code that is a black box to Hansa.

    def init(rng, sample):           return {"w": ..., "b": ...}
    def train(params, data, ctx):    ...; return params              # or (params, {"loss": 0.3})
    def evaluate(params, data):      return {"accuracy": 0.9}        # optional; means over data
    def close():                     ...                             # optional; once a run is over
    def predict(params, data):       return probabilities, labels    # for metrics by name

`params` is a dict of writable NumPy arrays, `data` is the client's training part, `ctx` says which
round it is and what the plan asks for.  Only training and evaluation are offered, so algorithms
that reach into the local steps (FedProx, SCAFFOLD) are refused when the plan is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hansa.algorithms import Capability, Correct
from hansa.errors import LearnerError
from hansa.learners.batches import local_steps
from hansa.learners.generators import EVALUATION, seeded
from hansa.learners.learner import Hyper, Seed, Task, TrainingOnly, check_constants, seed_of
from hansa.learners.named_tasks import NamedTask
from hansa.metrics import Mean, Metrics, Predicted
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.seeds import Key

STATISTICS = ("running_mean", "running_var")
"""BatchNorm's tensors in a state_dict."""


@dataclass
class TrainContext:
    """What a training function may want to know; `weight` may be set by it."""

    client: str
    round: int
    epochs: int
    steps: int | None
    batch_size: int | None
    lr: float
    options: Mapping[str, float]
    rng: np.random.Generator  # this client's and round's own stream
    weight: float | None = None  # counts when the plan says weighting = "user"
    examples: float | None = None  # that its metrics are means over; by default the client's
    settings: Mapping[str, Any] = field(default_factory=dict)  # of server functions, this round


class FunctionLearner:
    """Trains by calling the user's functions.

    Args:
      init: returns the seed model's arrays by name, or a list of arrays.
      train: returns the trained arrays, or `(arrays, metrics)`.
      evaluate: returns means over the data it was given; None if there is nothing to evaluate.
      close: is called once a run is over; None if there is nothing to end.
      predict: returns scores and targets of the data, for the metrics that a plan asks for.
      tasks: functions that answer named tasks, by name; see `hansa.learners.named_tasks`.
    """

    capabilities: frozenset[Capability] = frozenset()

    def __init__(
        self,
        init: Callable[..., Any],
        train: Callable[..., Any],
        evaluate: Callable[..., Any] | None = None,
        *,
        close: Callable[[], Any] | None = None,
        predict: Callable[..., Any] | None = None,
        tasks: Mapping[str, NamedTask] | None = None,
    ) -> None:
        self._init, self._train, self._evaluate = init, train, evaluate
        self._close = close
        self.tasks = dict(tasks or {})
        self._predict, self.can_predict = predict, predict is not None

    def init(self, sample: Any, key: Key) -> Seed:
        key = key.child("init")
        with seeded(key):
            arrays = self._init(key.generator(), sample)
        if not isinstance(arrays, Mapping | list | tuple):
            raise LearnerError(
                "learner-params",
                f"init returned {type(arrays).__name__} instead of the parameters.",
                'Return a dict of arrays, such as {"w": w, "b": b}.',
            )
        params = Params.of(arrays)
        return seed_of(params, statistics(params))

    def begin(self, task: Task, data: Any) -> FunctionWork:
        return FunctionWork(self._train, task, data)

    def evaluate(self, params: Params, data: Any) -> Metrics:
        if self._evaluate is None:
            return {}
        with seeded(EVALUATION):
            values = self._evaluate(params.copy().to_dict(), data)
        return as_metrics(values, self.examples(data), "evaluate")

    def predictions(self, params: Params, data: Any) -> Iterator[Predicted]:
        if self._predict is None:
            return
        with seeded(EVALUATION):  # and not around what the caller does
            found = self._predict(params.copy().to_dict(), data)
        yield as_predicted(found)

    def examples(self, data: Any) -> int:
        return count_examples(data)

    def close(self) -> None:
        """End what the user's code has started."""
        if self._close is not None:
            self._close()


class FunctionWork(TrainingOnly):
    """One client's call of the user's `train`."""

    def __init__(self, train: Callable[..., Any], task: Task, data: Any) -> None:
        self._train, self._task, self._data = train, task, data
        self.buffers = task.buffers
        self.metrics: Metrics = {}
        self.weight: float | None = None
        self.steps = local_steps(count_examples(data), task.hyper)
        self.lr = task.hyper.lr

    def train(self, x: np.ndarray, correct: Correct | None = None) -> np.ndarray:
        layout, hyper, key = self._task.layout, self._task.hyper, self._task.key.child("train")
        ctx = _context(self._task.client, hyper, key)
        params = layout.join(x, self.buffers).copy().to_dict()
        with seeded(key):
            returned = self._train(params, self._data, ctx)
        arrays, metrics = returned if isinstance(returned, tuple) else (returned, {})
        trained = _same_tensors(layout, arrays)
        check_constants(layout, trained)
        examples = count_examples(self._data) if ctx.examples is None else ctx.examples
        self.metrics = as_metrics(metrics, examples, "train")
        self.weight = ctx.weight
        x_new, self.buffers = layout.split(trained)
        return x_new


def as_metrics(values: Any, examples: float, where: str) -> dict[str, Mean]:
    """Return the user's means as totals; each counts for the examples it was measured on.

    A value may be a `Mean` itself, where user code knows better what it counts for.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise LearnerError(
            "learner-metrics",
            f"{where} returned metrics of type {type(values).__name__}.",
            'Return a dict such as {"accuracy": 0.9}.',
        )
    try:
        return {
            str(name): v if isinstance(v, Mean) else Mean(float(v) * examples, float(examples))
            for name, v in values.items()
        }
    except (TypeError, ValueError):
        raise LearnerError(
            "learner-metrics",
            f"{where} returned a metric that is not a number: {values!r:.200}.",
            'Return floats, such as {"accuracy": 0.9}.',
        ) from None


def statistics(names: Iterable[str]) -> list[str]:
    """Return which tensors of a state_dict BatchNorm measures and nobody trains."""
    return [name for name in names if name.rpartition(".")[2] in STATISTICS]


def as_predicted(value: Any) -> Predicted:
    """Return what the user's `predict` returned, as scores and targets.

    Raises:
      LearnerError: it is no such pair.
    """
    if not isinstance(value, tuple) or len(value) != 2:
        raise LearnerError(
            "learner-metrics",
            f"predict returned {type(value).__name__}.",
            "Return (scores, targets): probabilities [n, classes] and labels [n], or numbers.",
        )
    return Predicted(np.asarray(value[0]), np.asarray(value[1]))


def count_examples(data: Any) -> int:
    """Return the number of examples in whatever a client's data is."""
    if hasattr(data, "x"):
        return len(data.x)
    if isinstance(data, Mapping) and data:
        return len(next(iter(data.values())))
    if isinstance(data, tuple) and data and hasattr(data[0], "__len__"):
        return len(data[0])
    try:
        return len(data)
    except TypeError:
        raise LearnerError(
            "learner-data",
            f"The size of a client's data of type {type(data).__name__} is not known.",
            "Give it a length (__len__), or return arrays.",
        ) from None


def _context(client: str, hyper: Hyper, key: Key) -> TrainContext:
    return TrainContext(
        client=client,
        round=hyper.round,
        epochs=hyper.epochs,
        steps=hyper.steps,
        batch_size=hyper.batch_size,
        lr=hyper.lr,
        options=hyper.options,
        rng=key.generator(),
        settings=hyper.settings,
    )


def _same_tensors(layout: ModelLayout, arrays: Any) -> Params:
    """Return what `train` returned, or say how it differs from what it was given."""
    if not isinstance(arrays, Mapping | list):
        raise LearnerError(
            "learner-params",
            f"train returned {type(arrays).__name__} instead of the parameters.",
            "Return the params it was given, trained, or (params, metrics).",
        )
    expected = {s.name: (s.dtype, s.shape) for s in layout.layout.specs}
    if isinstance(arrays, Mapping) and arrays.keys() == expected.keys():
        arrays = {name: arrays[name] for name in expected}  # in our order, whatever theirs
    params = Params.of(arrays)
    returned = {s.name: (s.dtype, s.shape) for s in params.layout.specs}
    for name in sorted(expected.keys() | returned.keys()):
        if expected.get(name) != returned.get(name):
            raise LearnerError(
                "learner-params",
                f"train returned {name} as {_describe(returned.get(name))}; "
                f"it was given {_describe(expected.get(name))}.",
                "Keep names, shapes and dtypes; NumPy promotes float32 with a float64 array.",
            )
    return params


def _describe(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if tensor is None else f"{tensor[0]} {list(tensor[1])}"


def no_training(params: Any, data: Any, ctx: TrainContext) -> None:
    """Say that a project answers named tasks alone."""
    raise LearnerError(
        "learner-incomplete",
        "The project has named tasks and no train(), which this workflow asks for.",
        "Define train(params, data, ctx), or use a workflow that asks for the tasks.",
    )
