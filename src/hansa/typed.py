"""Types that messages are read as, made known before there are threads.

msgspec looks through a type when it first reads one, and keeps what it has found.  Two threads that
do so at the same time end the process: the second one reads a table that the first has half made
(0.22; a server that resumed two runs died of it).
"""

from __future__ import annotations

import inspect
from types import ModuleType

import msgspec


def make_known(*modules: ModuleType) -> None:
    """Have msgspec look through all message types of modules, in this thread."""
    for module in modules:
        for kind in vars(module).values():
            if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
                msgspec.json.Decoder(kind)
