"""A declearn model as the functions of a `function` learner.

    declearn = DeclearnApp(__file__, file="model.py", shape=[64], classes=10)
    init, train, evaluate, predict, close = declearn.functions()

`hansa import declearn` writes these lines.  Nothing of the model file is imported here: that
happens in a process of its own, which `hansa.compat.process` starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hansa.code import code_digest, read_code
from hansa.compat.declearn.wire import Answer, Kind, Named, Setup, Task
from hansa.compat.process import ClientProcess
from hansa.data import Dataset
from hansa.errors import LearnerError
from hansa.learners.function import TrainContext
from hansa.metrics import Mean
from hansa.seeds import Key

WORKER = "hansa.compat.declearn.worker"
_KEY_BYTES = 16
_NO_KEY = Key.root(0).child("evaluate").material


class DeclearnApp:
    """The model of a declearn-quickrun set-up, and how a client trains it.

    Args:
      file: `__file__` of the caller; the project lies in its folder.
      model: the file in which a model of declearn's is made.
      name: of the model there.
      shape: of one example.
      classes: how many; 0 where targets are numbers.
      regularizers: names in `hansa.optimizers.REGULARIZERS`, or tables with name and options.
      chain: names in `hansa.optimizers.MODULES`, likewise, in order.
      shuffle: whether each pass over the rows has an order of its own.
      drop_remainder: whether a last batch that is not full is left out.
      most_steps: in a round, whatever the epochs; None is no limit.
      evaluation_batch: rows that are evaluated at once.
    """

    def __init__(
        self,
        file: str,
        *,
        model: str = "model.py",
        name: str = "model",
        shape: Sequence[int],
        classes: int = 0,
        regularizers: Sequence[Named] = (),
        chain: Sequence[Named] = (),
        shuffle: bool = False,
        drop_remainder: bool = True,
        most_steps: int | None = None,
        evaluation_batch: int = 32,
    ) -> None:
        folder = Path(file).resolve().parent
        # fmt: off
        setup = Setup(
            str(folder), code_digest(read_code(folder)), model, name, list(shape), classes,
            list(regularizers), list(chain), shuffle, drop_remainder, most_steps, evaluation_batch,
        )
        # fmt: on
        self._process = ClientProcess(WORKER, setup, Answer, "declearn")

    def functions(self) -> tuple[Callable[..., Any], ...]:
        """Return init, train, evaluate, predict and close, which a function learner asks for."""
        return self.init, self.train, self.evaluate, self.predict, self.close

    def init(self, rng: np.random.Generator, sample: Any) -> dict[str, np.ndarray]:
        """Return the model's first weights."""
        return self._process.ask(Task("seed", rng.bytes(_KEY_BYTES), size=0), {})[1]

    def train(
        self, params: dict[str, np.ndarray], data: Dataset, ctx: TrainContext
    ) -> tuple[dict[str, np.ndarray], dict[str, Mean]]:
        """Have a client train; its number of steps is its weight."""
        # fmt: off
        task = Task(
            "train", ctx.rng.bytes(_KEY_BYTES), 0, ctx.round, ctx.epochs, ctx.steps,
            ctx.batch_size, ctx.lr,
        )
        # fmt: on
        answer, trained = self._ask(task, params, data)
        ctx.weight = float(answer.steps)
        return trained, {"loss": Mean(answer.loss * answer.steps, float(answer.steps))}

    def evaluate(self, params: dict[str, np.ndarray], data: Dataset) -> dict[str, float]:
        """Return the mean loss over a client's rows."""
        return {"loss": self._ask(_plain("evaluate"), params, data)[0].loss}

    def predict(
        self, params: dict[str, np.ndarray], data: Dataset
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the model's scores and the targets.

        Some losses of torch want classes as a column of floats; metrics want whole numbers.
        """
        scores, targets = self._ask(_plain("predict"), params, data)[1]["scores"], data.y
        if targets.size == len(targets):
            targets = targets.reshape(-1)
            whole = targets.astype(np.int64)
            targets = whole if np.array_equal(whole, targets) else targets
        return scores, targets

    def close(self) -> None:
        """End the process that runs the model."""
        self._process.close()

    def _ask(
        self, task: Task, params: dict[str, np.ndarray], data: Any
    ) -> tuple[Answer, dict[str, np.ndarray]]:
        if not isinstance(data, Dataset):
            raise LearnerError(
                "learner-data",
                f"A declearn model trains on rows x and y, and the data are {type(data).__name__}.",
                "Let [data] of plan.toml name a data set, as the import has written it.",
            )
        rows = {"x": np.asarray(data.x), "y": np.asarray(data.y)}
        return self._process.ask(task, {f"model.{k}": v for k, v in params.items()} | rows)


def _plain(kind: Kind) -> Task:
    return Task(kind, _NO_KEY, size=0)
