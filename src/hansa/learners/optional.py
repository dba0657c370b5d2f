"""Frameworks that an extra brings: imported if there, and a clear error once used if not."""

from __future__ import annotations

import importlib
from typing import Any

from hansa.errors import LearnerError

_EXTRAS = {"torch": "torch", "sklearn": "sklearn"}  # top-level module -> extra of this package


def optional(module: str) -> Any:
    """Import a module, or return a stand-in whose every attribute raises `LearnerError`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        return _Missing(module, str(error))


PACKAGES = {"torch": "torch", "sklearn": "scikit-learn"}


class _Missing:
    def __init__(self, module: str, reason: str) -> None:
        self._module, self._reason = module, reason

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # inspection, not use
            raise AttributeError(name)
        extra = _EXTRAS[self._module.partition(".")[0]]
        raise LearnerError(
            "learner-missing-package",
            f"The {extra} learner needs {self._module}, which cannot be imported: {self._reason}.",
            f"Install it with: pip install {PACKAGES[extra]}",
        )
