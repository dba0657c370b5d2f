"""A whole run whose plan asks for metrics: what its rows show is that of all rows together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from projects import final_model, simulate

from hansa.project import open_project
from hansa.simulation import project_population

sklearn_metrics = pytest.importorskip("sklearn.metrics")

PLAN = """
name = "measured"
rounds = 2
[learner]
model = "softmax"
[data]
set = "digits"
split = { scheme = "dirichlet", alpha = 0.2, clients = 5 }
validation = 0.3
[evaluate]
metrics = ["f1", "confusion", "roc_auc"]
[stop]
metric = "f1"
patience = 50
"""


def predicted(params, data) -> np.ndarray:
    logits = data.x.reshape(data.examples, -1) @ params["layer0.weight"] + params["layer0.bias"]
    return np.asarray(logits.argmax(axis=1))


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_rows_show_metrics_of_all_clients_examples_together(tmp_path: Path, engine: str) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    run = simulate(tmp_path, engine=engine)
    row, model = run.rows()[-1], final_model(run)
    population = project_population(open_project(tmp_path))
    held = [population.data(name).validation for name in population.names]
    y = np.concatenate([part.y for part in held])
    said = np.concatenate([predicted(model, part) for part in held])
    expected = sklearn_metrics.f1_score(y, said, average="macro")
    assert row["validation"]["f1"]["mean"] == pytest.approx(expected, rel=1e-12)
    assert row["confusion"]["validation"] == sklearn_metrics.confusion_matrix(y, said).tolist()
    test = population.test
    expected = sklearn_metrics.f1_score(test.y, predicted(model, test), average="macro")
    assert row["test"]["f1"]["mean"] == pytest.approx(expected, rel=1e-12)
    assert not [name for name in row["test"] if name.startswith(("confusion", "roc/"))]
    by_client = row["validation"]["f1"]["by_client"]
    assert by_client["client-2"] == pytest.approx(
        sklearn_metrics.f1_score(held[2].y, predicted(model, held[2]), average="macro")
    )
    assert run.commits()[-1]["progress"]["best"] > 0
