"""The example of federated statistics; the oracle is NumPy on all rows together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hansa.project import open_project
from hansa.simulation import Simulation, continue_run, open_run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "statistics"


def test_the_report_is_that_of_all_rows_together(tmp_path: Path) -> None:
    project = open_project(EXAMPLE)
    run, population = open_run(project, Simulation(tmp_path))
    continue_run(run, project, population, simulation=Simulation(tmp_path))
    report = run.rows()[0]["report"]
    parts = [population.data(name).train.x for name in population.names]
    x = np.concatenate(parts).astype(np.float64)
    assert report["count"] == [len(x)] * x.shape[1]
    np.testing.assert_allclose(report["mean"], x.mean(0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(report["variance"], x.var(0, ddof=1), rtol=1e-10)
    assert report["histogram"][3] == np.histogram(x[:, 3], 4)[0].tolist()
    assert report["min"][0] == pytest.approx(x[:, 0].min())
