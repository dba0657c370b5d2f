"""FLARE's NumPy quickstart, from its first line to its last, with an app that imports nvflare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from walks import Walk


def test_the_quickstart_word_for_word_gives_its_table(tmp_path: Path, walk: Walk) -> None:
    told = walk("hello-numpy-sag")
    run = tmp_path / "poc" / "admin" / "run_1" / "hello-numpy-sag-1"
    model = np.load(run / "models" / "server.npy", allow_pickle=False)
    # Contract 3.2: after round r the weights are 1 to 9, and r + 1.
    np.testing.assert_array_equal(model, np.arange(11, 20, dtype=np.float32).reshape(3, 3))
    assert model.dtype == np.float32
    for said in (
        "Created folder", "Created a new run folder: run_1", "deployed app", "Server app is start",
        "Engine status: stopped", "round 10 of 10 is committed", "Shutdown the client...",
        "FL app has been shutdown.", "Bye bye", "No server runs from",
    ):  # fmt: skip
        assert said in told, told
