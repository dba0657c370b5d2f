"""Between the model files of FEDn's helpers and Hansa's tensors: pure functions of bytes.

    numpyhelper, kerashelper, pytorchhelper    an .npz file; its keys are the tensors' names
    binaryhelper                               float64, no header: one tensor named "0"
    androidhelper                              float32, no header: one tensor named "0"
    numpyarrayhelper                           numbers as text: one tensor named "0"

An .npz file may come from anyone: it holds arrays of numbers, each as long as it says, or it is
refused.  Nothing that could carry pickled objects is read.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from typing import Literal

import numpy as np

from hansa.errors import LearnerError
from hansa.params import Params
from hansa.text import clean

Form = Literal["npz", "float64", "float32", "text"]

FORMS: dict[str, Form] = {
    "numpyhelper": "npz",
    "kerashelper": "npz",
    "pytorchhelper": "npz",
    "binaryhelper": "float64",
    "androidhelper": "float32",
    "numpyarrayhelper": "text",
}
"""The form of each helper's files; splitlearninghelper's hold no model."""

_FLAT = {"float64": "<f8", "float32": "<f4"}
_DAMAGED = (  # all that zipfile raises for a file that is cut off or changed
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    OverflowError, struct.error,
)  # fmt: skip
_FOREIGN = (
    (b"\x80", "a pickle, as torch.save once wrote"),
    (b"\x89HDF", "an HDF5 file, as Keras writes"),
    (b"\x93NUMPY", "one array of np.save"),
)


def read_model(data: bytes, form: Form, *, most: int) -> Params:
    r"""Return the tensors in a model file.

    Args:
      data: the file.
      form: of the helper that wrote it.
      most: bytes that the tensors may have.

    Raises:
      LearnerError: command-result, it is no such file, or it holds objects.
      ParamsError: a tensor has a dtype that Hansa does not carry.

    >>> read_model(b"0.5 -2\n", "text", most=100)["0"].tolist()
    [0.5, -2.0]
    """
    for mark, what in _FOREIGN:
        if form == "npz" and data.startswith(mark):
            raise _bad(f"is {what}, and not an .npz file")
    if form == "npz":
        return Params.of(_npz(data, most))
    if len(data) > most * (1 if form in _FLAT else 32):
        raise _bad(f"has {len(data):,} bytes, more than the {most:,} that are taken")
    if form in _FLAT:
        dtype = np.dtype(_FLAT[form])
        if not data or len(data) % dtype.itemsize:
            raise _bad(f"has {len(data):,} bytes, which are no whole number of {form}")
        return Params.of([np.frombuffer(data, dtype)])
    try:
        array = np.loadtxt(io.BytesIO(data), ndmin=1)
    except (ValueError, UnicodeDecodeError) as error:
        raise _bad(f"holds no rows of numbers: {clean(str(error))}") from None
    if not array.size:
        raise _bad("holds no numbers")
    return Params.of([array])


def write_model(params: Params, form: Form) -> bytes:
    """Return a model file as a helper reads it.

    Args:
      params: tensors; several become one in the forms without a header.
      form: of the helper that will read it.

    Raises:
      LearnerError: command-result, the text form has no room for such tensors.
    """
    if form in _FLAT:
        flat = [np.ravel(array).astype(_FLAT[form]) for array in params.values()]
        return b"".join(array.tobytes() for array in flat)
    buffer = io.BytesIO()
    if form == "text":
        arrays = list(params.values())
        if len(arrays) != 1 or arrays[0].ndim not in (1, 2):
            raise _bad("of numpyarrayhelper holds one array of one or two dimensions")
        np.savetxt(buffer, arrays[0])
        return buffer.getvalue()
    # Not numpy.savez, whose own argument names ("file") are no good as tensor names.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in params.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _plain(array), allow_pickle=False)
    return buffer.getvalue()


def fitted(trained: Params, given: Params) -> Params:
    """Return trained tensors with the names, order and dtypes of those that were given.

    FEDn keeps neither dtypes nor, in its older forms, shapes; floats are rounded once.

    Raises:
      LearnerError: learner-params, they are not the same tensors.
    """
    if len(trained) != len(given):
        raise _other(f"{len(trained)} tensors", f"{len(given)}")
    by_name = trained.keys() == given.keys()
    arrays = {}
    for (name, old), at in zip(given.items(), trained, strict=True):
        new = trained[name if by_name else at]
        if new.shape != old.shape and (new.size != old.size or 1 not in (new.ndim, old.ndim)):
            raise _other(f"{name} of shape {list(new.shape)}", f"{list(old.shape)}")
        with np.errstate(all="ignore"):  # what does not fit is found below, or by the server
            cast = new.astype(old.dtype)
        if old.dtype.kind in "iub" and (cast != new).any():
            raise _other(f"{name} as {new.dtype}", f"{old.dtype}, which does not hold it")
        arrays[name] = cast.reshape(old.shape)
    return Params.of(arrays)


def _npz(data: bytes, most: int) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if any(member.filename.endswith("/data.pkl") for member in members):
                raise _bad("is one of torch.save, which carries pickled objects")
            size = sum(member.file_size for member in members)
            if size > most + 4096 * len(members):
                raise _bad(f"holds {size:,} bytes, more than the {most:,} that are taken")
            if not members:
                raise _bad("holds no arrays")
            return {m.filename.removesuffix(".npy"): _array(archive, m) for m in members}
    except _DAMAGED as error:
        raise _bad(f"is no .npz file: {clean(str(error))}") from None


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
        raise _bad(f"has a member {clean(member.filename)!r} that is no array: {error}") from None
    if any(type(n) is not int or n < 0 for n in shape) or not dtype.itemsize:
        raise _bad(f"has a shape or dtype in {clean(member.filename)!r} that cannot be")
    if dtype.hasobject:
        raise _bad(f"holds Python objects in {clean(member.filename)!r}, which may be code")
    if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise _bad(f"is cut off, or longer than it says, in {clean(member.filename)!r}")
    flat = np.frombuffer(content, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if by_columns else "C")


def _plain(array: np.ndarray) -> np.ndarray:
    # NumPy has no bfloat16 of its own; float32 holds every one of its values.
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _bad(how: str) -> LearnerError:
    return LearnerError(
        "command-result",
        f"The model file {how}. It was not used.",
        "Save it with the helper's save, or numpy.savez of arrays of numbers; and name the helper "
        "with --helper when you import the package.",
    )


def _other(what: str, given: str) -> LearnerError:
    return LearnerError(
        "learner-params",
        f"The package returned {what}; it was given {given}.",
        "Save the same arrays in the same order as they were loaded.",
    )
