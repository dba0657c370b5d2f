"""What an object of another system's keeps in its attributes, as a server function's memory.

Numbers, text, lists, dicts and arrays are its memory, and where NumPy's generators stand, so a run
goes on after a crash as if there had been none.  What its `__init__` makes is made again, and is
kept only once it has changed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from hansa.errors import RunError
from hansa.functions.memory import packed, unpacked

_Packed = tuple[Any, dict[str, np.ndarray]]
_STATE = "state"  # beside a generator's name: what is kept of it
_STEADY = (logging.Logger, ModuleType, type, FunctionType)
"""What does not change, or may: loggers note for themselves which levels they show."""


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
        self._drawing: dict[str, tuple[np.random.Generator, str]] = {}  # and where they began
        for name, value in vars(thing).items():
            if isinstance(value, np.random.Generator) and (state := _state(value)):
                self._drawing[name] = value, state
            elif (kept := _packed(name, value)) is None:
                self._fixed[name] = value
            else:
                self._made[name] = kept
        self._inside = {name: self._look(value) for name, value in self._fixed.items()}

    def remember(self, memory: Mapping[Any, Any]) -> None:
        """Let the object be as it was made, but for what `kept` has returned."""
        attributes = vars(self._thing)
        attributes.clear()
        attributes |= self._fixed
        for tree, arrays in self._made.values():
            attributes |= unpacked(tree, arrays)
        attributes |= {name: value for name, value in memory.items() if isinstance(name, str)}
        for name, (generator, began) in self._drawing.items():
            generator.bit_generator.state = json.loads(memory.get((name, _STATE), began))
            attributes.setdefault(name, generator)

    def kept(self) -> dict[Any, Any]:
        """Return what differs from how the object was made.

        Raises:
          RunError: function-failed, something that has changed cannot be kept.
        """
        found: dict[Any, Any] = {}
        for name, value in vars(self._thing).items():
            if isinstance(value, self._passing):
                continue
            generator, began = self._drawing.get(name, (None, ""))
            if generator is not None and generator is value:
                if (state := _state(generator)) != began:
                    found[name, _STATE] = state
            elif name in self._fixed and self._fixed[name] is value:
                self._check_inside(name, value)
            elif not _same(packed({name: value}), self._made.get(name)):
                found[name] = value
        return found

    def _look(self, value: Any) -> Any:
        return _inside(value, {id(self._thing)}, self._passing)

    def _check_inside(self, name: str, value: Any) -> None:
        if not _alike(self._look(value), self._inside[name]):
            raise RunError(
                "function-failed",
                f"{type(self._thing).__name__}.{name} has changed, and a {type(value).__name__} "
                "cannot be kept between rounds.",
                "Keep numbers, text, lists, sets, dicts and arrays of numbers.",
            )


def _state(generator: np.random.Generator) -> str:
    """Return where a generator stands, as text; empty for those that say it in arrays."""
    try:
        return json.dumps(generator.bit_generator.state)
    except TypeError:
        return ""


def _packed(name: str, value: Any) -> _Packed | None:
    try:
        return packed({name: value})
    except RunError:
        return None


def _inside(value: Any, seen: set[int], passing: tuple[type, ...]) -> Any:
    """Return all that can change in what a commit does not hold, however deep; None if nothing can.

    Args:
      value: an object, or a list of some.
      seen: identities of what is being looked into.
      passing: kinds that are not looked into.
    """
    if isinstance(value, (*_STEADY, *passing)):
        return None
    if isinstance(value, np.random.Generator):
        return _packed("", repr(value.bit_generator.state))
    if isinstance(value, np.random.RandomState):
        return _packed("", repr(value.get_state()))
    if type(value).__module__ == "random":  # one of Python's generators
        return _packed("", repr(value.getstate()))
    if (whole := _packed("", value)) is not None:
        return whole[0], {name: array.copy() for name, array in whole[1].items()}
    if id(value) in seen:
        return None
    seen.add(id(value))
    parts = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    if isinstance(value, list | tuple | set | frozenset):
        parts = dict(enumerate(value))
    return {name: _inside(part, seen, passing) for name, part in parts.items()}


def _alike(one: Any, other: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one is other is None or _same(one, other)
    return one.keys() == other.keys() and all(_alike(one[n], other[n]) for n in one)


def _same(one: _Packed | None, other: _Packed | None) -> bool:
    if not isinstance(one, tuple) or not isinstance(other, tuple) or one[0] != other[0]:
        return False
    pairs = ((array, other[1][name]) for name, array in one[1].items())
    return all(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True) for a, b in pairs)
