"""A class `ServerFunctions` of FEDn, unmodified, as Hansa's server functions.

`hansa import fedn --server-functions FILE` writes a server.py that calls this; it runs in the
process of the run's server functions alone, where the module name `fedn` is ours.  What the object
has in its attributes is what its functions remember, so a run goes on after a crash as if there had
been none.  FEDn keeps it in one process for all sessions.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hansa.code import import_path
from hansa.compat.attributes import Attributes
from hansa.errors import LearnerError

_SHIM = Path(__file__).with_name("shim")
CLASS = "ServerFunctions"

FUNCTIONS = {
    "select": ("client_selection",),
    "settings": ("client_settings", "client_config"),  # FEDn has renamed it
    "aggregate": ("incremental_aggregate", "aggregate"),  # FEDn prefers the first
}
"""Hansa's functions, and the methods of FEDn's class that each can be."""


class Served:
    """The object of one run.

    Args:
      path: file that defines the class.
    """

    def __init__(self, path: Path) -> None:
        if str(_SHIM) not in sys.path:
            sys.path.insert(0, str(_SHIM))
        module = import_path(path, f"hansa_fedn_{path.stem}")
        if not hasattr(module, CLASS):
            raise LearnerError(
                "learner-incomplete",
                f"{path.name} has no class {CLASS}.",
                "FEDn finds it by that name.",
            )
        self._functions = getattr(module, CLASS)()
        self._attributes = Attributes(self._functions)

    def select(self, clients: list[str], memory: dict[Any, Any]) -> Any:
        """Return whom `client_selection` chooses."""
        self._attributes.remember(memory)
        chosen = self._functions.client_selection(clients)
        self._keep(memory)
        return chosen

    def settings(self, model: Mapping[str, np.ndarray], memory: dict[Any, Any]) -> Any:
        """Return what `client_settings` says to the clients."""
        self._attributes.remember(memory)
        name = next(name for name in FUNCTIONS["settings"] if _is_own(self._functions, name))
        told = getattr(self._functions, name)(list(model.values()))
        self._keep(memory)
        return told

    def aggregate(
        self, model: Mapping[str, np.ndarray], updates: Mapping[str, Any], memory: dict[Any, Any]
    ) -> dict[str, Any]:
        """Return the model of `aggregate`, or of `incremental_aggregate` client by client.

        Args:
          model: of the round before.
          updates: of each client its model, its weight and its metrics.
          memory: what the object's attributes were, and will be.
        """
        self._attributes.remember(memory)
        functions, before = self._functions, list(model.values())
        each = {name: (list(one.model.values()), _metadata(one)) for name, one in updates.items()}
        if _is_own(functions, "incremental_aggregate"):
            for name, (arrays, said) in each.items():
                functions.incremental_aggregate(name, arrays, said, before)
            made = functions.get_incremental_aggregate_model()
        else:
            made = functions.aggregate(before, each)
        self._keep(memory)
        if isinstance(made, Mapping):
            return dict(made)
        if not isinstance(made, list | tuple) or len(made) != len(before):
            what = f"{len(made)} arrays" if isinstance(made, list | tuple) else type(made).__name__
            raise TypeError(f"{CLASS} returned {what}; the model is a list of {len(before)}")
        return dict(zip(model, made, strict=True))

    def _keep(self, memory: dict[Any, Any]) -> None:
        memory.clear()
        memory |= self._attributes.kept()


def _is_own(functions: Any, name: str) -> bool:
    """Tell whether a class defines a method itself, or has FEDn's that does nothing."""
    for kind in type(functions).__mro__:
        if name in vars(kind):
            return kind.__name__ != "ServerFunctionsBase"
    return False


def _metadata(update: Any) -> dict[str, Any]:
    """Return what a client's sidecar said: numbers, with those in objects by names with a dot."""
    examples = int(update.weight) if update.weight == int(update.weight) else update.weight
    return {"num_examples": examples, **update.metrics}
