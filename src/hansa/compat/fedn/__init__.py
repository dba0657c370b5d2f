"""Compute packages of FEDn, trained by Hansa as they stand, and scripts of FEDn's `APIClient`.

`hansa import fedn` writes a project whose commands are `python -m hansa.compat.fedn.call`, which
runs the package's own command line as a FEDn client does.  In that process, and in scripts started
with `python -m hansa.compat.fedn script.py`, and nowhere else, the module name `fedn` means
`hansa.compat.fedn.shim.fedn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hansa.compat.fedn.api_client import APIClient

__all__ = ["APIClient"]


def __getattr__(name: str) -> Any:
    """Import the client when it is asked for: every call of a package imports this module."""
    if name == "APIClient":
        from hansa.compat.fedn.api_client import APIClient

        return APIClient
    raise AttributeError(name)
