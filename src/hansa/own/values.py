"""Values of Hansa's own kinds as plain data and arrays, and back.

Both sides know of what kind each value is, so none is named on the way (law L7).  What comes back
is checked against its kind.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from hansa.algorithms import Vectors
from hansa.errors import ParamsError, RunError
from hansa.params import Params, decode, encode

Arrays = dict[str, np.ndarray]
T = TypeVar("T")


class Unfit(Exception):  # noqa: N818 - told on as the fault of whoever made the value
    """A value is not of the kind that is wanted; says why."""


def plain(value: Any) -> tuple[Any, Arrays]:
    """Return a value as data of msgpack, and its arrays by the numbers that stand for them.

    Raises:
      Unfit: something in it cannot travel.

    >>> plain((1, {"x": np.ones(1)}))
    ((1, {'x': '#0'}), {'0': array([1.])})
    """
    arrays: Arrays = {}

    def told(inner: Any) -> Any:
        if isinstance(inner, np.generic):
            return inner.item()
        if isinstance(inner, np.ndarray) or hasattr(inner, "__array__"):
            array = np.asarray(inner)
            if array.dtype.kind not in "fiub":
                raise TypeError(f"an array of {array.dtype} cannot travel")
            arrays[str(len(arrays))] = array
            return f"#{len(arrays) - 1}"
        if isinstance(inner, Params):
            header, body = encode(inner)
            return told(np.frombuffer(b"".join((header, body)), np.uint8))
        if isinstance(inner, Mapping):
            return dict(inner)
        raise TypeError(f"{type(inner).__name__} cannot travel")

    try:
        made = msgspec.to_builtins(value, enc_hook=told)
        msgspec.msgpack.encode(made)  # text and numbers that have no bytes
        return made, arrays
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unfit(str(error)) from None


def as_kind(value: Any, arrays: Mapping[str, np.ndarray], kind: type[T]) -> T:
    """Return what `plain` was given.

    Args:
      value: the data.
      arrays: by number.
      kind: what it is.

    Raises:
      Unfit: it is not of this kind.
    """
    left = dict(arrays)  # each stands in one place, or a few bytes could ask for any number

    def made(wanted: Any, inner: Any) -> Any:
        wanted = typing.get_origin(wanted) or wanted
        if wanted is np.ndarray:
            return _array(inner, left)
        if wanted is Params:
            try:
                return decode(_array(inner, left).tobytes(), source="the other process")
            except ParamsError as error:
                raise ValueError(error.happened) from None
        if wanted is Vectors and isinstance(inner, dict):
            found = {str(name): _array(at, left) for name, at in inner.items()}
            return Vectors(found)
        raise ValueError(f"no {wanted} can be made of it")

    try:
        return msgspec.convert(value, kind, dec_hook=made)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise Unfit(str(error)) from None


def _array(at: Any, left: Arrays) -> np.ndarray:
    """Return the array that something stands for, which nothing else may stand for."""
    if isinstance(at, bool | int | float):  # a number where a vector may be, as in a state
        return np.asarray(at)
    found = left.pop(at.removeprefix("#"), None) if isinstance(at, str) else None
    if found is None:
        raise ValueError("an array is missing, or stands in two places")
    return found


def unfit(what: str, why: Unfit) -> RunError:
    """Return what to say of something that the code of a project gave and nobody can use."""
    return RunError(
        "function-failed",
        f"{what} cannot be used: {why}. The run has failed.",
        "Correct it, and try it in a simulation: hansa run.",
    )
