"""Goal: a model's line is the one it was made along, across runs, whatever anybody says.

Method: trails written by hand, whose ancestors are read off the drawing; and folders of real runs.

    a-1:0 -- a-1:1 -- a-1:2 -- a-1:3
                        |
                      b-1:0 -- b-1:1
                        |
                      c-1:0
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hansa
from hansa.errors import ParamsError, PlanError, RunError
from hansa.protocol.messages import ModelFacts
from hansa.runs.start import Start, as_seed, read_start, read_tensors
from hansa.runs.trail import Trail, local_trail


def digest(number: int) -> str:
    return f"blake3:{number:064x}"


def line(run: str, numbers: list[int], origin: str = "") -> list[ModelFacts]:
    return [
        ModelFacts(run=run, round=i, digest=digest(n), origin=origin if i == 0 else "")
        for i, n in enumerate(numbers)
    ]


TREE = [*line("a-1", [10, 11, 12, 13]), *line("b-1", [12, 21], "a-1:2"),
        *line("c-1", [12], "a-1:2")]  # fmt: skip


def names(models: list[ModelFacts]) -> list[str]:
    return [model.name for model in models]


def test_a_line_crosses_runs() -> None:
    trail = Trail(TREE)
    expected = ["b-1:0", "a-1:2", "a-1:1", "a-1:0"]
    assert names(trail.ancestors(trail.find("b-1"))) == expected
    below = ["a-1:2", "a-1:3", "b-1:0", "b-1:1", "c-1:0"]
    assert names(trail.descendants(trail.find("a-1:1"))) == below
    assert names(trail.leaves()) == ["a-1:3", "b-1:1", "c-1:0"]
    assert trail.parent(trail.find("a-1:0")) is None


def test_a_run_that_claims_a_parent_with_other_tensors_has_none() -> None:
    trail = Trail([*line("a-1", [10, 11]), *line("b-1", [99, 98], "a-1:1")])
    assert names(trail.ancestors(trail.find("b-1"))) == ["b-1:0"]
    assert names(trail.descendants(trail.find("a-1:0"))) == ["a-1:1"]


def test_runs_that_claim_to_begin_in_each_other_end_no_command_never() -> None:
    trail = Trail([*line("a-1", [7], "b-1:0"), *line("b-1", [7], "a-1:0")])
    assert names(trail.ancestors(trail.find("a-1"))) == ["b-1:0"]
    assert names(trail.descendants(trail.find("a-1"))) == ["b-1:0"]


def test_a_model_is_found_by_round_by_word_and_by_digest() -> None:
    best = ModelFacts(run="d-1", round=1, digest=digest(31), best=True)
    trail = Trail(
        [*TREE, *line("d-1", [30]), best, ModelFacts(run="d-1", round=2, digest=digest(32))]
    )
    assert trail.find("d-1").name == trail.find("d-1:final").name == "d-1:2"
    assert trail.find("d-1:best").name == "d-1:1"
    assert trail.find(digest(13)).name == "a-1:3"
    for wrong in ("e-1", "a-1:4", "a-1:-1", "a-1:best", "blake3:", "blake3:ff", ""):
        with pytest.raises(RunError) as caught:
            trail.find(wrong)
        assert caught.value.code == "model-missing", wrong


def run(runs: Path, **more: object) -> hansa.Result:
    return hansa.run(
        learner=hansa.numpy_learner(),
        data=hansa.split("digits", clients=3),
        runs=runs,
        name="d",
        **more,  # type: ignore[arg-type]
    )


def test_a_run_from_a_model_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    """FedAvg keeps the model alone, and all rows are one batch: 2 + 2 rounds are 4."""
    alike = {"batch_size": "all", "keep": {"every": 1}}
    whole = run(tmp_path, rounds=4, **alike)
    first = run(tmp_path, rounds=2, **alike)
    second = run(tmp_path, rounds=2, start=f"{first.folder.name}:2", **alike)
    assert second.digest == whole.digest != first.digest
    trail = local_trail(tmp_path)
    line = names(trail.ancestors(trail.find(second.folder.name)))
    assert line == ["d-3:1", "d-3:0", "d-2:2", "d-2:1", "d-2:0"]
    assert second.folder.about["seed_model"]["origin"] == "d-2:2"


def test_an_unfinished_run_goes_on_only_from_the_model_that_is_asked_for(tmp_path: Path) -> None:
    first = run(tmp_path, rounds=1)
    again = run(tmp_path, rounds=1, start=first.folder.name)
    assert again.folder.name == "d-2"


def test_a_model_that_was_not_kept_is_said_so(tmp_path: Path) -> None:
    run(tmp_path, rounds=3, keep={"every": 0}, stop={"metric": "loss"})
    kept = {m.round for m in local_trail(tmp_path).models if m.kept}
    assert kept == {3}
    with pytest.raises(RunError, match="was committed and not kept") as caught:
        read_start("d-1:1", tmp_path)
    assert caught.value.code == "model-missing" and "keep.every" in caught.value.hint


def test_an_archive_of_numpy_is_a_model_to_start_from(tmp_path: Path) -> None:
    first = run(tmp_path, rounds=1)
    arrays = {name: np.asarray(first.params[name]) for name in reversed(list(first.params))}
    np.savez(tmp_path / "begin.npz", **arrays)
    second = run(tmp_path, rounds=1, start=tmp_path / "begin.npz")
    assert second.folder.commits()[0]["model"] == first.digest
    assert second.folder.about["seed_model"]["origin"] == "begin.npz"


def test_no_pickle_is_a_model_to_start_from(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", weight=np.array([{"code": 1}], dtype=object))
    with pytest.raises(ParamsError, match="Python objects"):
        read_tensors(tmp_path / "evil.npz")


def test_what_is_no_model_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("name = 'study'\n")
    with pytest.raises(ParamsError, match=r"plan.toml is no safetensors file"):
        read_start(str(tmp_path / "plan.toml"), tmp_path)
    with pytest.raises(RunError, match=r"'away.npz' is neither a file of tensors nor a model"):
        read_start("away.npz", tmp_path)


def test_a_model_of_other_tensors_is_refused_with_the_first_difference(tmp_path: Path) -> None:
    first = run(tmp_path, rounds=1)
    other = hansa.numpy_learner("mlp").init(hansa.load_data("digits"), hansa.seeds.Key.root(0))
    with pytest.raises(PlanError, match=r"'layer0.weight' is .* and not F32 \[64, 64\]"):
        as_seed(Start(first.params.copy(), "d-1:1"), other)
