"""From a task to the model and back, in the process that runs a declearn model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hansa.code import import_path
from hansa.compat.declearn.models import Model, SklearnSGDModel, TorchModel
from hansa.compat.declearn.optimizers import local_chain
from hansa.compat.declearn.wire import Answer, Setup, Task
from hansa.compat.serving import IMPORT_KEY, take_code
from hansa.errors import LearnerError
from hansa.learners.generators import seeded
from hansa.optimizers import Point
from hansa.params import Params
from hansa.seeds import Key

_MODEL = "model."  # begins the names of the model's arrays in a task


class Host:
    """The model of one set-up.

    Args:
      setup: whose model it is.

    Raises:
      RunError: run-changed, the files are not those that the project was opened with.
    """

    def __init__(self, setup: Setup) -> None:
        folder = Path(setup.folder)
        take_code(folder, setup.digest)
        self._setup = setup
        self._model_here: Model | None = None
        self._module = local_chain(
            setup.regularizers,
            setup.chain,
            lambda file: import_path(folder / file, Path(file).stem),
        )

    def serve(self, task: Task, arrays: dict[str, np.ndarray]) -> tuple[Answer, dict[str, Any]]:
        """Do a task.

        Raises:
          Exception: whatever the model file raises.
        """
        if task.kind == "seed":  # in a model of its own: what it draws follows the plan's seed
            with seeded(Key(task.key)):
                return Answer(0), self._made("declearn_seed").arrays()
        if self._model_here is None:
            with seeded(IMPORT_KEY):
                self._model_here = self._made("declearn_model")
        model, x, y = self._model_here, arrays.pop("x"), arrays.pop("y")
        model.load({name.removeprefix(_MODEL): array for name, array in arrays.items()})
        with seeded(Key(task.key)):
            if task.kind == "train":
                steps, loss = self._train(model, task, x, y)
                return Answer(0, steps, loss), model.arrays()
            size = self._setup.evaluation_batch
            parts = [slice(i, i + size) for i in range(0, len(x), size)]
            if task.kind == "evaluate":
                losses = np.concatenate([model.losses(x[part], y[part]) for part in parts])
                return Answer(0, loss=float(losses.mean())), {}
            return Answer(0), {"scores": np.concatenate([model.scores(x[part]) for part in parts])}

    def abort(self) -> None:
        """Do nothing: a step is short."""

    def close(self) -> None:
        """Do nothing: nothing stays open."""

    def _made(self, name: str) -> Model:
        """Run the model file and return its model."""
        setup = self._setup
        path = Path(setup.folder) / setup.file
        model = getattr(import_path(path, name), setup.name, None)
        if not isinstance(model, Model) or type(model) not in (TorchModel, SklearnSGDModel):
            what = "is nothing" if model is None else f"is of type {type(model).__name__}"
            raise LearnerError(
                "learner-incomplete",
                f"{setup.name} of {setup.file} {what}, and no TorchModel or SklearnSGDModel.",
                "Name the model in DeclearnApp(name=...); classes derived from these two may do "
                "other things, which would not be done.",
            )
        model.initialize(setup.shape, setup.classes)
        return model

    def _train(self, model: Model, task: Task, x: np.ndarray, y: np.ndarray) -> tuple[int, float]:
        """Take a round's steps; return how many they were, and the mean of their losses."""
        trained = model.trained
        flat = _flat(trained)
        layout = Params.of(trained).layout
        start, state = flat.copy(), self._module.init(flat)
        at = Point(start, start, 0, task.round, Key(task.key), starts=layout.float_starts())
        steps, losses = 0, 0.0
        for rows in self._batches(task, len(x)):
            gradient, loss = model.gradient(x[rows], y[rows])
            at = at._replace(x=flat, step=at.step + 1)
            direction, state = self._module.update(
                _flat({name: gradient[name] for name in trained}), state, at
            )
            flat = flat - (task.lr * direction).astype(flat.dtype)
            first = 0
            for array in trained.values():
                array[...] = flat[first : first + array.size].reshape(array.shape)
                first += array.size
            steps, losses = steps + 1, losses + loss
        return steps, losses / max(steps, 1)

    def _batches(self, task: Task, rows: int) -> Iterator[np.ndarray]:
        """Yield the rows of each step, in the order in which declearn takes them."""
        setup, size = self._setup, task.batch_size or rows
        last = rows - rows % size if setup.drop_remainder else rows
        if not last:
            raise LearnerError(
                "learner-data",
                f"A client has {rows} rows, and drop_remainder leaves out what is no full batch "
                f"of {size}.",
                "Lower learner.batch_size, or set drop_remainder to False in DeclearnApp(...).",
            )
        left = min((n for n in (task.steps, setup.most_steps) if n is not None), default=None)
        draw = Key(task.key).child("order").generator()
        epochs = 0
        while (task.steps is not None or epochs < task.epochs) and left != 0:
            order = draw.permutation(rows) if setup.shuffle else np.arange(rows)
            for first in range(0, last, size):
                if left == 0:
                    return
                left = None if left is None else left - 1
                yield order[first : min(first + size, last)]
            epochs += 1


def _flat(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays.values()])
