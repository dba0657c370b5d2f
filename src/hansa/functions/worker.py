"""The process of a run's server functions: `python -m hansa.functions.worker`.

It limits itself before it imports the file, and ends when its input does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from hansa.code import import_path, make_current, read_code
from hansa.errors import HansaError
from hansa.functions.memory import packed, unpacked
from hansa.functions.messages import (
    KEPT,
    MODEL,
    Call,
    Go,
    One,
    Raised,
    Ready,
    Request,
    Returned,
    Setup,
)
from hansa.hosting.confined import limit
from hansa.hosting.wire import receive_with, send_with
from hansa.limits import MESSAGE_CHARS_MAX
from hansa.pipes import Closed, worker_streams
from hansa.seeds import Key, global_generators
from hansa.traces import line_of, sound, trace_of

Arrays = dict[str, np.ndarray]


class Update(NamedTuple):
    """What `aggregate` gets of each client."""

    model: Arrays  # as the client has trained it
    weight: float  # what the plan weighs: its examples, its steps, or one
    metrics: dict[str, float]  # measured while training, means over its examples


class Functions:
    """One file of server functions, imported."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        folder = Path(setup.folder)
        make_current(folder, read_code(folder))
        path = folder / setup.file
        self._module: ModuleType = import_path(path, f"hansa_functions_{path.stem}")

    def call(self, call: Call, arrays: Arrays, updates: dict[str, Update]) -> tuple[Any, Arrays]:
        """Call one function; return the frame and the arrays of the answer.

        Raises:
          Exception: whatever the code raises.
        """
        kept = {n.removeprefix(KEPT): a for n, a in arrays.items() if n.startswith(KEPT)}
        memory = {} if call.memory is None else unpacked(call.memory, kept)
        key = Key.root(self._setup.seed).child("server function", call.function, call.round)
        given = {
            "round": call.round,
            "rounds": self._setup.rounds,
            "clients": list(call.clients),
            "model": {n.removeprefix(MODEL): a for n, a in arrays.items() if n.startswith(MODEL)},
            "updates": updates,
            "memory": memory,
            "rng": key.generator(),
        }
        if call.function != "aggregate":
            del given["updates"]
        if call.function == "select":
            del given["model"]
        function = getattr(self._module, call.function)
        with global_generators(key):
            value = function(**_asked(call.function, function, given))
        back: Arrays = {}
        if call.function == "aggregate":
            back = {f"{MODEL}{name}": array for name, array in _arrays(value).items()}
            value = None
        elif call.function == "select":
            value = [str(name) for name in value]
        tree, remembered = packed(memory) if memory else (None, {})
        back |= {f"{KEPT}{name}": array for name, array in remembered.items()}
        return Returned(value, tree), back


def _asked(name: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that a function has arguments for."""
    parameters = inspect.signature(function).parameters.values()
    for p in parameters:
        if p.name not in given and p.default is p.empty and p.kind is not p.VAR_KEYWORD:
            raise TypeError(f"{name}() asks for {p.name!r}; there are {', '.join(given)}")
    return {p.name: given[p.name] for p in parameters if p.name in given}


def _arrays(value: Any) -> Arrays:
    if not isinstance(value, Mapping):
        raise TypeError(f"aggregate() returned {type(value).__name__}, and no dict of arrays")
    return {str(name): np.asarray(array) for name, array in value.items()}


def main() -> None:
    """Serve one run until it closes the pipe."""
    requests, replies = worker_streams()
    functions: Functions | None = None
    folder = Path()
    while True:
        try:
            request, arrays = receive_with(requests, Request)
            try:
                if isinstance(request, Setup):
                    folder = Path(request.folder)
                    limit(request.limits)
                    functions = Functions(request)
                    send_with(replies, Ready(), {})
                else:
                    assert functions is not None and isinstance(request, Call)  # in that order
                    updates = _updates(requests) if request.function == "aggregate" else {}
                    send_with(replies, *functions.call(request, arrays, updates))
            except Closed:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code
                send_with(replies, raised(error, folder), {})
        except Closed:
            break


def _updates(requests: BinaryIO) -> dict[str, Update]:
    found: dict[str, Update] = {}
    while True:
        request, arrays = receive_with(requests, Request)
        if isinstance(request, Go):
            return found
        assert isinstance(request, One)  # nothing else comes between
        found[request.client] = Update(arrays, request.weight, request.metrics)


def raised(error: BaseException, folder: Path) -> Raised:
    """Return what is said of an error of the code in a folder: a sentence, and its traceback."""
    trace = trace_of(error)
    if isinstance(error, HansaError):
        return Raised(sound(error.sentences), trace)
    line = line_of(error, folder)
    where = f"{line}, " if line else "it "
    what = f"{where}raised {type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX]
    return Raised(sound(what), trace)


if __name__ == "__main__":
    main()
