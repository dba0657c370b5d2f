"""The process that runs Flower clients: `python -m hansa.compat.flower.worker`."""

from __future__ import annotations

from hansa.compat.flower.hosting import Host
from hansa.compat.flower.shim import NAME, install
from hansa.compat.flower.wire import Setup, Task
from hansa.compat.serving import serve


def _host(setup: Setup) -> Host:
    install()
    return Host(setup)


if __name__ == "__main__":
    serve(Setup, Task, _host, name=NAME, page="docs/howto/coming-from-flower.md")
