"""The process that runs FLARE clients: `python -m hansa.compat.nvflare.worker`."""

from __future__ import annotations

from hansa.compat.nvflare.hosting import Host
from hansa.compat.nvflare.shim import NAME, install
from hansa.compat.nvflare.wire import Setup, Task
from hansa.compat.serving import serve


def _host(setup: Setup) -> Host:
    install()
    return Host(setup)


if __name__ == "__main__":
    serve(Setup, Task, _host, name=NAME, page="docs/howto/coming-from-nvflare.md")
