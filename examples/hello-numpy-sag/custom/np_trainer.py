"""A client: it adds a number to every weight, keeps what it made, and sends it back."""

import os

import numpy as np
from constants import KEY
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import make_reply
from nvflare.app_common.app_constant import AppConstants


class NPTrainer(Executor):
    """Adds `delta` to the weights that the server sends."""

    def __init__(self, delta=1, model_name="best_numpy.npy", model_dir="model"):
        super().__init__()
        self.delta, self.file = delta, os.path.join(model_dir, model_name)

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        """Train once."""
        if task_name != AppConstants.TASK_TRAIN:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        received = from_shareable(shareable)
        if received.data_kind != DataKind.WEIGHTS or KEY not in received.data:
            return make_reply(ReturnCode.BAD_TASK_DATA)
        if abort_signal.triggered:
            return make_reply(ReturnCode.TASK_ABORTED)
        weights = received.data[KEY] + np.float32(self.delta)
        workspace = fl_ctx.get_engine().get_workspace()
        path = os.path.join(workspace.get_run_dir(fl_ctx.get_run_number()), self.file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        np.save(path, weights)
        self.log_info(fl_ctx, f"weights are now {weights.tolist()}")
        return DXO(DataKind.WEIGHTS, data={KEY: weights}).to_shareable()
