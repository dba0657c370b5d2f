"""Between the model files of FEDn's helpers and Hansa's tensors: pure functions of bytes.

    numpyhelper, kerashelper, pytorchhelper    an .npz file; its keys are the tensors' names
    splitlearninghelper                        the same; its keys are the clients' names
    binaryhelper                               float64, no header: one tensor named "0"
    androidhelper                              float32, no header: one tensor named "0"
    numpyarrayhelper                           numbers as text: one tensor named "0"

Nothing that could carry pickled objects is read.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np

from hansa.errors import LearnerError
from hansa.params import Params
from hansa.params.npz import NotAnArchive, read_npz, write_npz
from hansa.text import clean

Form = Literal["npz", "float64", "float32", "text"]

FORMS: dict[str, Form] = {
    "numpyhelper": "npz",
    "kerashelper": "npz",
    "pytorchhelper": "npz",
    "splitlearninghelper": "npz",
    "binaryhelper": "float64",
    "androidhelper": "float32",
    "numpyarrayhelper": "text",
}
"""The form of each helper's files."""

_FLAT = {"float64": "<f8", "float32": "<f4"}
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
        try:
            return read_npz(data, most=most)
        except NotAnArchive as fault:
            raise _bad(str(fault)) from None
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
    if form == "text":
        arrays = list(params.values())
        if len(arrays) != 1 or arrays[0].ndim not in (1, 2):
            raise _bad("of numpyarrayhelper holds one array of one or two dimensions")
        buffer = io.BytesIO()
        np.savetxt(buffer, arrays[0])
        return buffer.getvalue()
    return write_npz(params)


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
        f"Training returned {what}; it was given {given}.",
        "Save the same arrays in the same order as they were loaded.",
    )
