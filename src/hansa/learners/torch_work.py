"""One client's local training of a torch module; the inside of the torch learner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hansa.algorithms import Correct
from hansa.errors import LearnerError
from hansa.learners.batches import batches, endless, local_steps
from hansa.learners.descent import Descent
from hansa.learners.generators import seeded
from hansa.learners.learner import Task
from hansa.learners.optional import optional
from hansa.learners.torch_arrays import to_array, to_tensor
from hansa.learners.torch_data import Examples, Rows
from hansa.learners.torch_module import FlatModule
from hansa.limits import UNTRAINED_BATCH
from hansa.metrics import Mean, Metrics
from hansa.seeds import Key

if TYPE_CHECKING:
    import torch
else:
    torch = optional("torch")


class Functions(NamedTuple):
    """The user's code."""

    model: Callable[[], Any]
    loss: Callable[[Any, Any], Any]
    metrics: Callable[[Any, Any], Mapping[str, Any]] | None = None
    optimizer: Callable[[Any, Any], Any] | None = None


class TorchWork:
    """One client's local training on flat tensors; see `algorithms.Work`."""

    weight: float | None = None

    def __init__(self, flat: FlatModule, functions: Functions, task: Task, *, data: Any) -> None:
        self._flat, self._functions, self._task = flat, functions, task
        self._data = Examples(data, flat.device, float_dtype(flat.module))
        self._gradients = 0
        self._next = endless(len(self._data), task.hyper, task.key.child("gradient"))
        self._losses: list[tuple[torch.Tensor, int]] = []
        self.buffers = task.buffers
        self.steps = local_steps(len(self._data), task.hyper)
        self.lr = task.hyper.lr

    def train(self, x: torch.Tensor, correct: Correct | None = None) -> torch.Tensor:
        flat, key = self._flat, self._task.key.child("train")
        with self._training(x, key):
            step = self._optimizer(x)
            for rows in batches(len(self._data), self._task.hyper, key):
                self._backward(rows)
                if correct is not None:
                    flat.g.copy_(correct(flat.x, flat.g))
                step()
            return flat.x.clone()

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        self._gradients += 1
        with self._training(x, self._task.key.child("gradient", self._gradients)):
            self._backward(next(self._next))
            return self._flat.g.clone()

    def full_gradient(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(self._flat.g)
        with self._training(x, self._task.key.child("full_gradient")):
            for rows in parts(len(self._data)):
                self._backward(rows)
                share = (rows.stop - rows.start) / len(self._data)
                total.add_(self._flat.g, alpha=share)
        return total

    @property
    def metrics(self) -> Metrics:
        if not self._losses:
            return {}
        losses = to_array(torch.stack([loss for loss, _ in self._losses])).astype(np.float64)
        sizes = np.array([size for _, size in self._losses], np.float64)
        return {"loss": Mean(float(losses @ sizes), float(sizes.sum()))}

    def lift(self, vector: np.ndarray) -> torch.Tensor:
        return to_tensor(vector).to(self._flat.device)

    def lower(self, vector: torch.Tensor) -> np.ndarray:
        return to_array(vector)

    @contextlib.contextmanager
    def _training(self, x: torch.Tensor, key: Key) -> Iterator[None]:
        """Put this client's model into the module, and take its buffers out afterwards."""
        with seeded(key):
            self._flat.load(x, self.buffers)
            self._flat.module.train()
            yield
            self._flat.check()
            self.buffers = self._flat.read_buffers()

    def _backward(self, rows: Rows) -> None:
        """Set the flat gradient to that of the mean loss over some examples."""
        loss = self._functions.loss(self._flat.module, self._data.batch(rows))
        self._flat.backward(checked_loss(loss))
        size = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        self._losses.append((loss.detach().reshape(()).float(), size))

    def _optimizer(self, start: torch.Tensor) -> Callable[[], None]:
        """Return one step of a fresh optimizer, from the flat gradient to the module.

        torch.optim itself costs seconds to import, once for each worker; a chain costs nothing.
        """
        flat = self._flat
        if self._functions.optimizer is None:
            descent = Descent(self._task, start)

            def step() -> None:
                flat.x.add_(descent.direction(flat.x, flat.g), alpha=-self.lr)
                flat.push()

            return step
        own = self._functions.optimizer(flat.module, self._task.hyper)

        def own_step() -> None:
            flat.push_gradient()
            own.step()
            flat.pull()

        return own_step


def parts(examples: int) -> Iterator[slice]:
    """Yield all examples in batches of a bounded size, alike within one example.

    So none is left alone at the end: BatchNorm cannot work on one.
    """
    count = -(-examples // UNTRAINED_BATCH)
    for i in range(count):
        yield slice(examples * i // count, examples * (i + 1) // count)


def float_dtype(module: Any) -> torch.dtype:
    """Return the dtype in which a module expects its inputs: that of its first parameter."""
    return next(p.dtype for p in module.parameters() if p.dtype.is_floating_point)


def checked_loss(loss: Any) -> Any:
    """Return what the user's loss returned, if it is one number that can be minimised.

    Raises:
      LearnerError: it is not.
    """
    problem = None
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        shape = f" of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else ""
        problem = f"returned {type(loss).__name__}{shape}"
    elif torch.is_grad_enabled() and not loss.requires_grad:
        problem = "returned a tensor that does not depend on the parameters"
    if problem is None:
        return loss
    raise LearnerError(
        "learner-loss",
        f"loss() {problem}.",
        "Return the mean loss over the batch as one tensor, computed by the model.",
    )
