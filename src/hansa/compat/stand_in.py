"""What stands in for another system's modules, in the process that runs its clients' code.

`install` is called by that process alone, before any user code: it puts a finder in front of all
others, which makes modules from a table.  There is no folder of such a name anywhere, so nothing
can be put on a path by mistake.  Names of the client's side are real; names of the server's side
exist, so that a file with both can be imported, and do nothing.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from hansa.errors import LearnerError

Parts = Mapping[str, Mapping[str, Any]]
"""Every module and what is in it."""


class NotExecuted:
    """What any name of the server's side is: it can be called, derived from, and decorate."""

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Return what is decorated, or itself."""
        return args[0] if len(args) == 1 and callable(args[0]) and not options else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return NotExecuted()

    def __iter__(self) -> Any:
        return iter(())


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes the modules of a table when they are imported.

    Args:
      name: of the package.
      parts: the table.
      server: modules of the server's side, with all that is below them.
    """

    def __init__(self, name: str, parts: Parts, server: tuple[str, ...]) -> None:
        self._name, self._parts, self._server = name, parts, server

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how a module is made; nothing but the package and what is below it is ours."""
        if name.partition(".")[0] != self._name:
            return None
        if name not in self._parts and not self._is_server(name):
            # Never the real package beside this one: its classes are not ours.
            raise ModuleNotFoundError(f"There is no {name} in Hansa's stand-in.", name=name)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module."""
        if module.__name__ not in self._parts:
            module.__getattr__ = _not_executed  # type: ignore[method-assign]
            return
        vars(module).update(self._parts[module.__name__])
        module.__getattr__ = partial(self._submodule, module.__name__)  # type: ignore[method-assign]

    def _is_server(self, name: str) -> bool:
        return name.startswith(tuple(f"{p}." for p in self._server)) or name in self._server

    def _submodule(self, parent: str, name: str) -> Any:
        """Import what is below for `import flwr as fl; fl.client`."""
        full = f"{parent}.{name}"
        if full not in self._parts and not self._is_server(full):
            raise AttributeError(f"There is no {full} in Hansa's stand-in.")
        return importlib.import_module(full)


def install(name: str, parts: Parts, server: tuple[str, ...] = ()) -> None:
    """Let a package's name mean this, in this process, from now on.

    Raises:
      LearnerError: the real one has been imported already.
    """
    if name in sys.modules:
        raise LearnerError(
            "learner-module",
            f"The module {name} was imported before the stand-in for it.",
            "Start Python without what imports it, such as a .pth file or sitecustomize.",
        )
    sys.meta_path.insert(0, _Finder(name, parts, server))


def _not_executed(name: str) -> Any:
    """Return a class of its own for a name, so that user code may derive from it."""
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (NotExecuted,), {})
