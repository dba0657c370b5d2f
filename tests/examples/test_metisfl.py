"""MetisFL's quickstart in separate processes: five rounds, results.json, and an even partition."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from walks import Walk

from hansa.data import load
from hansa.dev.rehearsal import free_port


def test_the_quickstart_runs_five_rounds_and_writes_results(tmp_path: Path, walk: Walk) -> None:
    told = walk("metisfl", PORT=str(free_port()))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["global_iteration"] == 5 and results["ended"]["state"] == "finished"
    trained = [task for task in results["tasks"] if "-train-" in task["id"]]
    assert {t["learner_id"] for t in trained} == {f"learner-{50002 + n}" for n in range(3)}
    assert len(trained) == 15 and results["problems"] == []
    assert {made["metadata"]["weight"] for made in results["train_results"].values()} == {500}
    last = [m["metrics"] for t, m in results["evaluation_results"].items() if t.startswith("5-")]
    assert len(last) == 3 and all(m["accuracy"] > 0.7 for m in last)  # chance is 0.1

    # Each learner has printed how many it has of each digit: together all, and each a fair draw.
    parts = [json.loads(found) for found in re.findall(r"of each digit: (\[.+\])", told)]
    labels = np.bincount(np.asarray(load("digits").y)[:1500])
    np.testing.assert_array_equal(np.sum(parts, axis=0), labels)
    expected = labels / 3
    for part in parts:
        # Sorted, or cut as it came, one part lacks whole digits; 27.9 is the 0.999 quantile of a
        # chi-square of nine degrees, and drawing without replacement makes it smaller.
        assert np.sum((part - expected) ** 2 / expected) < 27.9
