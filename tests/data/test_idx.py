import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hansa.data.idx import read_gzip, read_idx, read_up_to
from hansa.errors import DataError


def idx(code: int, shape: tuple[int, ...], body: bytes) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape) + body


def written(folder: Path, content: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("code", "form", "values"),
    [
        (0x08, "6B", [0, 1, 2, 200, 254, 255]),
        (0x09, "6b", [0, 1, -2, 127, -128, 5]),
        (0x0B, ">6h", [0, 1, -2, 32767, -32768, 258]),
        (0x0C, ">6i", [0, 1, -2, 2**31 - 1, -(2**31), 16909060]),
        (0x0D, ">6f", [0.0, 1.5, -2.25, 1e30, -1e-30, 3.0]),
        (0x0E, ">6d", [0.0, 1.5, -2.25, 1e300, -1e-300, 3.1]),
    ],
)
def test_every_value_type_is_read_big_endian_into_native_order(tmp_path, code, form, values):
    array = read_idx(written(tmp_path, idx(code, (2, 3), struct.pack(form, *values))))
    assert array.shape == (2, 3)
    assert array.dtype.isnative
    assert np.array_equal(array.ravel(), np.array(values, array.dtype))


def test_a_gzipped_file_reads_like_the_raw_one(tmp_path):
    content = idx(8, (2, 2), bytes([9, 8, 7, 6]))
    assert read_idx(written(tmp_path, gzip.compress(content), "a.gz")).tolist() == [[9, 8], [7, 6]]


DAMAGED = {
    "empty": b"",
    "three bytes": b"\0\0\x08",
    "another format": b"PK\3\4" + bytes(40),
    "unknown type": idx(0x0A, (2,), b"ab"),
    "no dimension": idx(8, (), b"a"),
    "cut in the sizes": idx(8, (2, 3), b"")[:-2],
    "too short": idx(8, (2, 3), b"12345"),
    "too long": idx(8, (2, 3), b"1234567"),
    "lies by four billion": idx(8, (2**32 - 1,), b"123"),
    "too many dimensions": idx(8, (1,) * 70, b"1"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_file_is_refused_by_name(tmp_path, content, packed):
    path = written(
        tmp_path, gzip.compress(content) if packed else content, "x.gz" if packed else "x"
    )
    with pytest.raises(DataError, match="x") as error:
        read_idx(path)
    assert error.value.code in ("data-bad-file", "data-too-large")


@pytest.mark.parametrize("shape", [(2**31, 2**31), (2**32 - 1, 2**32 - 1, 0), (0, 2**32 - 1, 99)])
def test_sizes_beyond_the_limit_are_refused_before_any_memory_is_taken(tmp_path, shape):
    with pytest.raises(DataError) as error:
        read_idx(written(tmp_path, idx(8, shape, b"123")))
    assert error.value.code == "data-too-large"


def test_a_gzip_file_that_is_none_or_cut_is_refused(tmp_path):
    whole = gzip.compress(idx(8, (1000,), bytes(1000)))
    for content in (b"plain", whole[:-4], whole[:20], whole[:15] + b"\xff" + whole[16:]):
        with pytest.raises(DataError):
            read_idx(written(tmp_path, content, "x.gz"))


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError):
        read_idx(tmp_path / "absent")


def test_a_gzip_bomb_is_stopped_at_the_limit(tmp_path):
    path = written(tmp_path, gzip.compress(bytes(10**6)), "bomb.gz")
    assert len(read_gzip(path, 10**6)) == 10**6
    with pytest.raises(DataError) as error:
        read_gzip(path, 10**6 - 1)
    assert error.value.code == "data-too-large"


def test_reading_asks_for_no_more_than_a_chunk_at_a_time():
    class Stream:
        asked = 0

        def read(self, size: int, /) -> bytes:
            self.asked = max(self.asked, size)
            return b""

    stream = Stream()
    assert read_up_to(stream, 2**40) == b""
    assert stream.asked <= 2**20


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 27), at=st.integers(0, 27), byte=st.integers(0, 255))
def test_no_change_of_a_byte_and_no_cut_gives_a_traceback(tmp_path, cut, at, byte):
    content = bytearray(idx(8, (2, 2, 3), bytes(range(12))))
    content[at] = byte
    try:
        read_idx(written(tmp_path, bytes(content[: 28 - cut])))
    except DataError as error:
        assert "file" in error.happened
