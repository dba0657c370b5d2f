"""A learner for scikit-learn estimators: `coef_` and `intercept_`, or the layers of an MLP.

The user's module has one function, of whichever kind is needed:

    def model():        return SGDClassifier(loss="log_loss")
    def model(hyper):   return SGDClassifier(learning_rate="constant", eta0=hyper.lr)

With `partial_fit`, each of our batches is one call.  Without it (LogisticRegression, Ridge,
LinearSVC ...) each client solves its own problem to the end in every round; estimators that know
`warm_start` begin at the global model, the others do not look at it.  All numbers are float64.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from hansa.algorithms import Capability, Correct
from hansa.errors import LearnerError
from hansa.learners.batches import batches, local_steps
from hansa.learners.generators import EVALUATION, seeded
from hansa.learners.learner import Hyper, Seed, Task, TrainingOnly, check_constants, seed_of
from hansa.learners.optional import optional
from hansa.metrics import Mean, Metrics, Predicted
from hansa.params import Params
from hansa.seeds import Key

sklearn_base = optional("sklearn.base")

_STATE = ("coef_", "intercept_", "coefs_", "intercepts_", "t_")
COUNTER = "t_"  # updates so far, which the learning rate depends on; averaged, not trained
_ABSENT_WEIGHT = 1e-12  # of the one made-up example of a class that a client does not have
_PREDICTION_BATCH = 4096  # examples; bounds the memory of float64 copies


class SklearnLearner:
    """Trains an estimator.

    Args:
      model: returns a new estimator; called with the round's `Hyper` if it has an argument
        of the name `hyper`.

    Raises:
      LearnerError: scikit-learn is not installed.
    """

    capabilities: frozenset[Capability] = frozenset()
    can_predict = True

    def __init__(self, model: Callable[..., Any]) -> None:
        self._model = model
        self._is_classifier = sklearn_base.is_classifier
        self.takes_hyper = "hyper" in inspect.signature(model).parameters

    def init(self, sample: Any, key: Key) -> Seed:
        with seeded(key.child("init")):
            tensors = _read(self._estimator(_Shape.of(sample), Hyper()))
        for name in ("coef_", "intercept_"):
            if name in tensors:  # an MLP keeps scikit-learn's own random layers
                tensors[name] = np.zeros_like(tensors[name])
        params = Params.of(tensors)
        return seed_of(params, [n for n in tensors if n == COUNTER])

    def begin(self, task: Task, data: Any) -> SklearnWork:
        def estimator() -> Any:
            return self._estimator(_Shape.of(data), task.hyper)

        return SklearnWork(estimator, task, data)

    def evaluate(self, params: Params, data: Any) -> Metrics:
        with seeded(EVALUATION):
            estimator = self._estimator(_Shape.of(data), Hyper())
            _write(estimator, params)
            totals: dict[str, Mean] = {}
            for start in range(0, len(data.x), _PREDICTION_BATCH):
                part = slice(start, start + _PREDICTION_BATCH)
                for name, values in self._measure(estimator, data, part).items():
                    seen = totals.get(name, Mean(0.0, 0.0))
                    total = seen.total + float(np.sum(values, dtype=np.float64))
                    totals[name] = Mean(total, seen.weight + values.size)
        return totals

    def predictions(self, params: Params, data: Any) -> Iterator[Predicted]:
        with seeded(EVALUATION):
            estimator = self._estimator(_Shape.of(data), Hyper())
            _write(estimator, params)
            scores, sure = estimator.predict, True
            if self._is_classifier(estimator):
                sure = hasattr(estimator, "predict_proba")
                scores = estimator.predict_proba if sure else estimator.decision_function
            for start in range(0, len(data.x), _PREDICTION_BATCH):
                part = slice(start, start + _PREDICTION_BATCH)
                yield Predicted(scores(_rows(data.x[part])), np.asarray(data.y[part]), sure)

    def examples(self, data: Any) -> int:
        return len(_checked(data).x)

    def _measure(self, estimator: Any, data: Any, part: slice) -> dict[str, np.ndarray]:
        """Return one value per example for each metric."""
        x, y = _rows(data.x[part]), data.y[part]
        predicted = estimator.predict(x)
        if not self._is_classifier(estimator):
            error = predicted - y
            return {"squared_error": error**2, "absolute_error": np.abs(error)}
        metrics = {"accuracy": predicted == y}
        if hasattr(estimator, "predict_proba"):
            p = estimator.predict_proba(x)[np.arange(len(y)), y]
            metrics["loss"] = -np.log(np.maximum(p, np.finfo(np.float64).eps))
        return metrics

    def _estimator(self, shape: _Shape, hyper: Hyper) -> Any:
        """Return a new estimator with everything allocated for data of this shape."""
        estimator = self._model(hyper) if self.takes_hyper else self._model()
        if getattr(estimator, "average", False):
            raise _unusable(estimator, "keeps a second, averaged model", "Set average=False.")
        classifier = self._is_classifier(estimator)
        if classifier and shape.classes is None:
            raise LearnerError(
                "learner-data",
                f"{type(estimator).__name__} is a classifier, and the data has no classes.",
                "Store y as integers or names, not as floating point numbers.",
            )
        try:
            _allocate(estimator, shape, classifier)
            _write(estimator, tensors := _read(estimator))
        except (AttributeError, TypeError, ValueError) as error:
            reason = f"cannot be set up for data of this shape ({error})"
            raise _unusable(estimator, reason, "Try it on one client's data alone.") from error
        for pair in (("coef_", "intercept_"), ("coefs_.0", "intercepts_.0")):
            if all(name in tensors for name in pair):
                return estimator
        raise _unusable(
            estimator,
            "has neither coef_ and intercept_ nor coefs_ and intercepts_ once it is fitted",
            "Use a linear model or an MLP; do the steps of a pipeline in data(client).",
        )


class _Shape(NamedTuple):
    """What an estimator needs to know of the data before it sees any."""

    features: int
    targets: tuple[int, ...]  # shape of one example's y
    classes: int | None

    @classmethod
    def of(cls, data: Any) -> _Shape:
        data = _checked(data)
        x, classes = np.asarray(data.x), getattr(data, "classes", None)
        features = int(np.prod(x.shape[1:], dtype=np.int64))
        return cls(features, np.shape(data.y)[1:], None if classes is None else len(classes))


class SklearnWork(TrainingOnly):
    """One client's fit; see `algorithms.Work`.  Only training is offered."""

    weight: float | None = None
    metrics: Metrics = {}  # noqa: RUF012 - scikit-learn tells nothing while it trains

    def __init__(self, estimator: Callable[[], Any], task: Task, data: Any) -> None:
        self._make, self._task, self._data = estimator, task, _checked(data)
        self.buffers = task.buffers
        self.steps = local_steps(len(data.x), task.hyper)
        self.lr = task.hyper.lr

    def train(self, x: np.ndarray, correct: Correct | None = None) -> np.ndarray:
        task, key = self._task, self._task.key.child("train")
        with seeded(key):
            estimator = self._make()
            _write(estimator, task.layout.join(x, self.buffers))
            if hasattr(estimator, "partial_fit"):
                for batch in batches(len(self._data.x), task.hyper, key):
                    estimator.partial_fit(_rows(self._data.x[batch]), self._data.y[batch])
            else:
                self.steps = 1
                _solve(estimator, _rows(self._data.x), self._data.y)
        trained = Params.of(_read(estimator))
        if trained.layout != task.layout.layout:
            raise LearnerError(
                "learner-params",
                f"{type(estimator).__name__} ended with {trained.layout}; "
                f"the run began with {task.layout.layout}.",
                "Make model() return the same estimator for every client.",
            )
        check_constants(task.layout, trained)
        x_new, self.buffers = task.layout.split(trained)
        return x_new


def _allocate(estimator: Any, shape: _Shape, classifier: bool) -> None:
    """Fit once to rows of zeros, so that the estimator has all its attributes, in their shapes."""
    y = np.arange(shape.classes or 0) if classifier else np.ones((2, *shape.targets))
    x = np.zeros((len(y), shape.features))
    if not hasattr(estimator, "partial_fit"):
        if "warm_start" in estimator.get_params():
            estimator.set_params(warm_start=True)
        estimator.fit(x, y)
        return
    rate = estimator.get_params().get("learning_rate_init")
    if rate is not None:  # an MLP: its random layers are wanted as they are before any step
        estimator.set_params(learning_rate_init=1e-300)
    estimator.partial_fit(x, y, **({"classes": y} if classifier else {}))
    if rate is not None:
        estimator.set_params(learning_rate_init=rate)
        vars(estimator).pop("_optimizer", None)  # the moments of that one step
        estimator.best_loss_ = np.inf
    if hasattr(estimator, COUNTER):
        setattr(estimator, COUNTER, getattr(estimator, COUNTER) - len(y))


def _solve(estimator: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Fit an estimator without partial_fit, whose classes must be those of all clients."""
    classes = getattr(estimator, "classes_", np.empty(0, np.int64))
    absent = np.setdiff1d(classes, y)
    if not len(absent):
        estimator.fit(x, y)
        return
    weights = np.concatenate([np.ones(len(y)), np.full(len(absent), _ABSENT_WEIGHT)])
    rows = np.concatenate([x, np.zeros((len(absent), x.shape[1]))])
    estimator.fit(rows, np.concatenate([y, absent]), sample_weight=weights)


def _read(estimator: Any) -> dict[str, np.ndarray]:
    """Return the model as named float64 arrays; layers are `coefs_.0`, `coefs_.1` and so on."""
    tensors: dict[str, np.ndarray] = {}
    for name in _STATE:
        value = getattr(estimator, name, None)
        if isinstance(value, list):
            tensors |= {f"{name}.{i}": np.asarray(v, np.float64) for i, v in enumerate(value)}
        elif value is not None:
            tensors[name] = np.asarray(value, np.float64)
    return tensors


def _write(estimator: Any, tensors: Mapping[str, np.ndarray]) -> None:
    """Copy a model into an estimator, where each attribute keeps its type."""
    for name, value in tensors.items():
        attribute, _, layer = name.partition(".")
        old = getattr(estimator, attribute)
        if layer:
            old[int(layer)] = np.array(value)
        else:
            is_array = isinstance(old, np.ndarray)
            setattr(estimator, attribute, np.array(value) if is_array else type(old)(value))


def _rows(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64).reshape(len(x), -1)


def _checked(data: Any) -> Any:
    if hasattr(data, "x") and hasattr(data, "y"):
        return data
    raise LearnerError(
        "learner-data",
        f"A client's data is of type {type(data).__name__}, which has no x and y.",
        "Return a hansa.Dataset or arrays (x, y).",
    )


def _unusable(estimator: Any, reason: str, hint: str) -> LearnerError:
    return LearnerError("learner-model", f"{type(estimator).__name__} {reason}.", hint)
