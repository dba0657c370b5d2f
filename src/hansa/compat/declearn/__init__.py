"""Set-ups of declearn-quickrun, trained by Hansa as they stand.

    from hansa.compat.declearn import DeclearnApp

`hansa import declearn` writes a project that does so.  The model file runs in a process of its
own, where the module name `declearn` means `hansa.compat.declearn.shim`; nowhere else does it.
"""

from hansa.compat.declearn.app import DeclearnApp

__all__ = ["DeclearnApp"]
