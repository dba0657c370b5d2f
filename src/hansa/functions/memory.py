"""What a server function remembers, between Python values and what a commit can hold.

Numbers, text, lists, tuples, sets, deques, dicts of Python's kinds with any such keys, and arrays;
nothing that would need code to be read back (law L7).
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.errors import RunError
from hansa.limits import FUNCTION_MEMORY_DEPTH_MAX

_LISTS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_DICTS: dict[str, Any] = {"OrderedDict": OrderedDict, "Counter": Counter, "dict": dict}
_DEFAULTS: dict[str, Any] = {kind.__name__: kind for kind in (int, float, str, list, dict, set)}


def packed(memory: Mapping[Any, Any]) -> tuple[Any, dict[str, np.ndarray]]:
    """Return a memory as plain JSON data, and its arrays by the names that stand in their places.

    Raises:
      RunError: function-failed, something in it cannot be kept.

    >>> packed({"lr": 0.5, 3: {"a"}})[0]
    {'dict': [['lr', 0.5], [3, {'set': ['a']}]]}
    """
    arrays: dict[str, np.ndarray] = {}
    return _packed(memory, arrays, "memory", 0), arrays


def unpacked(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the memory that `packed` was given; arrays may be written to.

    >>> unpacked(*packed({"seen": {1, 2}, 3: (None, "x")}))
    {'seen': {1, 2}, 3: (None, 'x')}
    """
    if not isinstance(tree, dict):
        return tree
    ((kind, inner),) = tree.items()
    if kind == "array":
        return np.array(arrays[inner])
    if kind == "float":
        return float(inner)
    if kind == "deque":
        return deque((unpacked(value, arrays) for value in inner[1]), inner[0])
    if kind in ("defaultdict", *_DICTS):
        default, pairs = inner if kind == "defaultdict" else ("", inner)
        made = _DICTS[kind]() if kind in _DICTS else defaultdict(_DEFAULTS[default])
        made.update({unpacked(key, arrays): unpacked(value, arrays) for key, value in pairs})
        return made
    return _LISTS[kind](unpacked(value, arrays) for value in inner)


def _packed(value: Any, arrays: dict[str, np.ndarray], where: str, depth: int) -> Any:
    if isinstance(value, np.generic) and value.dtype.kind in "fiub":
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(float(value))}  # JSON knows none, and a commit is JSON
    if value is None or isinstance(value, bool | str | int | float):
        return value
    if depth > FUNCTION_MEMORY_DEPTH_MAX:
        raise _not_kept(where, "is nested too deeply")
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise _not_kept(where, f"is an array of {value.dtype}")
        name = str(len(arrays))
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):
        pairs = [
            [
                _packed(k, arrays, f"a key of {where}", depth + 1),
                _packed(v, arrays, f"{where}[{k!r:.40}]", depth + 1),
            ]
            for k, v in value.items()
        ]
        if isinstance(value, defaultdict):
            return {"defaultdict": [_default(value, where), pairs]}
        return {next(kind for kind, made in _DICTS.items() if isinstance(value, made)): pairs}
    if isinstance(value, deque):
        inner = [_packed(v, arrays, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
        return {"deque": [value.maxlen, inner]}
    for kind, made in _LISTS.items():
        if isinstance(value, made):
            ordered = sorted(value, key=repr) if "set" in kind else value
            inner = [_packed(v, arrays, f"{where}[{i}]", depth + 1) for i, v in enumerate(ordered)]
            return {kind: inner}
    raise _not_kept(where, f"is of type {type(value).__name__}")


def _default(value: defaultdict[Any, Any], where: str) -> str:
    for name, kind in _DEFAULTS.items():
        if value.default_factory is kind:
            return name
    raise _not_kept(where, "makes what is missing by code of its own")


def _not_kept(where: str, how: str) -> RunError:
    return RunError(
        "function-failed",
        f"{where} {how}, which cannot be kept between rounds.",
        "Keep numbers, text, lists, sets, dicts and arrays of numbers.",
    )
