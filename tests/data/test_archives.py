import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hansa.data.archives import read_npz
from hansa.errors import DataError


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def npy_declaring(header: str, body: bytes, *, version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + body


def archive(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        for name, content in members:
            out.writestr(name, content)
    return path


def refusal(path: Path) -> DataError:
    with pytest.raises(DataError) as error:
        read_npz(path, ("x",))
    return error.value


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, -2.0, 3.25], [4.0, 5.0, -6.0]]),
        np.array([1, -2], np.int8),
        np.array([[True], [False]]),
        np.array([1, 2**63], ">u8"),
        np.array([1.5, -0.25], ">f4"),
        np.array([0.5], np.float16),
        np.array([["north", "süd"], ["東", ""]]),
        np.array(["a"], ">U3"),
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.empty((0, 3)),
        np.array(3.5),
    ],
    ids=lambda a: f"{a.dtype.str}{a.shape}",
)
def test_arrays_come_back_with_their_values_in_native_order(tmp_path, save, array):
    save(tmp_path / "a.npz", x=array, other=np.eye(2))
    got = read_npz(tmp_path / "a.npz", ("x", "y"))
    assert set(got) == {"x"}
    assert np.array_equal(got["x"], array)
    assert got["x"].dtype == array.dtype.newbyteorder("=")
    assert got["x"].dtype.isnative and got["x"].flags.c_contiguous


def test_headers_of_other_writers_are_read(tmp_path):
    body = np.arange(6, dtype="<f4").tobytes()
    for header in (
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
        "{ 'shape':(2,3), 'fortran_order':False ,'descr':'<f4'}\n",
    ):
        for version in (1, 2, 3):
            member = npy_declaring(header, body, version=version)
            got = read_npz(archive(tmp_path / "a.npz", [("x.npy", member)]), ("x",))
            assert got["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


class Bait:
    """Leaves a mark when something unpickles it."""

    opened = False

    def __reduce__(self):
        return (setattr, (Bait, "opened", True))


def test_objects_are_refused_and_never_unpickled(tmp_path):
    array = np.array([Bait()], dtype=object)
    np.savez(tmp_path / "a.npz", x=array)
    assert refusal(tmp_path / "a.npz").code == "data-bad-file"
    assert not Bait.opened
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }"
    member = npy_declaring(header, pickle.dumps(array))
    assert refusal(archive(tmp_path / "b.npz", [("x.npy", member)])).code == "data-bad-file"
    assert not Bait.opened


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, [("a", "f4")]),
        np.array([1 + 2j]),
        np.array(["2026-01-01"], "datetime64[D]"),
        np.array([b"bytes"]),
        np.zeros(2, "V8"),
    ],
)
def test_values_that_are_neither_numbers_nor_text_are_refused(tmp_path, array):
    np.savez(tmp_path / "a.npz", x=array)
    assert refusal(tmp_path / "a.npz").code == "data-bad-file"


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': 2, }",
        "{'descr': '<f8', 'fortran_order': False}",
        "{'descr': '<f3', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<f8', 'fortran_order': maybe, 'shape': (2,), }",
        "{'descr': __import__('os').getpid(), 'fortran_order': False, 'shape': (2,), }",
        "((((",
        "",
    ],
)
def test_a_header_that_lies_or_is_none_is_refused(tmp_path, header):
    path = archive(tmp_path / "a.npz", [("x.npy", npy_declaring(header, bytes(16)))])
    assert refusal(path).code == "data-bad-file"


@pytest.mark.parametrize("shape", ["(99999999999,)", "(99999999999, 0)", "(0, 99999999999)"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_declared_size_beyond_the_limit_is_refused_before_memory_is_taken(
    tmp_path, shape, method
):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    path = archive(tmp_path / "a.npz", [("x.npy", npy_declaring(header, bytes(16)))], method)
    assert refusal(path).code == "data-too-large"


def test_a_bomb_is_refused_by_what_it_declares(tmp_path, monkeypatch):
    monkeypatch.setattr("hansa.limits.INFLATED_BYTES_MAX", 10**6)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(10**6, np.uint8))
    assert read_npz(tmp_path / "bomb.npz", ("x",))["x"].shape == (10**6,)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(10**6 + 1, np.uint8))
    assert refusal(tmp_path / "bomb.npz").code == "data-too-large"
    # The same array, stored as it is, is as large as its file and no bomb.
    np.savez(tmp_path / "flat.npz", x=np.zeros(10**6 + 1, np.uint8))
    assert read_npz(tmp_path / "flat.npz", ("x",))["x"].shape == (10**6 + 1,)


def test_more_bytes_than_declared_are_refused(tmp_path):
    path = archive(tmp_path / "a.npz", [("x.npy", npy(np.arange(3)) + b"tail")])
    assert "more" in refusal(path).happened


def test_a_huge_header_is_refused(tmp_path):
    path = archive(tmp_path / "a.npz", [("x.npy", npy_declaring(" " * 70_000, b"", version=2))])
    assert refusal(path).code == "data-too-large"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path):
    for names in (["x.npy", "x.npy"], ["x.npy", "x"]):
        path = archive(tmp_path / "a.npz", [(name, npy(np.eye(2))) for name in names])
        assert "two arrays" in refusal(path).happened


def test_a_thousand_members_are_refused(tmp_path):
    path = archive(tmp_path / "a.npz", [(f"{i}.npy", b"") for i in range(1000)])
    assert refusal(path).code == "data-too-large"


def test_an_encrypted_or_exotically_packed_member_is_refused(tmp_path):
    path = archive(tmp_path / "a.npz", [("x.npy", npy(np.eye(2)))], zipfile.ZIP_LZMA)
    assert "method 14" in refusal(path).happened
    content = bytearray(archive(path, [("x.npy", npy(np.eye(2)))]).read_bytes())
    for mark, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        content[content.index(mark) + place] |= 1
    path.write_bytes(content)
    assert "encrypted" in refusal(path).happened


@pytest.mark.parametrize("code", [0x110000, 0xFFFFFFFF, 0xD800, 0xDFFF])
def test_text_that_is_no_text_is_refused(tmp_path, code):
    array = np.array([0x61, code], np.uint32).view("<U2")
    np.savez(tmp_path / "a.npz", x=array)
    assert "no characters" in refusal(tmp_path / "a.npz").happened


def test_what_is_not_an_archive_is_refused(tmp_path):
    for content in (b"", b"x,y\n1,2\n", npy(np.eye(2))):
        (tmp_path / "a.npz").write_bytes(content)
        assert refusal(tmp_path / "a.npz").code == "data-bad-file"
    assert refusal(tmp_path / "absent.npz").code == "data-bad-file"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    packed=st.booleans(),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 40),
)
def test_no_change_of_bytes_and_no_cut_gives_a_traceback(tmp_path, data, packed, edits, cut):
    stream = io.BytesIO()
    save = np.savez_compressed if packed else np.savez
    save(stream, x=np.arange(6.0).reshape(2, 3), y=np.array(["a", "b"]))
    content = bytearray(stream.getvalue())
    for at, byte in edits:
        content[at % len(content)] = byte
    (tmp_path / "a.npz").write_bytes(content[: len(content) - cut])
    try:
        read_npz(tmp_path / "a.npz", ("x", "y"))
    except DataError as error:
        assert "a.npz" in error.happened


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 135), token=st.sampled_from([b"(9,)", b"'|O'", b"-1", b"\xff", b"{"]))
def test_no_change_inside_an_intact_archive_gives_a_traceback(tmp_path, at, token):
    content = bytearray(npy(np.array(["ab", "c"])))
    content[at : at + len(token)] = token
    try:
        read_npz(archive(tmp_path / "a.npz", [("x.npy", bytes(content))]), ("x",))
    except DataError as error:
        assert "a.npz" in error.happened
