"""The executors and persistor of FLARE's NumPy examples, under the names of the newer releases.

Older apps bring them in custom/; apps since 2.1 name them as part of the package.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from hansa.compat.nvflare.components import Executor, FLContext, ModelPersistor, Signal
from hansa.compat.nvflare.exchange import (
    DXO,
    ModelLearnable,
    Shareable,
    from_shareable,
    make_model_learnable,
    make_reply,
)
from hansa.compat.nvflare.names import AppConstants, DataKind, MetaKey, NPConstants, ReturnCode

_LOOK_S = 0.05  # between two looks at the abort signal


def _sleep(seconds: float, abort_signal: Signal) -> bool:
    """Wait, and return whether the task shall end."""
    waiting = threading.Event()
    for _ in range(round(seconds / _LOOK_S)):
        if abort_signal.triggered:
            break
        waiting.wait(_LOOK_S)
    return abort_signal.triggered


class NPTrainer(Executor):
    """Adds `delta` to the one array of the model."""

    def __init__(
        self,
        delta: float = 1,
        sleep_time: float = 0,
        train_task_name: str = AppConstants.TASK_TRAIN,
        submit_model_task_name: str = AppConstants.TASK_SUBMIT_MODEL,
        model_name: str = "best_numpy.npy",
        model_dir: str = "model",
    ) -> None:
        super().__init__()
        if not isinstance(delta, int | float):
            raise TypeError(f"delta is a number, not {type(delta).__name__}")
        self._delta, self._sleep_s = delta, sleep_time
        self._train, self._submit = train_task_name, submit_model_task_name
        self._file = Path(model_dir) / model_name

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Train, or give the model of the last training."""
        if _sleep(self._sleep_s, abort_signal):
            return make_reply(ReturnCode.TASK_ABORTED)
        folder = Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_run_number()))
        path = folder / self._file
        if task_name == self._submit:
            if not path.is_file():
                return make_reply(ReturnCode.EXECUTION_RESULT_ERROR)
            model = np.load(path, allow_pickle=False)
            return DXO(DataKind.WEIGHTS, {NPConstants.NUMPY_KEY: model}).to_shareable()
        if task_name != self._train:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        dxo = from_shareable(shareable)
        if dxo.data_kind != DataKind.WEIGHTS or NPConstants.NUMPY_KEY not in dxo.data:
            self.system_panic(f"no weights under {NPConstants.NUMPY_KEY}", fl_ctx)
            return make_reply(ReturnCode.BAD_TASK_DATA)
        model = dxo.data[NPConstants.NUMPY_KEY]
        model += np.asarray(self._delta, model.dtype)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, model)
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 1}
        return DXO(DataKind.WEIGHTS, {NPConstants.NUMPY_KEY: model}, meta).to_shareable()


class NPValidator(Executor):
    """Measures sum(x / max x); FLARE's adds a random number, this one does not."""

    def __init__(
        self,
        epsilon: float = 1,
        sleep_time: float = 0,
        validate_task_name: str = AppConstants.TASK_VALIDATION,
    ) -> None:
        super().__init__()
        self._sleep_s, self._validate = sleep_time, validate_task_name

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Validate."""
        if _sleep(self._sleep_s, abort_signal):
            return make_reply(ReturnCode.TASK_ABORTED)
        if task_name != self._validate:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        model = from_shareable(shareable).data[NPConstants.NUMPY_KEY]
        accuracy = float(np.sum(model / np.max(model)))
        return DXO(DataKind.METRICS, {"accuracy": accuracy}).to_shareable()


class NPModelPersistor(ModelPersistor):
    """Starts from the numbers 1 to 9, or from a list of numbers."""

    def __init__(
        self, model_dir: str = "models", model_name: str = "server.npy", model: Any = None
    ) -> None:
        super().__init__()
        self.model_dir, self.model_name, self._model = model_dir, model_name, model

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """Return the model that a run starts from."""
        start = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
        if self._model is not None:
            start = np.asarray(self._model, np.float32)
        return make_model_learnable({NPConstants.NUMPY_KEY: start}, {})
