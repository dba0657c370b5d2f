"""A learner for any torch module, loss and data.

The user's module has plain functions; only the first two are needed:

    def model():                  return Net()                      # an nn.Module
    def loss(model, batch):       return cross_entropy(...)         # mean over the batch
    def metrics(model, batch):    return {"accuracy": per_example}  # or a mean, for each name
    def optimizer(model, hyper):  return torch.optim.SGD(...)       # instead of the plan's
    def predict(model, batch):    return probabilities, targets     # for metrics by name

A GPU is used when there is one; the environment variable HANSA_DEVICE ("cpu", "cuda:1") decides
otherwise.  Every random draw of torch, NumPy and Python is seeded for each client and round.  On a
GPU the same bits twice need `torch.use_deterministic_algorithms(True)` in the user's module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hansa.algorithms import Capability
from hansa.errors import LearnerError
from hansa.learners.function import as_predicted
from hansa.learners.generators import seeded
from hansa.learners.learner import Seed, Task, seed_of
from hansa.learners.optional import optional
from hansa.learners.torch_arrays import to_array, to_tensor
from hansa.learners.torch_data import Examples, count
from hansa.learners.torch_module import FlatModule
from hansa.learners.torch_work import Functions, TorchWork, checked_loss, float_dtype, parts
from hansa.metrics import Mean, Metrics, Predicted
from hansa.params import Params
from hansa.seeds import Key

if TYPE_CHECKING:
    import torch
else:
    torch = optional("torch")


_FIXED = Key.root(0).child("torch learner")


class TorchLearner:
    """Trains a torch module by mini-batch gradient descent.

    One module serves all clients of a process; its parameters and buffers are set before each use.

    Args:
      model: returns the module.
      loss: returns the mean loss of the module on a batch.
      metrics: returns for each name a value per example, or their mean; None measures the loss.
      optimizer: returns a torch optimizer, made anew for each client and round; None takes the
        plan's.
      predict: returns scores and targets of a batch, for the metrics that a plan asks for.
      plain_sgd: whether the plan's optimizer is SGD without momentum.

    Raises:
      LearnerError: torch is not installed.
    """

    def __init__(
        self,
        model: Callable[[], Any],
        loss: Callable[[Any, Any], Any],
        *,
        metrics: Callable[[Any, Any], Mapping[str, Any]] | None = None,
        optimizer: Callable[[Any, Any], Any] | None = None,
        predict: Callable[[Any, Any], Any] | None = None,
        plain_sgd: bool = True,
    ) -> None:
        self._predict, self.can_predict = predict, predict is not None
        self._functions = Functions(model, loss, metrics, optimizer)
        self._device = choose_device()
        self._flat: FlatModule | None = None
        extra = {Capability.PLAIN_SGD} if plain_sgd and optimizer is None else set()
        chain = {Capability.CHAIN} if optimizer is None else set()
        self.capabilities = frozenset({Capability.CORRECT, Capability.GRADIENT} | chain | extra)

    def init(self, sample: Any, key: Key) -> Seed:
        flat = self._build(key.child("init"))
        layout = flat.layout
        return seed_of(flat.params(), layout.buffers.names, layout.constants.names)

    def begin(self, task: Task, data: Any) -> TorchWork:
        flat = self._module()
        mine, begun = flat.layout, task.layout
        if mine.layout != begun.layout:
            raise LearnerError(
                "learner-params",
                "model() returned other tensors than those the run started with.",
                "Make it return the same architecture every time.",
            )
        if odd := set(mine.trained.names) ^ set(begun.trained.names):
            raise _refrozen(min(odd), frozen=min(odd) in begun.trained.names)
        flat.layout = begun  # whose constants are the run's
        return TorchWork(flat, self._functions, task, data=data)

    def evaluate(self, params: Params, data: Any) -> Metrics:
        flat = self._module()
        examples = Examples(data, self._device, float_dtype(flat.module))
        x, buffers = flat.layout.split(params)
        totals: dict[str, Mean] = {}
        # A model is evaluated with the same draws everywhere, should its metrics draw at all.
        with seeded(_FIXED), torch.no_grad():
            flat.load(to_tensor(x), buffers, params)
            flat.module.eval()
            for rows in parts(len(examples)):
                for name, mean in self._measure(flat, examples.batch(rows), rows).items():
                    seen = totals.get(name, Mean(0.0, 0.0))
                    totals[name] = Mean(seen.total + mean.total, seen.weight + mean.weight)
        return totals

    def predictions(self, params: Params, data: Any) -> Iterator[Predicted]:
        flat, predict = self._module(), self._predict
        if predict is None:
            return
        examples = Examples(data, self._device, float_dtype(flat.module))
        x, buffers = flat.layout.split(params)
        with seeded(_FIXED), torch.no_grad():
            flat.load(to_tensor(x), buffers, params)
            flat.module.eval()
            for rows in parts(len(examples)):
                found = predict(flat.module, examples.batch(rows))
                if isinstance(found, tuple):
                    found = tuple(to_array(t) if torch.is_tensor(t) else t for t in found)
                yield as_predicted(found)

    def examples(self, data: Any) -> int:
        return count(data)

    def _measure(self, flat: FlatModule, batch: Any, rows: slice) -> dict[str, Mean]:
        size = rows.stop - rows.start
        if self._functions.metrics is None:
            loss = checked_loss(self._functions.loss(flat.module, batch))
            return {"loss": Mean(float(loss) * size, float(size))}
        values = self._functions.metrics(flat.module, batch)
        if not isinstance(values, Mapping):
            raise LearnerError(
                "learner-metrics",
                f"metrics() returned {type(values).__name__}.",
                'Return a dict such as {"accuracy": prediction == target}.',
            )
        return {str(name): _mean(value, size) for name, value in values.items()}

    def _module(self) -> FlatModule:
        # The key is fixed, so that whatever of a module does not travel is alike in all processes.
        self._flat = self._flat or self._build(_FIXED)
        return self._flat

    def _build(self, key: Key) -> FlatModule:
        with seeded(key):
            module = self._functions.model()
        if not isinstance(module, torch.nn.Module):
            raise LearnerError(
                "learner-model",
                f"model() returned {type(module).__name__}.",
                "Return a torch.nn.Module.",
            )
        return FlatModule(module, self._device)


def state_dict(params: Params) -> dict[str, torch.Tensor]:
    """Return a model as `load_state_dict` takes it."""
    return {name: to_tensor(array) for name, array in params.copy().items()}


def choose_device() -> torch.device:
    """Return the device that HANSA_DEVICE names, or else the first GPU, or else the CPU.

    Raises:
      LearnerError: there is no such device.
    """
    name = os.environ.get("HANSA_DEVICE")
    if not name:
        gpu = "cuda" if torch.cuda.is_available() else "mps"
        has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
        return torch.device(gpu if has_gpu else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise LearnerError(
            "learner-device",
            f"HANSA_DEVICE is {name!r}, which torch cannot use: {reason}",
            "Unset it, or name a device such as cpu or cuda:0.",
        ) from None
    return device


def _refrozen(name: str, *, frozen: bool) -> LearnerError:
    now, before = ("freezes", "was trained") if frozen else ("trains", "was frozen")
    return LearnerError(
        "learner-constant",
        f"model() {now} {name!r}, which {before} when the run began. Nothing was trained.",
        "Freeze the same parameters every time; to train others, start a new run from this one's "
        "model: hansa run --new --from RUN",
    )


def _mean(value: Any, size: int) -> Mean:
    """Return one metric of a batch as a total: from a value per example, or from their mean."""
    if isinstance(value, torch.Tensor) and value.ndim:
        values = value.detach().cpu().double()
        return Mean(float(values.sum()), float(values.numel()))
    try:
        return Mean(float(value) * size, float(size))
    except (TypeError, ValueError):
        raise LearnerError(
            "learner-metrics",
            f"metrics() returned a metric of type {type(value).__name__}.",
            "Return tensors with one value per example, or numbers.",
        ) from None
