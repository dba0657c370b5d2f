"""What an object of another system's keeps in its attributes, as a server function's memory.

Numbers, text, lists, dicts and arrays are its memory, so a run goes on after a crash as if there
had been none.  What its `__init__` makes is made again, and is kept only once it has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.errors import RunError
from hansa.functions.memory import packed, unpacked

_Packed = tuple[Any, dict[str, np.ndarray]]


class Attributes:
    """The attributes of one object, from when it has been made.

    Args:
      thing: the object.
      passing: kinds of values that are no memory, such as a context of one call.
    """

    def __init__(self, thing: Any, passing: tuple[type, ...] = ()) -> None:
        self._thing, self._passing = thing, passing
        self._made: dict[str, _Packed] = {}
        self._fixed: dict[str, Any] = {}  # such as loggers, which no commit could hold
        for name, value in vars(thing).items():
            if (kept := _packed(name, value)) is None:
                self._fixed[name] = value
            else:
                self._made[name] = kept
        self._inside = {name: _inside(value) for name, value in self._fixed.items()}

    def remember(self, memory: Mapping[Any, Any]) -> None:
        """Let the object be as it was made, but for what `kept` has returned."""
        attributes = vars(self._thing)
        attributes.clear()
        attributes |= self._fixed
        for tree, arrays in self._made.values():
            attributes |= unpacked(tree, arrays)
        attributes |= memory

    def kept(self) -> dict[Any, Any]:
        """Return what differs from how the object was made.

        Raises:
          RunError: function-failed, something that has changed cannot be kept.
        """
        found: dict[Any, Any] = {}
        for name, value in vars(self._thing).items():
            if isinstance(value, self._passing):
                continue
            if name in self._fixed and self._fixed[name] is value:
                self._check_inside(name, value)
            elif not _same(packed({name: value}), self._made.get(name)):
                found[name] = value
        return found

    def _check_inside(self, name: str, value: Any) -> None:
        before = self._inside[name]
        if before is not None and not _same(_inside(value), before):
            raise RunError(
                "function-failed",
                f"{type(self._thing).__name__}.{name} has changed, and a {type(value).__name__} "
                "cannot be kept between rounds.",
                "Keep numbers, text, lists, sets, dicts and arrays of numbers.",
            )


def _packed(name: str, value: Any) -> _Packed | None:
    try:
        return packed({name: value})
    except RunError:
        return None


def _inside(value: Any) -> _Packed | None:
    """Return what an object has in its own attributes, where a commit could hold all of it."""
    return _packed("", dict(vars(value))) if hasattr(value, "__dict__") else None


def _same(one: _Packed | None, other: _Packed | None) -> bool:
    if one is None or other is None or one[0] != other[0]:
        return False
    pairs = ((array, other[1][name]) for name, array in one[1].items())
    return all(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True) for a, b in pairs)
