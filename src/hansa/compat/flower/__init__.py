"""Client code of a Flower project, trained by Hansa as it stands.

    from hansa.compat.flower import FlowerApp

`hansa import flower` writes a project that does so.  The client's code runs in a process of its
own, where the module name `flwr` means `hansa.compat.flower.shim`; nowhere else does it.
"""

from hansa.compat.flower.app import FlowerApp

__all__ = ["FlowerApp"]
