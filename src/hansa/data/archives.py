"""Read .npz files that others wrote, trusting nothing in them.

Only flat arrays of numbers and strings are read, never objects, and the header of each array is
matched, not evaluated.  What an array declares is checked against limits before memory is taken.
"""

from __future__ import annotations

import math
import re
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

from hansa import limits
from hansa.data.dataset import Array
from hansa.data.idx import Readable, extent, read_up_to
from hansa.errors import DataError

_ZIP_ERRORS = (
    OSError,
    EOFError,
    ValueError,  # names that are not UTF-8, offsets before the start, shapes beyond NumPy's
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
_MAGIC = b"\x93NUMPY"
_DESCR = re.compile(r"'descr'\s*:\s*'([<>|=][biufU][0-9]{1,9})'")
_ORDER = re.compile(r"'fortran_order'\s*:\s*(True|False)")
_SHAPE = re.compile(r"'shape'\s*:\s*\(((?:\s*[0-9]{1,18}\s*,)*\s*(?:[0-9]{1,18})?)\s*\)")


def read_npz(path: Path, wanted: tuple[str, ...]) -> dict[str, Array]:
    """Read those of the `wanted` arrays that a .npz file holds.

    Raises:
      DataError: the archive or an array is damaged, too large, encrypted, or not an array of
        numbers or strings.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            return {
                name: _read_member(archive, members[name], f"{name} of {path}")
                for name in wanted
                if name in members
            }
    except _ZIP_ERRORS as error:
        raise _damaged(f"The file {path}", f"is not a .npz file, or damaged: {error}") from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > limits.NPZ_MEMBERS_MAX:
        raise _too_large(f"The file {path}", f"{len(infos):,} arrays", limits.NPZ_MEMBERS_MAX)
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise _damaged(f"The file {path}", f"holds two arrays called {name[:80]!r}")
        members[name] = info
    return members


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> Array:
    if info.flag_bits & 0x1:
        raise _damaged(f"The array {what}", "is encrypted")
    stored = info.compress_type == zipfile.ZIP_STORED
    if not stored and info.compress_type != zipfile.ZIP_DEFLATED:
        raise _damaged(f"The array {what}", f"is packed by method {info.compress_type}")
    with archive.open(info) as stream:
        return _read_array(
            stream, what, limit=limits.DATA_BYTES_MAX if stored else limits.INFLATED_BYTES_MAX
        )


def _read_array(stream: Readable, what: str, *, limit: int) -> Array:
    dtype, shape, fortran = _read_header(stream, what)
    declared = math.prod(shape) * dtype.itemsize
    if extent(shape, dtype) > limit:
        raise _too_large(f"The array {what}", f"{declared:,} bytes", limit)
    content = read_up_to(stream, declared + 1)
    if len(content) != declared:
        how = f"declares shape {shape} of {dtype}, {declared:,} bytes, but holds "
        found = "more" if len(content) > declared else f"{len(content):,}"
        raise _damaged(f"The array {what}", how + found)
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    array = np.asarray(array, dtype.newbyteorder("="), order="C")
    if dtype.kind == "U":
        _check_text(array, what)
    return array


def _check_text(array: Array, what: str) -> None:
    codes = array.reshape(-1).view(np.uint32)
    surrogates = (codes >= 0xD800) & (codes <= 0xDFFF)
    if codes.size and (codes.max() > sys.maxunicode or surrogates.any()):
        raise _damaged(f"The array {what}", "holds numbers that are no characters")


def _read_header(stream: Readable, what: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    start = stream.read(8)
    if start[:6] != _MAGIC or start[6:7] not in (b"\1", b"\2", b"\3"):
        raise _damaged(f"The array {what}", "does not start like an array of NumPy")
    form = "<H" if start[6] == 1 else "<I"
    field = stream.read(struct.calcsize(form))
    size = struct.unpack(form, field)[0] if len(field) == struct.calcsize(form) else 0
    if size > limits.NPY_HEADER_BYTES_MAX:
        raise _too_large(f"The array {what}", f"a header of {size:,}", limits.NPY_HEADER_BYTES_MAX)
    text = stream.read(size).decode("latin-1")
    descr, order, shape = _DESCR.search(text), _ORDER.search(text), _SHAPE.search(text)
    if not (descr and order and shape):
        raise _damaged(
            f"The array {what}",
            f"is not a plain array of numbers or strings; its header is {text.strip()[:120]!r}",
        )
    sizes = tuple(int(part) for part in shape[1].split(",") if part.strip())
    try:
        dtype = np.dtype(descr[1])
    except TypeError as error:
        raise _damaged(f"The array {what}", f"has the dtype {descr[1]!r}") from error
    if not dtype.itemsize:
        raise _damaged(f"The array {what}", f"has the dtype {descr[1]!r}, whose values are empty")
    return dtype, sizes, order[1] == "True"


def _damaged(what: str, how: str) -> DataError:
    return DataError(
        "data-bad-file",
        f"{what} {how}. Nothing was read.",
        "Write it again with numpy.savez(file, x=..., y=...), from arrays of numbers or strings.",
    )


def _too_large(what: str, size: str, limit: int) -> DataError:
    return DataError(
        "data-too-large",
        f"{what} declares {size}; the limit is {limit:,}. It was not read.",
        "Check where the file comes from, or store the data in smaller parts.",
    )
