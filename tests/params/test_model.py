"""A model is one trained vector and the rest, and nothing is lost between the two."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import ParamsError
from hansa.params import Layout, Params
from hansa.params.model import ModelLayout, from_vector, zeros


def network() -> Params:
    """A network with BatchNorm: two trained dtypes, and buffers of several."""
    return Params.of(
        {
            "conv": np.array([[0.5, -1.25], [3.0, 7.0]], np.float32),
            "mean": np.array([0.1, -0.2], np.float32),
            "seen": np.array(2**53 - 1, np.int64),
            "head": np.array([-0.75, 1e-3], np.float64),
            "mask": np.array([True, False, True]),
            "scale": np.array([1.5], np.float16),
            "empty": np.zeros((0, 3), np.int32),
            "codes": np.array([-128, 127], np.int8),
        }
    )


def model(params: Params, *buffers: str) -> ModelLayout:
    return ModelLayout(params.layout, buffers)


def test_named_floats_and_all_that_is_no_float_are_buffers() -> None:
    layout = model(network(), "mean", "scale")
    assert set(layout.trained.names) == {"conv", "head"}
    assert set(layout.buffers.names) == {"mean", "seen", "mask", "scale", "empty", "codes"}
    x, buffers = layout.split(network())
    assert (x.dtype, x.shape) == (np.float64, (6,))
    assert sorted(x) == sorted([0.5, -1.25, 3.0, 7.0, -0.75, 1e-3])
    assert (buffers.dtype, buffers.shape) == (np.float64, (9,))


def test_split_and_join_are_inverse_to_the_bit() -> None:
    params = network()
    layout = model(params, "mean", "scale")
    joined = layout.join(*layout.split(params))
    assert joined == params
    assert list(joined) == list(params)


tensors = st.sampled_from(["F64", "F32", "F16", "BF16", "I64", "I32", "I8", "U64", "U8", "BOOL"])
shapes = st.lists(st.integers(0, 3), max_size=2).map(tuple)


@given(st.lists(st.tuples(tensors, shapes, st.sampled_from("tbc")), max_size=7), st.randoms())
def test_any_model_comes_back_as_it_was(specs, random) -> None:
    layout = Layout.of((f"t{i}", dtype, shape) for i, (dtype, shape, _) in enumerate(specs))
    params = zeros(layout)
    for tensor in params.values():  # small whole numbers are exact in every dtype
        tensor[...] = np.array(
            [random.randint(0, 1) for _ in range(tensor.size)], np.int64
        ).reshape(tensor.shape)
    buffers, fixed = ([f"t{i}" for i, s in enumerate(specs) if s[2] == kind] for kind in "bc")
    split = ModelLayout(layout, buffers, fixed).holding(params)
    assert split.constants.names == tuple(fixed)
    assert split.join(*split.split(params)) == params


def test_constants_are_kept_to_the_bit_and_a_changed_one_is_named() -> None:
    params = Params.of(
        {
            "w": np.array([1.0, -2.0], np.float32),
            "mask": np.array([-np.inf, np.nan, -0.0], ml_dtypes.bfloat16),
            "big": np.array([2**63 - 1, 2**53 + 1], np.uint64),
        }
    )
    layout = ModelLayout(params.layout, (), ["mask", "big"]).holding(params)
    x, buffers = layout.split(params)
    assert (x.tolist(), buffers.tolist()) == ([1, -2], [])
    whole = layout.join(x, buffers)
    assert whole == params
    assert layout.changed(whole) is None
    whole["w"][...] = 7
    whole["mask"][2] = 0.0
    assert layout.changed(whole) == "mask"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_of_one_precision_is_a_view_both_ways(dtype) -> None:
    params = Params.of({"w": np.zeros((2, 2), dtype), "b": np.zeros(3, dtype)})
    layout = model(params)
    x, buffers = layout.split(params)
    assert np.shares_memory(x, params.body)
    assert (buffers.dtype, buffers.size) == (np.float64, 0)
    joined = layout.join(x, buffers)
    assert np.shares_memory(joined["w"], x)
    x[0] = 9
    assert 9 in joined["w"] or 9 in joined["b"]


def test_a_vector_of_another_precision_is_rounded_into_the_tensors() -> None:
    layout = Params.of({"w": np.zeros(2, np.float32)}).layout
    wide = np.array([1 + 2**-24, -1 / 3])
    assert not np.shares_memory(from_vector(layout, wide).body, wide)
    np.testing.assert_array_equal(from_vector(layout, wide)["w"], wide.astype(np.float32))
    strided = np.arange(4, dtype=np.float32)[::2]
    np.testing.assert_array_equal(from_vector(layout, strided)["w"], [0, 2])
    narrow = np.array([0.1, -0.2], np.float32)
    double = Params.of({"w": np.zeros(2)}).layout
    np.testing.assert_array_equal(from_vector(double, narrow)["w"], narrow.astype(np.float64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_vector_of_the_wrong_length_is_refused(dtype) -> None:
    layout = Params.of({"w": np.zeros(3, np.float32)}).layout
    with pytest.raises(ParamsError):
        from_vector(layout, np.zeros(2, dtype))


def averaged(dtype, *values: float) -> list:
    params = Params.of({"n": np.zeros(len(values), dtype), "w": np.zeros(1, np.float32)})
    return model(params, "n").buffer_params(np.array(values, np.float64))["n"].tolist()


def test_averaged_integers_go_to_the_nearest_and_ties_to_even() -> None:
    assert averaged(np.int64, 0.5, 1.5, 2.5, -0.5, -1.5, 2.4999, -7.6) == [0, 2, 2, 0, -2, 2, -8]


def test_averaged_integers_stay_inside_their_dtype() -> None:
    assert averaged(np.int8, 127.4, 128.0, 1e30, -128.6, -1e30) == [127, 127, 127, -128, -128]
    assert averaged(np.uint8, -0.6, 255.6, 254.5) == [0, 255, 254]
    assert averaged(np.uint16, -3.0, 65536.0) == [0, 65535]
    low, high, exact = averaged(np.int64, -(2.0**63) * 2, 2.0**63, 2.0**53)
    assert (low, exact) == (-(2**63), 2**53)
    assert 2**63 - 2048 <= high <= 2**63 - 1
    zero, top = averaged(np.uint64, -1.0, 2.0**64)
    assert (zero, top) == (0, 2**64 - 2048)


def test_a_mask_is_set_where_most_have_set_it() -> None:
    assert averaged(np.bool_, 0.0, 0.49, 0.5, 0.51, 1.0) == [False, False, False, True, True]


def test_averaged_floats_are_rounded_once_and_overflow_without_a_warning() -> None:
    with np.errstate(all="raise"):
        assert averaged(np.float16, 1e6, -1e6, 0.1) == [np.inf, -np.inf, float(np.float16(0.1))]
        tie = averaged(ml_dtypes.bfloat16, 1 + 2**-8 + 2**-40, 1 + 2**-8)
    assert [float(v) for v in tie] == [1 + 2**-7, 1.0]


def test_rounding_buffers_is_what_a_trip_to_disk_does() -> None:
    params = network()
    layout = model(params, "mean", "scale")
    x, buffers = layout.split(params)
    moved = buffers + np.linspace(-0.7, 0.7, buffers.size)
    rounded = layout.rounded(moved)
    np.testing.assert_array_equal(layout.split(layout.join(x, moved))[1], rounded)
    np.testing.assert_array_equal(layout.rounded(rounded), rounded)
    assert not np.array_equal(rounded, moved)


@pytest.mark.parametrize(
    ("dtypes", "exact"),
    [
        (["F32"], True),
        (["F64"], True),
        ([], True),
        (["BF16"], False),
        (["F16"], False),
        (["F32", "F64"], False),
        (["F32", "F16"], False),
        (["F32", "I64"], True),
    ],
)
def test_exact_says_whether_the_tensors_hold_x_as_it_is(dtypes: list[str], exact: bool) -> None:
    layout = Layout.of((f"t{i}", dtype, (3,)) for i, dtype in enumerate(dtypes))
    split = ModelLayout(layout)
    assert split.exact() is exact
    size = split.trained.float_size
    x = (np.arange(size) / 3).astype(split.split(zeros(layout))[0].dtype)
    back = split.split(split.join(x, np.zeros(split.split(zeros(layout))[1].size)))[0]
    assert np.array_equal(back, x) is exact


def test_a_model_without_trained_tensors_has_an_empty_vector() -> None:
    params = Params.of({"count": np.array([3, -4], np.int32)})
    x, buffers = model(params).split(params)
    assert x.size == 0
    np.testing.assert_array_equal(buffers, [3, -4])
    assert model(params).join(x, buffers) == params
