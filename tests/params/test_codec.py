import json
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import ParamsError
from hansa.limits import HEADER_BYTES_MAX, HEADER_VALUES_MAX, TENSORS_MAX
from hansa.params import Params, decode, encode
from hansa.params.dtypes import DTYPES, numpy_dtype, width


def file_of(header: str | bytes | dict, body: bytes = b"") -> bytes:
    """A file with any header, right or wrong."""
    if isinstance(header, dict):
        header = json.dumps(header)
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header)) + header + body


def tensor(dtype: object, shape: object, *offsets: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


@st.composite
def any_params(draw) -> Params:
    """Params of random bits: every NaN and every negative zero occurs."""
    arrays = {}
    for name in draw(st.lists(st.text(max_size=4), unique=True, max_size=6)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        size = int(np.prod(shape, dtype=int)) * width(dtype)
        raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
        raw = raw & 1 if dtype == "BOOL" else raw
        arrays[name] = raw.view(numpy_dtype(dtype)).reshape(shape)
    return Params.of(arrays, draw(st.dictionaries(st.text(max_size=4), st.text(max_size=4))))


def test_the_format_is_as_it_always_was():
    # A golden file: changing these bytes changes the digest of every model ever made.
    arrays = {"b": np.float16([1, -2]), "né\n": np.int64(-3), "w": np.float32([[0.5]])}
    params = Params.of(arrays, {"z": "1", "a": "2"})
    header = (
        '{"__metadata__":{"a":"2","z":"1"},'
        '"b":{"dtype":"F16","shape":[2],"data_offsets":[12,16]},'
        '"né\\n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
        '"w":{"dtype":"F32","shape":[1,1],"data_offsets":[8,12]}}'
    ).encode()
    padded = header + b" " * (64 * 4 - 8 - len(header))
    body = struct.pack("<qf2e", -3, 0.5, 1, -2)
    assert b"".join(encode(params)) == struct.pack("<Q", 248) + padded + body
    assert (
        params.digest() == "blake3:b9f1098a6ce4c9c2313efc320feb1b96ac75b98e50a9331a1f0d544447f6c8e2"
    )


@given(any_params())
def test_what_is_encoded_is_decoded_bit_for_bit(params):
    header, body = encode(params)
    assert len(header) % 64 == 0
    assert header.rstrip(b" ").endswith(b"}")
    again = decode(header + bytes(body))
    assert again == params and list(again) == list(params)
    assert again.metadata == params.metadata


def test_encoding_does_not_copy_the_body(mixed):
    _, body = encode(mixed)
    assert np.shares_memory(np.frombuffer(body, np.uint8), mixed.body)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.frombuffer])
def test_our_own_files_are_decoded_in_place(mixed, kind):
    encoded = b"".join(encode(mixed))
    buffer = np.frombuffer(encoded, np.uint8) if kind is np.frombuffer else kind(encoded)
    params = decode(buffer)
    assert params == mixed
    assert np.shares_memory(params.body, np.frombuffer(buffer, np.uint8))
    assert params.body.flags.writeable == (kind is bytearray)


def test_a_buffer_at_an_odd_address_is_copied_so_that_tensors_are_aligned(mixed):
    encoded = b"".join(encode(mixed))
    params = decode(memoryview(b"\0" + encoded)[1:])
    assert params == mixed
    assert all(view.flags.aligned for view in params.values())


def test_a_foreign_order_of_header_and_body_is_put_in_order():
    # The header goes backwards, the body mixes dtypes, and the padding is none and tabs.
    body = struct.pack("<b2f3bd", 1, 2.5, -3.5, -4, 5, -6, 7.5)
    header = {
        "d": tensor("F64", [], 12, 20),
        "c": tensor("I8", [3, 1], 9, 12),
        "none": tensor("I16", [5, 0], 9, 9),
        "b": tensor("F32", [2], 1, 9),
        "a": tensor("I8", [1], 0, 1),
    }
    params = decode(file_of(json.dumps(header, indent="\t") + "\n", body))
    assert list(params) == ["d", "c", "none", "b", "a"]
    assert params["a"].tolist() == [1] and params["c"].tolist() == [[-4], [5], [-6]]
    assert params["b"].tolist() == [2.5, -3.5] and params["d"] == 7.5
    assert params["none"].shape == (5, 0)
    assert params.flat("I8").tolist() == [-4, 5, -6, 1]


def test_where_an_empty_tensor_lies_does_not_matter():
    entries = {"none": tensor("F32", [0], 4, 4), "w": F32, "nought": tensor("I64", [3, 0], 0, 0)}
    data = file_of(json.dumps(entries).ljust(64 * 4 - 8), struct.pack("<f", -2.5))
    params = decode(data)
    assert params["w"].tolist() == [-2.5] and params["nought"].shape == (3, 0)
    assert np.shares_memory(params.body, np.frombuffer(data, np.uint8))


def test_a_file_without_tensors_is_a_file():
    assert len(decode(file_of("{}"))) == 0
    assert decode(file_of('{"__metadata__":{}}')).metadata == {}
    assert decode(b"".join(encode(Params.of([])))) == Params.of([])


NEST = 100_000
HOSTILE = {
    "no bytes at all": (b"", "params-truncated"),
    "half a length": (b"\x02\0\0\0", "params-truncated"),
    "a length beyond the file": (struct.pack("<Q", 99) + b"{}", "params-truncated"),
    "a length beyond the limit": (b"\xff" * 8 + b"{}", "params-too-large"),
    "an empty header": (file_of(""), "params-bad-header"),
    "a header that is a list": (file_of("[]"), "params-bad-header"),
    "a header after a space": (file_of(" {}"), "params-bad-header"),
    "a header after a byte order mark": (file_of("\ufeff{}"), "params-bad-header"),
    "a header that is not closed": (file_of("{"), "params-bad-header"),
    "two headers": (file_of("{}{}"), "params-bad-header"),
    "a header of UTF-16": (file_of("{}".encode("utf-16-le")), "params-bad-header"),
    "bytes without a tensor": (file_of("{}", b"\0"), "params-truncated"),
    "invalid UTF-8": (file_of(b'{"\xff":1}'), "params-bad-header"),
    "deep lists": (file_of('{"evil":' + "[" * NEST + "]" * NEST + "}"), "params-bad-header"),
    "deep objects": (file_of('{"evil":' * NEST + "1" + "}" * NEST), "params-bad-header"),
    "an endless integer": (file_of('{"evil":' + "9" * 5000 + "}"), "params-bad-header"),
    "NaN": (file_of('{"evil":NaN}'), "params-bad-header"),
    "a bomb of small lists": (
        file_of('{"evil":[' + "[]," * (HEADER_VALUES_MAX // 2) + "1]}"),
        "params-too-large",
    ),
}
METADATA = {
    "a list": [],
    "a number": {"a": 1},
    "nothing": None,
    "an object": {"a": {}},
    "half a surrogate pair": {"a": "\ud800"},
    "half a pair as key": {"\udfff": "a"},
}
U8, F32 = tensor("U8", [1], 0, 1), tensor("F32", [1], 0, 4)
ENTRIES = {  # what one tensor, "evil", may not be; the body has 4 bytes
    "a number": (1, "params-bad-header"),
    "nothing": (None, "params-bad-header"),
    "empty": ({}, "params-bad-header"),
    "without shape": ({"dtype": "F32", "data_offsets": [0, 4]}, "params-bad-header"),
    "with more than is known": (F32 | {"stride": [1]}, "params-bad-header"),
    "nested": ({"dtype": F32, "shape": F32, "data_offsets": F32}, "params-bad-header"),
    "a maze": ({"dtype": [[["x" * 99] * 99] * 9] * 9}, "params-bad-header"),
    "of a long and foreign dtype": (tensor("\U0001f984" * 999, [4], 0, 4), "params-unknown-dtype"),
    "of unknown dtype": (tensor("F8_E4M3", [4], 0, 4), "params-unknown-dtype"),
    "of numeric dtype": (tensor(4, [1], 0, 4), "params-bad-header"),
    "of listed dtype": (tensor(["F32"], [1], 0, 4), "params-bad-header"),
    "of textual shape": (tensor("F32", "1", 0, 4), "params-bad-header"),
    "of negative shape": (tensor("F32", [-1], 0, 4), "params-bad-header"),
    "of doubly negative shape": (tensor("F32", [-1, -1], 0, 4), "params-bad-header"),
    "of boolean shape": (tensor("F32", [True], 0, 4), "params-bad-header"),
    "of float shape": (tensor("F32", [1.0], 0, 4), "params-bad-header"),
    "of nested shape": (tensor("F32", [[1]], 0, 4), "params-bad-header"),
    "of a shape that wraps to 4 bytes": (tensor("F32", [2**62 + 1], 0, 4), "params-too-large"),
    "of a product that wraps to 0": (tensor("F32", [2**32, 2**32], 0, 0), "params-too-large"),
    "of a size no tensor has": (tensor("F32", [10**400], 0, 4), "params-too-large"),
    "empty but endless": (tensor("F32", [0, 2**63], 0, 0), "params-too-large"),
    "of too many dimensions": (tensor("F32", [1] * 65, 0, 4), "params-too-large"),
    "at one offset": (tensor("F32", [1], 4), "params-bad-header"),
    "at three offsets": (tensor("F32", [1], 0, 4, 4), "params-bad-header"),
    "at boolean offsets": (tensor("U8", [1], False, True), "params-bad-header"),
    "at float offsets": (tensor("F32", [1], 0.0, 4.0), "params-bad-header"),
    "at textual offsets": (tensor("F32", [1], "0", "4"), "params-bad-header"),
    "at negative offsets": (tensor("F32", [1], -4, 0), "params-bad-offsets"),
    "from end to start": (tensor("F32", [1], 4, 0), "params-bad-offsets"),
    "at offsets that wrap": (tensor("F32", [1], 2**64, 2**64 + 4), "params-bad-offsets"),
    "shorter than its shape": (tensor("F32", [2], 0, 4), "params-bad-offsets"),
    "longer than its shape": (tensor("U8", [1], 0, 4), "params-bad-offsets"),
    "after a hole": (tensor("U8", [3], 1, 4), "params-bad-offsets"),
    "beyond the body": (tensor("F32", [2], 0, 8), "params-truncated"),
    "far beyond the body": (tensor("U8", [2**61], 0, 2**61), "params-truncated"),
    "before trailing bytes": (tensor("U8", [3], 0, 3), "params-truncated"),
    "neither true nor false": (tensor("BOOL", [4], 0, 4), "params-bad-value"),
}


def refused(data: bytes) -> ParamsError:
    with pytest.raises(ParamsError, match=r"^north\.st: ") as caught:
        decode(data, source="north.st")
    assert len(str(caught.value)) < 500 and str(caught.value).isascii()
    return caught.value


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused(case):
    data, code = HOSTILE[case]
    assert refused(data).code == code


@pytest.mark.parametrize("case", METADATA)
def test_metadata_that_is_not_text_is_refused(case):
    assert refused(file_of({"__metadata__": METADATA[case]})).code == "params-bad-header"


@pytest.mark.parametrize("case", ENTRIES)
def test_a_hostile_tensor_is_refused_by_name(case):
    entry, code = ENTRIES[case]
    error = refused(file_of({"evil": entry}, b"\1\0\2\1"))
    assert error.code == code
    assert "'evil'" in error.happened


@pytest.mark.parametrize(
    ("other", "code", "said"),
    [
        (tensor("U8", [3], 1, 4), "params-bad-offsets", "overlaps tensor 'first'"),
        (tensor("U8", [2], 0, 2), "params-bad-offsets", "'first' at bytes 0 to 2"),
        (tensor("U8", [1], 1, 2), "params-bad-offsets", "overlaps tensor 'first'"),
        (tensor("U8", [0], 1, 1), "params-bad-offsets", "overlaps tensor 'first'"),
        (tensor("U8", [1], 3, 4), "params-bad-offsets", "leaves a hole of 1 bytes before"),
        (tensor("U8", [0], 3, 3), "params-bad-offsets", "leaves a hole of 1 bytes before"),
        (tensor("U8", [1], 2, 3), "params-truncated", "1 bytes follow tensor 'evil', the last"),
    ],
)
def test_tensors_that_do_not_fill_the_body_are_refused_by_name(other, code, said):
    error = refused(file_of({"evil": other, "first": tensor("U8", [2], 0, 2)}, bytes(4)))
    assert error.code == code
    assert said in error.happened and "'evil'" in error.happened


@pytest.mark.parametrize(
    "header",
    [
        '{"evil":%s,"evil":%s}',
        '{"evil":%s,"e\\u0076il":%s}',
        '{"x":{"evil":%s,"evil":%s}}',
        '{"__metadata__":{"evil":"1","evil":"2"}}',
    ],
)
def test_a_name_given_twice_is_refused_though_json_would_merge_it(header):
    entry = json.dumps(U8)
    error = refused(file_of(header.replace("%s", entry), b"\0"))
    assert error.code == "params-duplicate-name" and "'evil'" in error.happened


def test_more_tensors_than_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr("hansa.params.header.TENSORS_MAX", 3)
    monkeypatch.setattr("hansa.params.layout.TENSORS_MAX", 3)
    entry = tensor("U8", [0], 0, 0)
    names = [str(i) for i in range(9)]
    assert len(decode(file_of({"__metadata__": {}} | dict.fromkeys(names[:3], entry)))) == 3
    assert refused(file_of(dict.fromkeys(names[:4], entry))).code == "params-too-large"
    assert refused(file_of(dict.fromkeys(names, entry))).code == "params-too-large"
    assert TENSORS_MAX > 3


def test_a_header_that_could_not_be_read_again_is_not_written():
    params = Params.of({}, {"a": "," * (HEADER_VALUES_MAX + 1)})
    for write in (encode, Params.digest):
        with pytest.raises(ParamsError) as caught:
            write(params)
        assert caught.value.code == "params-too-large"


@pytest.mark.parametrize("buffer", ["text", 3, None, np.zeros((4, 4))[:, 0], np.array([None])])
def test_what_is_no_buffer_is_refused(buffer):
    assert refused(buffer).code == "params-not-an-array"


SMALL = b"".join(
    encode(
        Params.of(
            {"w": np.float32([[1, -2]]), "é": np.array([True, False]), "n": np.int64(5)}, {"k": "v"}
        )
    )
)


def test_a_file_cut_off_anywhere_is_refused():
    for size in range(len(SMALL)):
        refused(SMALL[:size])


def test_a_file_with_anything_after_it_is_refused():
    assert refused(SMALL + b"\0").code == "params-truncated"


def survives(data: bytes) -> None:
    """Decode: the outcome is Params that encode and decode to themselves, or a ParamsError."""
    try:
        params = decode(data)
    except ParamsError as error:
        assert len(str(error)) < 700
    else:
        assert decode(b"".join(encode(params))) == params


def test_any_flipped_bit_is_harmless_or_refused():
    for place in range(len(SMALL)):
        for bit in range(8):
            data = bytearray(SMALL)
            data[place] ^= 1 << bit
            survives(bytes(data))


TOKENS = [*(bytes([char]) for char in b'"[]{},:\\'), b"-1", b"1e9", b"null", b'"w"', b"9" * 40]


@settings(max_examples=300)
@given(st.data())
def test_any_mutation_is_harmless_or_refused(data):
    mutated = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(mutated)))
        stop = data.draw(st.integers(start, min(len(mutated), start + 9)))

        mutated[start:stop] = data.draw(st.binary(max_size=9) | st.sampled_from(TOKENS))
    survives(bytes(mutated))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
EDGES = [0, 1, 2, 4, 8, 16, -1, 2**31, 2**32, 2**61, 2**63 - 1, 2**63, 2**64]
SIZES = st.sampled_from(EDGES) | JSON
PARTS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "F8", "", None]),
        "shape": st.lists(SIZES, max_size=3),
        "data_offsets": st.lists(SIZES, min_size=2, max_size=2),
    }
)
HEADERS = st.dictionaries(
    st.sampled_from(["w", "b", "", "__metadata__"]) | st.text(max_size=3), PARTS | JSON, max_size=4
)


@settings(max_examples=300)
@given(HEADERS, st.binary(max_size=32))
def test_any_header_is_harmless_or_refused(header, body):
    survives(file_of(header, body))


@given(st.binary(max_size=300))
def test_any_bytes_are_harmless_or_refused(data):
    survives(data)
    survives(file_of(data[:200], data[200:]))
    survives(file_of(b"{" + data))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", HEADER_BYTES_MAX) + b"{}",
        file_of({"w": tensor("F64", [2**40], 0, 2**43)}, bytes(64)),
        file_of({"w": tensor("F64", [2**40], 8, 2**43 + 8)}, bytes(64)),
        file_of({"b": U8, "w": tensor("U8", [2**40], 1, 1 + 2**40)}, bytes(64)),
        file_of({"w": tensor("F32", [2**20, 2**20, 0], 0, 0)}),
    ],
)
def test_no_memory_is_taken_on_the_word_of_a_header(data):
    decode(SMALL)  # what is imported or cached at first use does not count
    tracemalloc.start()
    try:
        survives(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


# The other reader and writer of the format.


def test_the_safetensors_library_reads_our_metadata(mixed, tmp_path):
    library = pytest.importorskip("safetensors")
    path = tmp_path / "mixed.safetensors"
    path.write_bytes(b"".join(encode(mixed)))
    with library.safe_open(path, "np") as opened:
        assert opened.metadata() == mixed.metadata


@given(any_params())
def test_the_safetensors_library_reads_whatever_we_write(params):
    library = pytest.importorskip("safetensors")
    found = {}
    for name, entry in library.deserialize(b"".join(encode(params))):
        found[name] = entry["dtype"], tuple(entry["shape"]), bytes(entry["data"])
    assert found == {
        spec.name: (spec.dtype, spec.shape, params[spec.name].tobytes())
        for spec in params.layout.specs
    }


def test_the_safetensors_library_makes_our_arrays(mixed, arrays):
    library = pytest.importorskip("safetensors.numpy")
    loaded = library.load(b"".join(encode(mixed.subset(arrays.keys() - {"brain"}))))
    assert loaded.keys() == arrays.keys() - {"brain"}
    for name, array in loaded.items():
        assert array.dtype == arrays[name].dtype and array.shape == arrays[name].shape
        assert array.tobytes() == arrays[name].tobytes(), name


def test_we_read_files_of_the_safetensors_library_in_place(arrays):
    library = pytest.importorskip("safetensors.numpy")
    encoded = library.save(arrays, {"by": "another"})
    params = decode(encoded)
    assert params.metadata == {"by": "another"}
    assert params.keys() == arrays.keys()
    assert all(params[name].tobytes() == arrays[name].tobytes() for name in arrays)
    assert np.shares_memory(params.body, np.frombuffer(encoded, np.uint8))


@pytest.mark.torch
def test_bfloat16_goes_to_torch_and_back():
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    values = np.array([[1.5, -3e38], [1e-40, np.inf]], ml_dtypes.bfloat16)
    brain = torch.tensor(values.astype(np.float32)).to(torch.bfloat16)
    tensors = {"w": brain, "n": torch.tensor(7)}
    assert decode(library.save(tensors))["w"].tobytes() == values.tobytes()
    loaded = library.load(b"".join(encode(Params.of({"w": values}))))
    assert loaded["w"].dtype == torch.bfloat16 and torch.equal(loaded["w"], brain)
