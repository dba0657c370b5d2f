import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3

from hansa.errors import ParamsError
from hansa.params import Layout, Params, encode


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_every_dtype_keeps_its_bits_its_shape_and_its_place(arrays):
    params = Params.of(arrays)
    assert list(params) == list(arrays)
    assert all(same_bits(params[name], array) for name, array in arrays.items())
    assert all(same_bits(a, b) for a, b in zip(params.to_list(), arrays.values(), strict=True))
    assert params.to_dict().keys() == arrays.keys()


def test_a_sequence_is_named_by_position():
    params = Params.of([np.float32([1]), np.int8([[2]])])
    assert params.to_dict() == {"0": [1.0], "1": [[2]]}


def test_strided_transposed_and_big_endian_arrays_keep_their_values():
    grid = np.arange(12.0).reshape(3, 4)
    params = Params.of(
        {"t": grid.T, "s": grid[::-2, ::3], "b": grid.astype(">f4"), "0d": grid[1, 1]}
    )
    assert (params["t"] == grid.T).all()
    assert (params["s"] == [[8, 11], [0, 3]]).all()
    assert params["b"].dtype == np.dtype("<f4") and (params["b"] == grid).all()
    assert params["0d"].shape == () and params["0d"] == 5


def test_tensors_are_aligned_writable_views_of_one_body(mixed):
    for name, view in mixed.items():
        assert view.flags.aligned and view.flags.writeable and view.flags.c_contiguous, name
        assert view.size == 0 or np.shares_memory(view, mixed.body)
    mixed["head.weight"][1, 2] = 42
    assert 42 in mixed.flat("F32")


def test_params_do_not_share_memory_with_what_they_were_made_of(arrays):
    params = Params.of(arrays)
    arrays["wide"][:] = 0
    assert params["wide"][0] == 1e300


def test_views_are_read_only_when_the_body_is(mixed):
    mixed.body.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        mixed["wide"][0] = 1
    mixed.copy()["wide"][0] = 1


def test_flat_holds_all_tensors_of_a_dtype_in_order(mixed, arrays):
    expected = [arrays[n].ravel() for n in ("head.bias", "head.weight")] + [[-0.75]]
    assert (mixed.flat("F32") == np.concatenate(expected)).all()
    assert mixed.flat("BOOL").tolist() == [True, False, True]
    assert Params.of([]).flat("BF16").size == 0
    with pytest.raises(ParamsError, match="F8") as caught:
        mixed.flat("F8")
    assert caught.value.code == "params-unknown-dtype"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_vector_of_one_wide_dtype_is_a_view(dtype):
    params = Params.of({"n": np.int64(3), "w": np.array([[1, -2]], dtype), "b": np.array(5, dtype)})
    vector = params.vector()
    assert same_bits(vector, np.array([1, -2, 5], dtype))
    vector[2] = 9
    assert params["b"] == 9 and params["n"] == 3


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((np.float16,), np.float32),
        ((ml_dtypes.bfloat16,), np.float32),
        ((np.float16, np.float32), np.float32),
        ((np.float16, np.float64, ml_dtypes.bfloat16), np.float64),
        ((), np.float32),
    ],
)
def test_the_vector_of_other_floats_is_a_wider_copy_in_body_order(dtypes, expected):
    params = Params.of([np.array([i - 0.5, -i], dtype) for i, dtype in enumerate(dtypes)])
    vector = params.vector()
    assert vector.dtype == expected and vector.shape == (2 * len(dtypes),)
    flats = [params.flat(dtype).astype(expected) for dtype in params.layout.float_spans()]
    assert same_bits(vector, np.concatenate([np.empty(0, expected), *flats]))


def test_a_vector_goes_back_where_it_came_from(mixed):
    again = mixed.with_vector(mixed.vector())
    assert again == mixed
    assert not np.shares_memory(again.body, mixed.body)


def test_with_vector_replaces_floats_rounded_and_keeps_the_rest(mixed):
    vector = np.linspace(-3, 2, mixed.layout.float_size)
    made = mixed.with_vector(vector)
    assert made.metadata == mixed.metadata
    for dtype in mixed.layout.dtypes:
        if dtype in mixed.layout.float_spans():
            start, stop = mixed.layout.float_spans()[dtype]
            expected = vector[start:stop].astype(made.flat(dtype).dtype)
            assert same_bits(made.flat(dtype), expected)
        else:
            assert same_bits(made.flat(dtype), mixed.flat(dtype))


@pytest.mark.parametrize("shape", [(25,), (1, 26), (), (27,)])
def test_a_vector_of_another_length_is_refused(mixed, shape):
    with pytest.raises(ParamsError, match="26 floating elements") as caught:
        mixed.with_vector(np.zeros(shape))
    assert caught.value.code == "params-mismatch"


@pytest.mark.parametrize("dtype", [np.int64, np.bool_])
def test_a_vector_of_no_floating_dtype_is_refused(mixed, dtype):
    with pytest.raises(ParamsError, match="26 floating elements") as caught:
        mixed.with_vector(np.zeros(26, dtype))
    assert caught.value.code == "params-mismatch"


def test_from_vector_leaves_other_tensors_zero(mixed):
    layout = Layout.of([("n", "I64", ()), ("w", "F32", (2,)), ("h", "F16", (1,))])
    params = Params.from_vector(layout, np.array([1.5, -2, 0.1]))
    assert (params["n"], params["w"].tolist(), params["h"][0]) == (0, [1.5, -2.0], np.float16(0.1))
    assert not Params.zeros(mixed.layout).body.any()


def test_a_subset_is_a_copy_of_some_tensors(mixed, arrays):
    some = mixed.subset({"wide", "brain", "mask"})
    assert list(some) == ["mask", "brain", "wide"]
    assert all(same_bits(some[name], arrays[name]) for name in some)
    assert some.metadata == mixed.metadata
    some["wide"][0] = 0
    assert mixed["wide"][0] == 1e300


def test_equal_means_the_same_encoded_bytes(arrays):
    params = Params.of({"w": np.array([np.nan, 0.0])}, {"a": "1", "b": "2"})
    assert params == Params.of({"w": np.array([np.nan, 0.0])}, {"b": "2", "a": "1"})
    others = [
        Params.of({"w": np.array([np.nan, -0.0])}, {"a": "1", "b": "2"}),
        Params.of({"w": np.array([[np.nan, 0.0]])}, {"a": "1", "b": "2"}),
        Params.of({"v": np.array([np.nan, 0.0])}, {"a": "1", "b": "2"}),
        Params.of({"w": np.array([np.nan, 0.0])}, {"a": "1"}),
    ]
    assert all(params != other and params.digest() != other.digest() for other in others)
    assert params != {"w": params["w"]}


@pytest.mark.parametrize("size", [0, 3, 2**21 + 1])
def test_the_digest_is_the_hash_of_the_encoded_bytes(size):
    params = Params.of({"w": np.arange(size, dtype=np.uint8), "b": np.float16([1, -3])}, {"k": "v"})
    encoded = b"".join(encode(params))
    assert params.digest() == "blake3:" + blake3(encoded).hexdigest()
    assert params.nbytes == len(encoded)


def test_the_digest_follows_a_change_of_one_bit(mixed):
    before = mixed.digest()
    mixed.body[-1] ^= 1
    assert mixed.digest() != before


@pytest.mark.parametrize("value", [[1.0, 2.0], 3.0, "text", None, {"a": 1}])
def test_what_is_not_an_array_is_refused_by_name(value):
    with pytest.raises(ParamsError, match="'evil'") as caught:
        Params.of({"ok": np.zeros(1), "evil": value})
    assert caught.value.code == "params-not-an-array"


def test_an_array_of_objects_or_of_complex_numbers_is_refused_by_name():
    for evil in (np.array([None]), np.array([1j]), np.array(["a"])):
        with pytest.raises(ParamsError, match="'evil'") as caught:
            Params.of({"ok": np.zeros(1), "evil": evil})
        assert caught.value.code == "params-unknown-dtype"


def test_an_object_that_fails_to_become_an_array_is_refused_with_its_reason():
    class OnAnotherDevice:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("copy me to the host first")

    with pytest.raises(ParamsError, match="'evil' is a OnAnotherDevice: copy me to the host"):
        Params.of({"evil": OnAnotherDevice()})


@pytest.mark.parametrize("metadata", [{"round": 7}, {7: "round"}, {"name": "\udc80"}])
def test_metadata_that_is_not_text_is_refused(metadata):
    with pytest.raises(ParamsError, match="is not text") as caught:
        Params.of({}, metadata)
    assert caught.value.code == "params-bad-header"


def test_a_body_that_does_not_fit_the_layout_is_refused():
    layout = Layout.of([("w", "F32", (2,))])
    bodies = [np.zeros(7, np.uint8), np.zeros(8, np.int8), np.zeros((2, 4), np.uint8)]
    for body in [*bodies, np.zeros(16, np.uint8)[::2]]:
        with pytest.raises(ParamsError, match="needs 8 contiguous bytes") as caught:
            Params(layout, body)
        assert caught.value.code == "params-truncated"


def test_an_unknown_name_is_a_key_error(mixed):
    assert "nothing" not in mixed and mixed.get("nothing") is None
    with pytest.raises(KeyError):
        mixed["nothing"]


@pytest.mark.torch
def test_torch_can_view_every_tensor_without_a_copy(mixed):
    torch = pytest.importorskip("torch")
    for name, view in mixed.items():
        is_brain = view.dtype == ml_dtypes.bfloat16
        tensor = torch.from_numpy(view.view(np.int16) if is_brain else view)
        tensor = tensor.view(torch.bfloat16) if is_brain else tensor
        assert tuple(tensor.shape) == view.shape
        tensor.zero_()
        assert not view.astype(np.float64).any(), name
