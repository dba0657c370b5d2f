"""Behind a proxy on this machine: who asks is whom the proxy names, not the proxy.

Only used where the server listens on loopback without TLS, so nobody but a process of this machine
can set the header.  It decides whose rate is limited and what the audit trail says, and lets nobody
in: a proof is still asked of everyone.
"""

from __future__ import annotations

import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send

_HEADER = b"x-real-ip"


class BehindProxy:
    """Wraps an application so that it sees the address that the proxy saw.

    Args:
      app: of the server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with the client's own address if the proxy named one."""
        if scope["type"] == "http":
            address = _named(scope)
            if address is not None:
                scope = {**scope, "client": (address, 0)}
        await self._app(scope, receive, send)


def _named(scope: Scope) -> str | None:
    """Return the address in the one header; None if it is absent, repeated or no address."""
    values = [value for name, value in scope["headers"] if name == _HEADER]
    try:
        return str(ipaddress.ip_address(values[0].decode("ascii"))) if len(values) == 1 else None
    except (UnicodeDecodeError, ValueError):
        return None
