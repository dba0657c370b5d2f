"""Apps of NVIDIA FLARE, trained by Hansa as they stand.

    from hansa.compat.nvflare import FlareApp

`hansa import nvflare` writes a project that does so.  The app's code runs in a process of its own,
where the module name `nvflare` means `hansa.compat.nvflare.shim`; nowhere else does it.
"""

from hansa.compat.nvflare.app import FlareApp
from hansa.compat.nvflare.reading import App, read_app

__all__ = ["App", "FlareApp", "read_app"]
