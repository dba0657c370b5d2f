"""A site's own filters: what they do to a file, and what cannot be filtered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hansa.errors import SiteError
from hansa.params import Params
from hansa.protocol.messages import BlobRef, Offer
from hansa.rounds.questions import packed, unpacked
from hansa.site.outgoing import build_filters, filtered
from hansa.site.settings import parse_settings, settings_text
from hansa.store.addresses import digest_of_file
from hansa.store.files import load_params, save_params

NOTHING = "blake3:" + "0" * 64


def offer(algorithm: Any = "fed_avg") -> Offer:
    tensors = [("head.w", "F32", [2]), ("body.w", "F64", [1, 3]), ("count", "I64", [])]
    return Offer(
        run="r-1", identity=NOTHING, plan={"algorithm": algorithm},
        package=BlobRef(digest=NOTHING, size=0), tensors=tensors, buffers=[],
        submitter="ada", certificate="", signature="",
    )  # fmt: skip


def test_named_tensors_are_found_in_the_flat_vector_whatever_their_order(tmp_path: Path) -> None:
    """The wider dtype comes first in a flat vector, though the model names it second."""
    update = tmp_path / "update"
    params = {"delta": np.array([1.0, -2, 3, -4, 5]), "buffers": np.array([7.0])}
    save_params(update, Params.of(params))
    steps = [{"name": "exclude", "tensors": ["head.*"]}, {"name": "clip", "norm": 0.5}]
    digest, size = filtered(update, build_filters(steps), offer())
    found = load_params(update)
    left = np.array([1.0, -2, 3, 0, 0])
    np.testing.assert_allclose(found["delta"], left * 0.5 / np.sqrt(14), rtol=1e-12)
    assert found["buffers"].tolist() == [7]
    assert (digest, size) == digest_of_file(update)


def test_tensors_of_an_answer_are_filtered_and_its_facts_stay(tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    save_params(answer, packed(Params.of({"w": np.array([[3.0, -4.0]])}), {"rows": 9}))
    filtered(answer, build_filters([{"name": "clip", "norm": 1.0}]), offer(), named=True)
    found = unpacked(load_params(answer))
    assert found.params is not None and found.facts == {"rows": 9}
    np.testing.assert_allclose(found.params["w"], [[0.6, -0.8]])


def test_a_tensor_that_an_owner_keeps_leaves_in_no_answer_either(tmp_path: Path) -> None:
    """Its own name, as when weights are asked for, or that of buffers, which updates alone have."""
    answer = tmp_path / "answer"
    tensors = {"head.w": np.array([3.0, -4.0]), "body.w": np.array([5.0]), "buffers": np.ones(3)}
    save_params(answer, packed(Params.of(tensors), {}))
    steps = [{"name": "exclude", "tensors": ["head.*"]}, {"name": "clip", "norm": 1.0}]
    filtered(answer, build_filters(steps), offer(), named=True)
    found = load_params(answer)
    left = np.array([5.0, 1, 1, 1]) / np.sqrt(28)
    assert found["head.w"].tolist() == [0, 0]
    np.testing.assert_allclose([*found["body.w"], *found["buffers"]], left, rtol=1e-12)


def test_what_cannot_be_filtered_does_not_leave(tmp_path: Path) -> None:
    update = tmp_path / "update"
    save_params(update, Params.of({"delta": np.zeros(5)}))
    with pytest.raises(SiteError) as error:
        filtered(
            update, build_filters([{"name": "clip", "norm": 1.0}]), offer({"name": "scaffold"})
        )
    assert error.value.code == "site-filter"


@pytest.mark.parametrize(
    "vectors",
    [
        {"delta": np.arange(6.0)},
        {"delta": np.arange(5.0).reshape(1, 5)},
        {"delta": np.arange(5.0), "more": np.ones(2)},
        {"delta": np.arange(5.0), "buffers": np.ones(2)},
    ],
)
def test_what_is_no_vector_of_the_model_does_not_pass_a_filter_as_it_is(
    tmp_path: Path, vectors: dict[str, Any]
) -> None:
    update = tmp_path / "update"
    save_params(update, Params.of(vectors))
    with pytest.raises(SiteError, match="not as long as the model") as error:
        filtered(update, build_filters([{"name": "exclude", "tensors": ["head.*"]}]), offer())
    assert error.value.code == "site-filter"


def test_settings_keep_filters_and_tasks_when_they_are_written() -> None:
    text = (
        'name = "north"\n[policy]\ntasks = ["count"]\n'
        'filters = [{ name = "clip", norm = 1.5 }, { name = "exclude", tensors = ["a.*", "b"] }]\n'
    )
    settings = parse_settings(text)
    assert parse_settings(settings_text(settings)) == settings
    assert settings.policy is not None and settings.policy.tasks == ("count",)


@pytest.mark.parametrize(
    "filters",
    ['{ name = "clap", norm = 1.0 }', '{ name = "clip" }', '{ name = "clip", norm = -1.0 }',
     '{ name = "exclude", tensors = 3 }', '{ name = "model.py:own" }', '{ norm = 1.0 }'],
)  # fmt: skip
def test_filters_that_cannot_be_are_refused_with_the_settings(filters: str) -> None:
    with pytest.raises(SiteError) as error:
        parse_settings(f'name = "north"\n[policy]\nfilters = [{filters}]\n')
    assert error.value.code == "site-settings"


@pytest.mark.parametrize(
    ("step", "left"),
    [
        ({"name": "percentile", "share": 25, "bound": 2.5}, [0, -2, 2.5, -2.5, 2.5]),
        ({"name": "clip", "norm": 1.0}, np.array([1, -2, 3, -4, 5]) / np.sqrt(55)),
        ({"name": "exclude", "tensors": ["head.*"]}, [1, -2, 3, 0, 0]),
        (
            {"name": "sparse_vector", "fraction": 1.0, "epsilon": 1e12, "noise": 1e12,
             "bound": 3.5, "threshold": 2.5},
            [0, 0, 3, -3.5, 3.5],
        ),
    ],
    ids=lambda case: case["name"] if isinstance(case, dict) else "",
)  # fmt: skip
def test_an_update_in_bfloat16_is_filtered(tmp_path: Path, step: Any, left: Any) -> None:
    """What a plan with the transform cast sends."""
    update = tmp_path / "update"
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    save_params(update, Params.of({"delta": np.array([1.0, -2, 3, -4, 5]).astype(bfloat16)}))
    filtered(update, build_filters([step]), offer())
    found = load_params(update)["delta"]
    assert found.dtype == bfloat16
    np.testing.assert_allclose(found.astype(np.float64), left, rtol=2.0**-8)


@pytest.mark.parametrize("name", ["percentile", "sparse_vector"])
@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_counts_do_not_leave_around_a_filter_of_floats(
    tmp_path: Path, name: str, dtype: str
) -> None:
    answer = tmp_path / "answer"
    counts = np.array([5, 900, 3]).astype(dtype)
    save_params(answer, packed(Params.of({"counts": counts, "w": np.array([0.5])}), {"rows": 9}))
    before = answer.read_bytes()
    with pytest.raises(SiteError, match=f"site's filter {name} cannot change 'counts'") as error:
        filtered(answer, build_filters([{"name": name}]), offer(), named=True)
    assert error.value.code == "site-filter"
    assert answer.read_bytes() == before


def test_counts_that_an_owner_clips_are_cut_towards_0(tmp_path: Path) -> None:
    """12, -4 and 3 have the norm 13."""
    answer = tmp_path / "answer"
    save_params(answer, packed(Params.of({"counts": np.array([12, -4, 3])}), {}))
    filtered(answer, build_filters([{"name": "clip", "norm": 6.5}]), offer(), named=True)
    found = unpacked(load_params(answer)).params
    assert found is not None and found["counts"].tolist() == [6, -2, 1]
