"""What a learner is: the user's model and training code behind one small protocol.

    Learner.init   the seed model, once per run, at the server
    Learner.begin  one client's local work in one round: the primitives of `algorithms.Work`
    Learner.evaluate   metrics of a model on some data

A learner with `can_predict` and `predictions(params, data)` offers more: the metrics that a plan
asks for by name are computed from its predictions, alike for all learners.

A learner sees one client's data only while that client takes part, and keeps nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from hansa.algorithms import Capability, Vector, Work
from hansa.errors import LearnerError
from hansa.limits import WHOLE_NUMBERS
from hansa.metrics import NONE_ASKED, Asked, Mean, Metrics, check_number, sums
from hansa.optimizers import Module
from hansa.params import Params
from hansa.params.dtypes import quietly
from hansa.params.model import ModelLayout
from hansa.seeds import Key


class ClientData(NamedTuple):
    """One client's own data; anything the learner understands, usually `hansa.data.Dataset`."""

    train: Any
    validation: Any = None


class Hyper(NamedTuple):
    """Hyper-parameters of local training in one round, after schedules and overrides."""

    round: int = 1  # counted from 1
    epochs: int = 1  # passes over the local data
    steps: int | None = None  # local steps; takes the place of epochs
    batch_size: int | None = 32  # examples; None is all of them
    lr: float = 0.1
    optimizer: str = "sgd"
    options: dict[str, float] = {}  # noqa: RUF012 - further arguments of the optimizer; read only
    chain: Module | None = None  # takes the place of optimizer and options
    scheduled: int = 0  # the round that schedules look at, where it is another; 0: `round`
    settings: dict[str, Any] = {}  # noqa: RUF012 - of this round, from server functions; read only

    def told(self, settings: Mapping[str, Any]) -> Hyper:
        """Return these with a round's settings; epochs, steps, batch_size and lr take effect.

        Raises:
          LearnerError: learner-settings, one of the four has a value that it cannot have.
        """
        known = {name: settings[name] for name in _BY_SETTING if name in settings}
        for name, value in known.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            whole = name == "lr" or value is None or isinstance(value, int)
            if not (number and value > 0 and math.isfinite(value) and whole):
                raise LearnerError(
                    "learner-settings",
                    f"The round's settings say {name} = {value!r:.80}. Nothing was trained.",
                    "Let settings() of the server functions return a positive number, whole for "
                    "epochs, steps and batch_size.",
                )
        if "epochs" in known and "steps" not in known:
            known["steps"] = None
        return self._replace(**known, settings=dict(settings))


_BY_SETTING = ("epochs", "steps", "batch_size", "lr")


class Seed(NamedTuple):
    """The model a run starts from."""

    params: Params
    layout: ModelLayout  # which of its tensors are trained


def seed_of(params: Params, buffers: Iterable[str] = (), constants: Iterable[str] = ()) -> Seed:
    """Return a model as the one a run starts from.

    A buffer that holds infinity, or numbers from 2^53 on, has no mean: it is taken for a constant,
    as the masks of attention are.

    Args:
      params: the model.
      buffers: names of floating tensors that are averaged and not trained.
      constants: names of those that never change.

    Raises:
      LearnerError: learner-params, a buffer holds NaN.
    """
    layout = ModelLayout(params.layout, buffers, constants)
    largest = {name: _largest(params[name]) for name in layout.buffers.names}
    if nan := [name for name, value in largest.items() if math.isnan(value)]:
        raise LearnerError(
            "learner-params",
            f"The model's tensor {nan[0]!r} holds NaN before any training. Nothing was started.",
            "Correct what makes it, or start from a sound model.",
        )
    odd = [name for name, value in largest.items() if value >= WHOLE_NUMBERS]
    fixed = (*layout.constants.names, *odd)
    return Seed(params, ModelLayout(params.layout, layout.buffers.names, fixed).holding(params))


def _largest(tensor: np.ndarray) -> float:
    """Return the largest magnitude, NaN if any value is."""
    return float(np.max(np.abs(tensor.astype(np.float64)), initial=0.0))


def check_constants(layout: ModelLayout, trained: Params) -> None:
    """Refuse training that has changed what never changes, for nobody would learn of it.

    Raises:
      LearnerError: learner-constant.
    """
    if (name := layout.changed(trained)) is None:
        return
    why = "was frozen"
    hint = "Set requires_grad = True in model(), or keep it in a buffer: buffers are averaged."
    if _largest(layout.fixed[name]) >= WHOLE_NUMBERS:
        why = "held infinity or numbers from 2^53 on, which cannot be averaged,"
        hint = "Begin with numbers that can be averaged, or leave the tensor out of the model."
    raise LearnerError(
        "learner-constant",
        f"Training has changed {name!r}, which {why} when the run began, so that updates do not "
        "have it. The update was not used.",
        hint,
    )


class Task(NamedTuple):
    """What one client starts its local work from."""

    client: str
    layout: ModelLayout
    buffers: np.ndarray  # [B] float64, the tensors that are averaged but not trained
    hyper: Hyper
    key: Key  # of (run, round, client)


class LocalWork(Work, Protocol):
    """`algorithms.Work` and what the server wants to know about it afterwards."""

    buffers: np.ndarray  # [B] float64, after training
    weight: float | None  # a weight that the user's code asked for

    @property
    def metrics(self) -> Metrics:
        """What was measured while training."""

    def lift(self, vector: np.ndarray) -> Vector:
        """Return a NumPy vector as one of this learner's own kind, on its device."""

    def lower(self, vector: Vector) -> np.ndarray:
        """Return one of the learner's own vectors as NumPy, in the model's precision."""


class TrainingOnly:
    """The part of local work that no black box offers: gradients; its vectors are NumPy's own."""

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Refuse.

        Raises:
          LearnerError: learner-capability.
        """
        raise LearnerError(
            "learner-capability",
            "This kind of learner offers no gradient.",
            "Use a NumPy or torch model, or an algorithm that only trains, such as fed_avg.",
        )

    full_gradient = gradient

    def lift(self, vector: np.ndarray) -> np.ndarray:
        """Return it as it is."""
        return vector

    lower = lift


class Learner(Protocol):
    """Trains and evaluates on local data."""

    capabilities: frozenset[Capability]

    def init(self, sample: Any, key: Key) -> Seed:
        """Return the seed model; `sample` is some client's training data, for its shapes only."""

    def begin(self, task: Task, data: Any) -> LocalWork:
        """Return the primitives of one client's local training; `data` is its training part."""

    def evaluate(self, params: Params, data: Any) -> Metrics:
        """Return metrics of a model on data, each with its weight."""

    def examples(self, data: Any) -> int:
        """Return how many examples there are."""


def evaluate(learner: Learner, params: Params, data: Any, asked: Asked = NONE_ASKED) -> Metrics:
    """Return what a learner measures itself, and the sums behind the metrics that are asked for.

    Args:
      learner: has `predictions(params, data)`, which yields `Predicted`, if any are asked for.
      params: the model.
      data: to be evaluated on.
      asked: by the plan.

    Raises:
      LearnerError: the predictions are not what the metrics need.
    """
    found: dict[str, Mean] = {}
    with quietly():  # a metric that is not finite is told where the round is
        measured = dict(learner.evaluate(params, data))
        for predicted in cast(Any, learner).predictions(params, data) if asked.metrics else ():
            for name, mean in sums(asked, predicted).items():
                seen = found.get(name, Mean(0.0, 0.0))
                found[name] = Mean(seen.total + mean.total, seen.weight + mean.weight)
    if not asked.metrics:
        return measured
    check_number(measured | found)
    return measured | found


def close(learner: Learner) -> None:
    """Let a learner that has a `close` end what it has started, once a run is over."""
    end = getattr(learner, "close", None)
    if end is not None:
        end()
