"""What Python and notebooks get back, and models out of Hansa."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hansa
from hansa.params import Params
from hansa.runs.export import export_model
from hansa.store.files import save_params


@pytest.fixture
def result(home: Path) -> hansa.Result:
    return hansa.run(
        learner=hansa.numpy_learner("softmax"),
        data=hansa.split("digits", "dirichlet", alpha=0.5, clients=4, seed=1),
        rounds=3,
        lr=0.1,
    )


def test_a_run_from_python_returns_metrics_model_and_pictures(result: hansa.Result) -> None:
    assert [row["round"] for row in result.metrics] == [1, 2, 3]
    assert result.metrics[-1]["test_accuracy"] > 0.5
    assert result.params.digest() == result.digest
    assert result.report.read_text(encoding="utf-8").startswith("<!doctype html")
    assert "<svg" in result.plot()._repr_html_()
    assert "<table>" in result.metrics._repr_html_()
    assert "test_accuracy" in str(result.metrics)


def test_the_same_call_gives_the_same_digest(home: Path) -> None:
    def once() -> str:
        return hansa.run(
            learner=hansa.numpy_learner("mlp", hidden=(8,)),
            data=hansa.split("digits", clients=3),
            rounds=2,
            algorithm="scaffold",
        ).digest

    assert once() == once()


def test_a_plot_can_be_saved(result: hansa.Result, tmp_path: Path) -> None:
    result.plot().save(tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text(encoding="utf-8").startswith("<svg")


TENSORS = {
    "file": np.float32([[1.5, -2.0]]),  # also the name of an argument of numpy.savez
    "a/b": np.arange(3, dtype=np.int64),
    "flag": np.array(True),
    "empty": np.zeros((0, 4), np.float16),
}


def test_npz_holds_every_tensor_under_its_name(tmp_path: Path) -> None:
    save_params(tmp_path / "m.safetensors", Params.of(TENSORS))
    line = export_model(tmp_path / "m.safetensors", tmp_path / "m.npz", kind="npz")
    assert "numpy.load" in line
    with np.load(tmp_path / "m.npz") as archive:
        assert set(archive) == set(TENSORS)
        for name, tensor in TENSORS.items():
            np.testing.assert_array_equal(archive[name], tensor)
            assert archive[name].dtype == tensor.dtype


def test_safetensors_reads_back_the_same(tmp_path: Path) -> None:
    params = Params.of(TENSORS)
    save_params(tmp_path / "m.safetensors", params)
    export_model(tmp_path / "m.safetensors", tmp_path / "o.safetensors", kind="safetensors")
    assert hansa.load_model(tmp_path / "o.safetensors") == params


def test_torch_gets_a_state_dict(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save_params(tmp_path / "m.safetensors", Params.of(TENSORS))
    export_model(tmp_path / "m.safetensors", tmp_path / "m.pt", kind="torch")
    state = torch.load(tmp_path / "m.pt")
    assert list(state) == list(TENSORS)
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(state[name].numpy(), tensor)
