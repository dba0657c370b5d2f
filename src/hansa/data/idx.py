"""Read IDX files, the format of MNIST: a magic number, big-endian sizes, then the values.

Source: Y. LeCun, C. Cortes, "The MNIST database of handwritten digits", section on file formats.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hansa import limits
from hansa.data.dataset import Array
from hansa.errors import DataError

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CHUNK_BYTES = 2**20


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


def read_idx(path: Path) -> Array:
    """Read one IDX file, gzipped when its name ends in .gz.

    Returns:
      The array as declared, in native byte order.

    Raises:
      DataError: the header is not IDX, a limit is exceeded, or the file is shorter or longer
        than its header says.

    """
    try:
        with path.open("rb") as raw:
            return _parse(gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw, path)
    except (OSError, EOFError, ValueError, zlib.error) as error:  # ValueError: NumPy, on the shape
        raise _damaged(path, f"cannot be read: {error}") from error


def read_gzip(path: Path, limit: int) -> bytes:
    """Unfold a gzipped file of at most `limit` bytes.

    Raises:
      DataError: the file is damaged, or larger than the limit.

    """
    try:
        with gzip.open(path, "rb") as stream:
            content = read_up_to(stream, limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, f"cannot be unpacked: {error}") from error
    if len(content) > limit:
        raise _too_large(path, "more than", limit=limit)
    return bytes(content)


def read_up_to(stream: Readable, size: int) -> bytearray:
    """Read `size` bytes, or fewer at the end; memory follows what is there, not what is asked."""
    content = bytearray()
    while len(content) < size:
        chunk = stream.read(min(CHUNK_BYTES, size - len(content)))
        if not chunk:
            break
        content += chunk
    return content


def extent(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the bytes of an array, counting a size of zero as one: rows of nothing cost too."""
    return math.prod(max(size, 1) for size in shape) * dtype.itemsize


def _parse(stream: Readable, path: Path) -> Array:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not magic[3]:
        raise _damaged(path, f"starts with {magic.hex(' ') or 'nothing'}, which is not IDX")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3] or magic[3] > limits.RANK_MAX:
        raise _damaged(path, f"declares {magic[3]} dimensions")
    dtype = np.dtype(DTYPES[magic[2]])
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    declared = math.prod(shape) * dtype.itemsize
    if extent(shape, dtype) > limits.INFLATED_BYTES_MAX:
        raise _too_large(path, f"{declared:,}", limit=limits.INFLATED_BYTES_MAX)
    content = read_up_to(stream, declared + 1)
    if len(content) != declared:
        found = f"more than {declared:,}" if len(content) > declared else f"{len(content):,}"
        raise _damaged(path, f"declares shape {shape}, {declared:,} bytes, but holds {found}")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _damaged(path: Path, how: str) -> DataError:
    return DataError("data-bad-file", f"The file {path} {how}.", "Download or copy the file again.")


def _too_large(path: Path, size: str, *, limit: int) -> DataError:
    return DataError(
        "data-too-large",
        f"The file {path} unfolds to {size} bytes; the limit is {limit:,}. It was not read.",
        "Check where the file comes from.",
    )
