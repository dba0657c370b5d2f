"""What is refused at the door, with which code and which words."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest

from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, admit
from hansa.errors import UpdateRefused
from hansa.limits import BLOCK_VALUES

SPEC = AggregationSpec(
    {
        "delta": VectorSpec(4, "float32", bound=64.0),
        "statistics": VectorSpec(2, "float64", bound=None),
        "nothing": VectorSpec(0, "float32", bound=1.0),
    },
    weight_limit=2.0**20,
)


def contribution(weight: object = 3, **vectors: object) -> Contribution:
    good = {
        "delta": np.array([1.5, -64.0, -0.0, 64.0], "float32"),
        "statistics": np.array([2.0**42, -(2.0**42)]),
        "nothing": np.zeros(0, "float32"),
    }
    return Contribution("north", {**good, **vectors}, weight)


def refused(update: Contribution, code: str, *words: str, spec: AggregationSpec = SPEC) -> None:
    with pytest.raises(UpdateRefused) as caught:
        admit(update, spec)
    assert caught.value.code == code
    assert "'north'" in caught.value.happened
    assert "not counted" in caught.value.happened
    for word in words:
        assert word in str(caught.value)


def test_values_on_the_bound_and_minus_zero_are_admitted() -> None:
    admit(contribution(), SPEC)


@pytest.mark.parametrize("at", [0, BLOCK_VALUES - 1, BLOCK_VALUES, 2 * BLOCK_VALUES + 6])
@pytest.mark.parametrize("value", [-7.5, 7.5])
def test_admission_finds_the_greatest_magnitude_in_whatever_block(at: int, value: float) -> None:
    spec = AggregationSpec({"x": VectorSpec(2 * BLOCK_VALUES + 7, "float32", 64.0)}, 8.0)
    x = np.full(2 * BLOCK_VALUES + 7, 0.25, "float32")
    x[at] = value
    assert admit(Contribution("north", {"x": x}, 1), spec).peaks == {"x": 7.5}


def test_admission_finds_the_peak_of_every_vector_and_0_of_an_empty_one() -> None:
    quiet = contribution(delta=np.array([-3, 2, 0, 0], "float32"), statistics=np.array([-1.0, 5]))
    assert admit(quiet, SPEC).peaks == {"delta": 3.0, "statistics": 5.0, "nothing": 0.0}


@pytest.mark.parametrize("weight", [1, 1.5, 2.0**20, 2.0**-20, np.float32(2), Fraction(1, 3)])
def test_positive_finite_weights_are_admitted(weight: object) -> None:
    admit(contribution(weight), SPEC)


@pytest.mark.parametrize(
    "weight",
    [
        0,
        -1,
        -0.0,
        float("nan"),
        float("inf"),
        -float("inf"),
        1e308,
        10**400,
        np.nextafter(2.0**20, np.inf),
        5e-324,
        2.0**-20.001,
        True,
        "3",
        None,
        1j,
        np.array([1.0]),
    ],
    ids=repr,
)
def test_other_weights_are_refused(weight: object) -> None:
    refused(contribution(weight), "update-weight", repr(weight)[:40])


def test_a_weight_that_alone_exceeds_the_limit_names_the_key_of_the_plan() -> None:
    for weight in (2**20 + 1, 1e308, 10**400):
        refused(contribution(weight), "update-weight", "Set weight_limit in the plan")
    for weight in (0, float("inf"), float("nan")):
        refused(contribution(weight), "update-weight", "positive finite number of examples")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["delta", "statistics"])
def test_a_value_that_is_not_finite_is_refused_where_it_stands(name: str, bad: float) -> None:
    vector = contribution().vectors[name].copy()
    vector[1] = bad
    refused(contribution(**{name: vector}), "update-not-finite", f"'{name}'", repr(bad), "index 1")


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("delta", 1e38),
        ("delta", -1e38),
        ("delta", float(np.nextafter(np.float32(64), np.float32(65)))),
        ("statistics", 1e308),
        ("statistics", -(2.0**42) * (1 + 2**-52)),
    ],
)
def test_a_value_beyond_the_bound_is_refused_where_it_stands(name: str, bad: float) -> None:
    vector = contribution().vectors[name].copy()
    vector[1] = bad
    words = (
        f"'{name}'",
        repr(float(vector[1])),
        "index 1",
        "64" if name == "delta" else "4.39805e+12",
    )
    refused(contribution(**{name: vector}), "update-out-of-bound", *words)


@pytest.mark.parametrize("bound", [0.1, 0.3, 1e-40, 1e38])
def test_a_client_that_clips_to_the_bound_in_float32_is_admitted(bound: float) -> None:
    spec = AggregationSpec({"x": VectorSpec(3, "float32", bound)}, 10)
    clipped = np.array([0.0, 9e37, -9e37], "float32").clip(-bound, bound)
    admit(Contribution("north", {"x": clipped}, 1), spec)
    beyond = clipped.copy()
    beyond[2] = np.nextafter(np.float32(-bound), np.float32(-np.inf))
    if abs(float(beyond[2])) > bound:
        with pytest.raises(UpdateRefused, match="index 2"):
            admit(Contribution("north", {"x": beyond}, 1), spec)


def test_infinity_is_refused_under_a_bound_beyond_float32() -> None:
    spec = AggregationSpec({"x": VectorSpec(2, "float32", 1e60)}, 10)
    admit(Contribution("north", {"x": np.full(2, 3.4e38, "float32")}, 1), spec)
    for bad in (np.inf, -np.inf, np.nan):
        with pytest.raises(UpdateRefused, match="index 1") as caught:
            admit(Contribution("north", {"x": np.array([1, bad], "float32")}, 1), spec)
        assert caught.value.code == "update-not-finite"


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 65.0, -65.0])
@pytest.mark.parametrize("index", [0, BLOCK_VALUES - 1, BLOCK_VALUES, BLOCK_VALUES + 6])
def test_the_first_bad_value_is_found_in_any_block(index: int, bad: float) -> None:
    size = BLOCK_VALUES + 7
    spec = AggregationSpec({"x": VectorSpec(size, "float32", 64.0)}, 10)
    vector = np.ones(size, "float32")
    vector[index:] = bad
    with pytest.raises(UpdateRefused, match=re.escape(f"index {index} is {bad}")):
        admit(Contribution("north", {"x": vector}, 1), spec)


@pytest.mark.parametrize(
    "vector",
    [np.zeros(3, "float32"), np.zeros(5, "float32"), np.zeros((4, 1), "float32"), np.float32([])],
    ids=lambda v: str(v.shape),
)
def test_a_wrong_length_or_rank_is_refused(vector: np.ndarray) -> None:
    refused(contribution(delta=vector), "update-shape", "'delta'", str(vector.shape), "(4,)")


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", ">f4", "complex64", "object"])
def test_another_dtype_is_refused(dtype: str) -> None:
    refused(contribution(delta=np.zeros(4, dtype)), "update-dtype", "'delta'", "float32")


def test_what_is_not_an_array_is_refused() -> None:
    refused(contribution(delta=[1.0, 2.0, 3.0, 4.0]), "update-dtype", "'delta'", "list")


def test_a_missing_vector_is_refused_by_name() -> None:
    update = contribution()
    rest = {name: v for name, v in update.vectors.items() if name != "statistics"}
    refused(update._replace(vectors=rest), "update-names", "lacks 'statistics'")


def test_an_extra_vector_is_refused_by_name_and_not_at_full_length() -> None:
    refused(contribution(extra=np.zeros(1)), "update-names", "brings 'extra'")
    with pytest.raises(UpdateRefused) as caught:
        admit(contribution(**{"x" * 10_000: np.zeros(1)}), SPEC)
    assert len(str(caught.value)) < 600


def test_strided_and_memory_mapped_vectors_are_admitted(tmp_path) -> None:
    mapped = np.memmap(tmp_path / "update", "float32", "w+", shape=(8,))
    admit(contribution(delta=mapped[::2]), SPEC)
