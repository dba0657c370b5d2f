"""The server's side: what the weights are before the first round, and their file."""

import os

import numpy as np
from constants import KEY
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor


class NPModelPersistor(ModelPersistor):
    """Begins with the numbers 1 to 9 and saves models as `models/server.npy`."""

    def __init__(self, model_dir="models", model_name="server.npy"):
        super().__init__()
        self.model_dir, self.model_name = model_dir, model_name

    def load_model(self, fl_ctx):
        """Return the weights of the start."""
        weights = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=np.float32)
        return make_model_learnable({KEY: weights}, {})

    def save_model(self, model, fl_ctx):
        """Save weights; Hansa does it itself, into a file of the same name."""
        workspace = fl_ctx.get_engine().get_workspace()
        folder = os.path.join(workspace.get_run_dir(fl_ctx.get_run_number()), self.model_dir)
        os.makedirs(folder, exist_ok=True)
        np.save(os.path.join(folder, self.model_name), model[ModelLearnableKey.WEIGHTS][KEY])
