"""The process that runs a declearn model: `python -m hansa.compat.declearn.worker`."""

from __future__ import annotations

from hansa.compat.declearn.hosting import Host
from hansa.compat.declearn.shim import NAME, install
from hansa.compat.declearn.wire import Setup, Task
from hansa.compat.serving import serve


def _host(setup: Setup) -> Host:
    install()
    return Host(setup)


if __name__ == "__main__":
    serve(Setup, Task, _host, name=NAME, page="docs/howto/coming-from-declearn-quickrun.md")
