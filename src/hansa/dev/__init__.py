"""Rehearsal: a whole federation on one machine, in real processes, for people and for tests.

Names are imported when they are first used: `hansa poc` starts nothing and needs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hansa.dev.chaos import Chaos
    from hansa.dev.children import Child
    from hansa.dev.loopback import ADMIN, SERVER, free_port
    from hansa.dev.rehearsal import Rehearsal

__all__ = ["ADMIN", "SERVER", "Chaos", "Child", "Rehearsal", "free_port"]

_WHERE = {"Chaos": "chaos", "Child": "children", "Rehearsal": "rehearsal"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hansa.dev' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hansa.dev.{_WHERE.get(name, 'loopback')}"), name)
