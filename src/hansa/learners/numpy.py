"""A learner for models written in NumPy: the built-in ones, or a module of the user's.

The user's module has three functions on plain arrays:

    def init(rng, sample):      return {"w": ..., "b": ...}          # the seed model
    def loss(params, x, y):     return mean_loss, {"w": dw, "b": db}  # and its gradient
    def metrics(params, x, y):  return {"accuracy": per_example}      # one value per example
    def predict(params, x):     return probabilities                 # [n, classes], or [n] numbers

`predict` is needed only for the metrics that a plan asks for by name.  While any of them runs, the
global generators are seeded for this one purpose, client and round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np

from hansa.algorithms import Capability, Correct
from hansa.errors import LearnerError
from hansa.learners.batches import batches, endless, local_steps
from hansa.learners.descent import Descent
from hansa.learners.generators import EVALUATION, seeded
from hansa.learners.learner import Seed, Task, seed_of
from hansa.learners.numpy_models import Perceptron
from hansa.metrics import Mean, Metrics, Predicted
from hansa.params import Params
from hansa.params.model import ModelLayout, zeros
from hansa.seeds import Key

Around = Callable[[Key], AbstractContextManager[None]]
"""What a model's functions run in."""


class NumPyModel(Protocol):
    """What the learner asks of a model; a module with these functions is one."""

    def init(self, rng: np.random.Generator, sample: Any) -> Mapping[str, np.ndarray]:
        """Return the seed model's arrays by name."""

    def loss(
        self, params: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray
    ) -> tuple[float, Mapping[str, np.ndarray]]:
        """Return the mean loss over the examples and its gradient by name."""

    def metrics(
        self, params: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray
    ) -> Mapping[str, np.ndarray]:
        """Return one value per example for each metric."""


class NumPyLearner:
    """Trains a NumPy model by mini-batch gradient descent.

    Args:
      model: the model, or a module that has its functions.
      plain_sgd: whether the plan's optimizer is SGD without momentum.
    """

    def __init__(self, model: NumPyModel, *, plain_sgd: bool = True) -> None:
        self._model = model
        known = getattr(model, "measures", None)  # of a model that comes with Hansa
        self.measures = known if isinstance(known, frozenset) else None
        self.can_predict = callable(getattr(model, "predict", None))
        # Hansa's own model draws nothing, and a tenth of a millisecond is much for a small client.
        self._around: Around = _nothing if type(model) is Perceptron else seeded
        extra = {Capability.PLAIN_SGD} if plain_sgd else set()
        steps = {Capability.CORRECT, Capability.GRADIENT, Capability.CHAIN}
        self.capabilities = frozenset(steps | extra)

    def init(self, sample: Any, key: Key) -> Seed:
        if sample is not None:  # a model that knows its own size needs none
            _check_data(sample)
        key = key.child("init")
        with self._around(key):
            params = Params.of(self._model.init(key.generator(), sample))
        return seed_of(params)

    def begin(self, task: Task, data: Any) -> NumPyWork:
        _check_data(data)
        return NumPyWork(self._model, task, data, around=self._around)

    def evaluate(self, params: Params, data: Any) -> Metrics:
        tensors = params.to_dict()
        totals: dict[str, Mean] = {}
        with self._around(EVALUATION):
            for part in _parts(len(data.x)):
                measured = self._model.metrics(tensors, data.x[part], data.y[part])
                for name, values in measured.items():
                    seen = totals.get(name, Mean(0.0, 0.0))
                    total = float(np.sum(values, dtype=np.float64))
                    totals[name] = Mean(seen.total + total, seen.weight + len(values))
        return totals

    def predictions(self, params: Params, data: Any) -> Iterator[Predicted]:
        tensors, predict = params.to_dict(), getattr(self._model, "predict")  # noqa: B009
        for part in _parts(len(data.x)):
            with self._around(EVALUATION.child(part.start)):  # not around what the caller does
                scores = np.asarray(predict(tensors, data.x[part]))
            yield Predicted(scores, np.asarray(data.y[part]))

    def examples(self, data: Any) -> int:
        _check_data(data)
        return len(data.x)


_EVALUATION_BATCH = 4096  # examples; bounds the memory of activations


class NumPyWork:
    """One client's local training on flat vectors; see `algorithms.Work`."""

    weight: float | None = None

    def __init__(self, model: NumPyModel, task: Task, data: Any, *, around: Around) -> None:
        self._model, self._data, self._task = model, data, task
        self._around = around
        self._examples = len(data.x)
        self._gradients = 0
        self._next = endless(self._examples, task.hyper, task.key.child("gradient"))
        self._loss = Mean(0.0, 0.0)
        self.buffers = task.buffers
        self.steps = local_steps(self._examples, task.hyper)
        self.lr = task.hyper.lr

    def train(self, x: np.ndarray, correct: Correct | None = None) -> np.ndarray:
        descent, key = Descent(self._task, x), self._task.key.child("train")
        x = x.copy()
        with self._around(key):
            for batch in batches(self._examples, self._task.hyper, key):
                g = self._gradient(x, batch)
                x -= self.lr * descent.direction(x, g if correct is None else correct(x, g))
        return x

    def gradient(self, x: np.ndarray) -> np.ndarray:
        self._gradients += 1
        with self._around(self._task.key.child("gradient", self._gradients)):
            return self._gradient(x, next(self._next))

    def full_gradient(self, x: np.ndarray) -> np.ndarray:
        with self._around(self._task.key.child("full_gradient")):
            return self._gradient(x, slice(0, self._examples))

    def _gradient(self, x: np.ndarray, batch: np.ndarray | slice) -> np.ndarray:
        layout = self._task.layout
        tensors = layout.join(x, self.buffers)
        inputs, targets = self._data.x[batch], self._data.y[batch]
        loss, gradient = self._model.loss(tensors, inputs, targets)
        seen = len(inputs)
        self._loss = Mean(self._loss.total + float(loss) * seen, self._loss.weight + seen)
        return _flatten(layout, gradient)

    @property
    def metrics(self) -> Metrics:
        return {"loss": self._loss} if self._loss.weight else {}

    def lift(self, vector: np.ndarray) -> np.ndarray:
        return vector

    def lower(self, vector: np.ndarray) -> np.ndarray:
        return vector


def _nothing(key: Key) -> AbstractContextManager[None]:
    return nullcontext()


def _parts(examples: int) -> Iterator[slice]:
    return (slice(i, i + _EVALUATION_BATCH) for i in range(0, examples, _EVALUATION_BATCH))


def _check_data(data: Any) -> None:
    """Refuse data without examples and targets, before it fails somewhere inside."""
    if not (hasattr(data, "x") and hasattr(data, "y")):
        raise LearnerError(
            "learner-data",
            f"The numpy learner needs x and y; data(client) returned a {type(data).__name__}.",
            "Return hansa.Dataset.of(x, y), arrays (x, y), or {'train': ..., 'validation': ...}.",
        )


def _flatten(layout: ModelLayout, gradient: Mapping[str, np.ndarray]) -> np.ndarray:
    flat = zeros(layout.trained)
    if missing := [name for name in layout.trained.names if name not in gradient]:
        raise LearnerError(
            "learner-gradient",
            f"The model's loss returned no gradient for {', '.join(missing)}.",
            "Return one gradient array for every floating tensor of init().",
        )
    for name, tensor in flat.items():
        if np.shape(gradient[name]) != tensor.shape:
            raise LearnerError(
                "learner-gradient",
                f"The gradient of {name} has shape {np.shape(gradient[name])}; "
                f"the tensor has {tensor.shape}.",
                "Return gradients shaped like the tensors.",
            )
        tensor[...] = gradient[name]
    return flat.vector()
