"""Apps of NVIDIA FLARE, trained by Hansa as they stand.

    from hansa.compat.nvflare import FlareApp

`hansa import nvflare` writes a project that does so.  The app's code runs in a process of its own,
where the module name `nvflare` means `hansa.compat.nvflare.shim`; nowhere else does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hansa.compat.nvflare.reading import App, read_app

if TYPE_CHECKING:
    from hansa.compat.nvflare.app import FlareApp

__all__ = ["App", "FlareApp", "read_app"]


def __getattr__(name: str) -> Any:
    """Load what trains when a project first asks for it: who only reads an app has no arrays."""
    if name != "FlareApp":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hansa.compat.nvflare.app import FlareApp

    return FlareApp
