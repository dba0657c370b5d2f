"""Where a federation on one machine is: its names, a free port, and the environment it runs in."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

SERVER = "server"
"""The server's name among the processes; no site may have it."""

ADMIN = "admin"
"""Who submits."""


def free_port() -> int:
    """Return a port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def environment_with(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process for the length of a block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
