"""The learner of this process, as the functions that a Hansa project is made of.

A run's project says `functions(SETTINGS)`, and no more; what trains is what `bring` has brought.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from hansa.compat.metisfl.learner import Learner
from hansa.errors import LearnerError
from hansa.metrics import Mean


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run's project says."""

    scaling: str
    params: dict[str, bool | int | float | str] = {}
    steps: bool = False  # the scheduler says how many to take


class Rows:
    """Stands for the data of a learner, which only the learner itself can read."""

    def __init__(self, examples: int | None) -> None:
        self.examples = examples

    def __len__(self) -> int:
        """Return how many examples there are; 1 where the learner does not say."""
        return self.examples or 1


class _Here:
    """What this process has."""

    learner: Learner | None = None
    first: list[np.ndarray] | None = None  # where the run begins, in a driver's process


def bring(learner: Learner) -> None:
    """Let runs of this process train with a learner."""
    _Here.learner = learner


def begin_with(weights: list[np.ndarray]) -> None:
    """Let the seed model be these weights: a driver has no learner."""
    _Here.first = weights


def functions(settings: str) -> tuple[Callable[..., Any], ...]:
    """Return data, init, train and evaluate of the learner of this process.

    Args:
      settings: JSON of `Settings`.
    """
    said = msgspec.json.decode(settings, type=Settings)

    def data(client: str) -> dict[str, Rows]:
        rows = Rows(None if _Here.learner is None else examples_of(_Here.learner))
        return {"train": rows, "validation": rows}

    def init(rng: np.random.Generator, sample: Any) -> list[np.ndarray]:
        return weights_of(_learner()) if _Here.first is None else _Here.first

    def train(params: dict[str, np.ndarray], data: Rows, ctx: Any) -> Any:
        config: dict[str, Any] = dict(said.params)
        if said.steps and ctx.steps is not None:
            config["num_local_updates"] = ctx.steps
        given = list(params.values())
        returned = _learner().train([array.copy() for array in given], config)
        weights, metrics, metadata = _parts(returned)
        said_so = _number({**metrics, **metadata}, "num_training_examples")
        examples = data.examples if said_so is None else said_so
        ctx.weight = _weight(said.scaling, examples, {**metrics, **metadata})
        means = _means(metrics, examples or 1)
        return _like(given, weights), means

    def evaluate(params: dict[str, np.ndarray], data: Rows) -> dict[str, Mean]:
        learner = _learner()
        weights = [array.copy() for array in params.values()]  # a learner may write into them
        metrics = learner.evaluate(weights, dict(said.params))
        if not isinstance(metrics, Mapping):
            raise _wrong("evaluate", f"{type(metrics).__name__}", "a dict of metrics")
        return _means(metrics, _length(learner, "x_test") or data.examples or 1)

    return data, init, train, evaluate


def weights_of(learner: Learner) -> list[np.ndarray]:
    """Return a learner's weights as arrays.

    Raises:
      LearnerError: learner-params, they are no list of arrays of numbers, or there are none.
    """
    weights = learner.get_weights()
    if not isinstance(weights, list | tuple) or not weights:
        raise _wrong("get_weights", f"{type(weights).__name__} {weights!r:.40}", "a list of arrays")
    return [np.asarray(array) for array in weights]


def examples_of(learner: Learner) -> int | None:
    """Return how many examples a learner trains on: what it says, or the length of its x_train."""
    said = getattr(learner, "num_training_examples", None)
    said = said() if callable(said) else said
    return int(said) if said is not None else _length(learner, "x_train")


def _learner() -> Learner:
    if _Here.learner is None:
        raise LearnerError(
            "learner-incomplete",
            "This run trains in the processes of MetisFL learners, and this is none.",
            "Start learner.py, which calls hansa.compat.metisfl.app.",
        )
    return _Here.learner


def _length(learner: Learner, name: str) -> int | None:
    rows: Any = getattr(learner, name, None)
    return len(rows) if hasattr(rows, "__len__") else None


def _parts(returned: Any) -> tuple[list[Any], Mapping[str, Any], Mapping[str, Any]]:
    """Return weights, metrics and metadata of what `train` returned.

    Raises:
      LearnerError: learner-params, it is something else.
    """
    if not isinstance(returned, tuple) or len(returned) not in (2, 3):
        raise _wrong("train", type(returned).__name__, "(weights, metrics) or with metadata")
    weights, metrics = returned[0], returned[1]
    metadata = returned[2] if len(returned) == 3 else {}
    if not isinstance(weights, list | tuple):
        raise _wrong("train", f"weights of type {type(weights).__name__}", "a list of arrays")
    for what in (metrics, metadata):
        if not isinstance(what, Mapping | None):
            raise _wrong("train", f"metrics of type {type(what).__name__}", "a dict")
    return list(weights), metrics or {}, metadata or {}


def _like(given: list[np.ndarray], weights: list[Any]) -> list[Any]:
    """Return weights in the dtypes that were given: float64 of NumPy's promotion is rounded once.

    Raises:
      LearnerError: learner-params, there are more or fewer.
    """
    if len(weights) != len(given):
        raise _wrong("train", f"{len(weights)} arrays", f"{len(given)}, as it was given")
    made = [np.asarray(array) for array in weights]
    return [
        array.astype(old.dtype) if array.dtype.kind == old.dtype.kind else array
        for old, array in zip(given, made, strict=True)
    ]


def _weight(scaling: str, examples: int | None, facts: Mapping[str, Any]) -> float | None:
    """Return what an update weighs.

    Raises:
      LearnerError: learner-metrics, the learner does not say what the scaling factor needs.
    """
    if scaling == "NumParticipants":
        return None
    wanted = "num_training_examples"
    weight = None if examples is None else float(examples)
    if scaling == "NumCompletedBatches":
        wanted = "num_completed_batches"
        weight = _number(facts, wanted)
    if weight is None:
        raise LearnerError(
            "learner-metrics",
            f"The scaling factor {scaling} needs {wanted}, and this learner does not say it. "
            "Nothing was sent.",
            f'Return {{"{wanted}": ...}} as third value of train, or among its metrics.',
        )
    return weight


def _means(metrics: Mapping[str, Any], examples: float) -> dict[str, Mean]:
    """Return the metrics that are numbers; of a history by epoch, the last."""
    found = {}
    for name in metrics:
        value = _number(metrics, name)
        if value is not None:
            found[str(name)] = Mean(value * examples, float(examples))
    return found


def _number(facts: Mapping[str, Any], name: str) -> Any:
    """Return a number by its name, None where there is none."""
    value = facts.get(name)
    if isinstance(value, list | tuple):
        value = value[-1] if value else None
    try:
        return None if value is None or isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return None


def _wrong(method: str, got: str, wanted: str) -> LearnerError:
    return LearnerError(
        "learner-params",
        f"The learner's {method} returned {got}. Nothing was sent.",
        f"Return {wanted}.",
    )
