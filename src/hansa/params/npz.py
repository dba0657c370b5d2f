"""Tensors as NumPy's .npz, in memory: an archive of arrays of numbers, and never of objects.

A file may come from anyone: each array is as long as it says, and the sum of all is bounded before
anything is unfolded, or the file is refused.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib

import numpy as np

from hansa.params.tensors import Params
from hansa.text import clean

_DAMAGED = (  # all that zipfile raises for a file that is cut off or changed
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    OverflowError, struct.error,
)  # fmt: skip


class NotAnArchive(ValueError):  # noqa: N818 - says what the file is not
    """The bytes hold no arrays of numbers; the text goes on after "The file ..."."""


def read_npz(data: bytes, *, most: int) -> Params:
    """Return the arrays of an archive by name, in its order.

    Args:
      data: the file.
      most: bytes that the arrays may have together.

    Raises:
      NotAnArchive: it is none, holds objects, or unfolds to more.
      ParamsError: an array has a dtype that Hansa does not carry.

    >>> read_npz(write_npz(Params.of({"w": np.array([0.5, -2.0])})), most=100)["w"].tolist()
    [0.5, -2.0]
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if any(member.filename.endswith("/data.pkl") for member in members):
                raise NotAnArchive("is one of torch.save, which carries pickled objects")
            size = sum(member.file_size for member in members)
            if size > most + 4096 * len(members):
                raise NotAnArchive(f"holds {size:,} bytes, more than the {most:,} that are taken")
            if not members:
                raise NotAnArchive("holds no arrays")
            arrays = {m.filename.removesuffix(".npy"): _array(archive, m) for m in members}
    except NotAnArchive:
        raise
    except _DAMAGED as error:
        raise NotAnArchive(f"is no .npz file: {clean(str(error))}") from None
    return Params.of(arrays)


def write_npz(params: Params) -> bytes:
    """Return an archive that `numpy.load` reads; its keys are the tensors' names."""
    buffer = io.BytesIO()
    # Not numpy.savez, whose own argument names ("file") are no good as tensor names.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in params.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, plain(array), allow_pickle=False)
    return buffer.getvalue()


def plain(array: np.ndarray) -> np.ndarray:
    """Return an array of a dtype that NumPy has: of bfloat16, float32 holds every value."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Return one array, whose head must say what is there."""
    content = archive.read(member)
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        head = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, by_columns, dtype = head(stream)
    except (ValueError, KeyError) as error:
        name = clean(member.filename)
        raise NotAnArchive(f"has a member {name!r} that is no array: {error}") from None
    if any(type(n) is not int or n < 0 for n in shape) or not dtype.itemsize:
        raise NotAnArchive(f"has a shape or dtype in {clean(member.filename)!r} that cannot be")
    if dtype.hasobject:
        raise NotAnArchive(f"holds Python objects in {clean(member.filename)!r}, which may be code")
    if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        name = clean(member.filename)
        raise NotAnArchive(f"is cut off, or longer than it says, in {name!r}")
    flat = np.frombuffer(content, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if by_columns else "C")
