"""Compute packages of FEDn as they stand, and scripts of its `APIClient` and `FednClient`.

`hansa import fedn` writes a project whose commands are `python -m hansa.compat.fedn.call`, which
runs the package's own command line as a FEDn client does.  In that process, and in scripts started
with `python -m hansa.compat.fedn script.py`, and nowhere else, the module name `fedn` means
`hansa.compat.fedn.shim.fedn`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hansa.compat.fedn.api_client import APIClient
    from hansa.compat.fedn.fedn_client import (
        ConnectToApiResult,
        FednClient,
        GrpcConnectionOptions,
    )

__all__ = ["APIClient", "ConnectToApiResult", "FednClient", "GrpcConnectionOptions"]


def __getattr__(name: str) -> Any:
    """Import a client when it is asked for: every call of a package imports this module."""
    if name not in __all__:
        raise AttributeError(f"module 'hansa.compat.fedn' has no attribute {name!r}")
    where = "api_client" if name == "APIClient" else "fedn_client"
    return getattr(importlib.import_module(f"hansa.compat.fedn.{where}"), name)
