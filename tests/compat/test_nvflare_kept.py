"""What the process of an app reads decides whether its seed model is used again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from flare_apps import write_app
from seed_makers import Seeds, weights

from hansa.compat.nvflare.writing import import_app

PERSISTOR = """
import numpy as np
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor


class NPModelPersistor(ModelPersistor):
    def load_model(self, fl_ctx):
        return make_model_learnable({"w": np.load(%r)}, {})

    def save_model(self, model, fl_ctx):
        pass
"""


def test_a_file_that_the_process_of_an_app_reads_counts(home: Path) -> None:
    seeds = Seeds(home)
    np.save(home / "w.npy", np.float32([1, -2]))
    app = write_app(home / "app")
    persistor = PERSISTOR % str(home / "w.npy")
    (app / "custom" / "np_model_persistor.py").write_text(persistor)
    folder = import_app(app).folder
    assert seeds(folder)["digest"] == weights(1.0, -2.0)
    assert not seeds(folder)["made"]
    np.save(home / "w.npy", np.float32([1, -3]))
    assert seeds(folder)["digest"] == weights(1.0, -3.0)


def test_an_app_whose_process_starts_a_program_is_not_kept(home: Path) -> None:
    seeds = Seeds(home)
    np.save(home / "w.npy", np.float32([1, -2]))
    app = write_app(home / "app")
    more = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''], check=True)\n"
    persistor = PERSISTOR % str(home / "w.npy")
    (app / "custom" / "np_model_persistor.py").write_text(more + persistor)
    folder = import_app(app).folder
    assert seeds(folder)["digest"] == weights(1.0, -2.0)
    assert seeds(folder)["made"] and not seeds.kept()
