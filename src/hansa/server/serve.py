"""Running a server: one process, one port, TLS 1.3, and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from hansa.clock import wall
from hansa.errors import HansaError, ServerError
from hansa.identity import load_authority
from hansa.limits import (
    CONNECTION_BUFFER_BYTES,
    CONNECTIONS_BACKLOG,
    CONNECTIONS_OPEN_MAX,
    THREAD_SWITCH_S,
    TLS_LOOK_S,
    TLS_RENEW_DAYS,
)
from hansa.server.app import make_app
from hansa.server.behind import BehindProxy
from hansa.server.founding import tls_hosts
from hansa.server.logs import GRANIAN_LOG
from hansa.server.routes import in_thread
from hansa.server.settings import ServerSettings, load_settings
from hansa.server.state import ServerState, held

log = logging.getLogger("hansa.server")


def serve(
    folder: Path,
    *,
    started: Callable[[ServerSettings], None] = lambda _: None,
    state_of: Callable[[Path, ServerSettings], ServerState] = ServerState,
) -> None:
    """Serve until SIGTERM or Ctrl-C; then finish what is at hand, and leave.

    Args:
      folder: of the server.
      started: called once requests are taken.
      state_of: puts the server together; a combiner is one too.

    Raises:
      ServerError: the folder is in use, a setting is wrong, or the port is taken.
    """
    settings = load_settings(folder)
    # Requests are answered between the steps of threads that fold updates.
    sys.setswitchinterval(THREAD_SWITCH_S)
    with held(folder):
        _check_port(settings)
        while True:
            if settings.tls:
                _renewed_or_kept(folder, settings)
            state = state_of(folder, settings)
            try:
                again = asyncio.run(_serve(state, started))
            finally:
                state.close()
            if not again:
                return
            started = _unannounced


def _unannounced(settings: ServerSettings) -> None:
    """Start again without a word."""


async def _renewal(folder: Path, settings: ServerSettings) -> None:
    """Wait until the TLS certificate has been renewed."""
    while not (settings.tls and await in_thread(_is_renewed, folder, settings)):
        await asyncio.sleep(TLS_LOOK_S)
    log.info("the TLS certificate is renewed; starting again with it")


async def _serve(state: ServerState, started: Callable[[ServerSettings], None]) -> bool:
    """Serve; return whether to start again, with a new certificate."""
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels
    from granian.server.embed import Server

    settings = state.settings
    app = make_app(state)
    server = Server(
        app if settings.tls else BehindProxy(app),
        address="127.0.0.1" if settings.host == "localhost" else settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        http1_settings=HTTP1Settings(max_buffer_size=CONNECTION_BUFFER_BYTES),
        backlog=CONNECTIONS_BACKLOG,
        backpressure=CONNECTIONS_OPEN_MAX,
        log_enabled=True,
        log_level=LogLevels.warning,
        log_dictconfig=GRANIAN_LOG,
        ssl_cert=state.folder / "tls.pem" if settings.tls else None,
        ssl_key=state.folder / "tls-key.pem" if settings.tls else None,
    )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows; not the main thread
            loop.add_signal_handler(number, ended.set)
    state.database.on_broken(lambda: loop.call_soon_threadsafe(ended.set))
    serving = asyncio.create_task(server.serve())
    await _listening(settings, serving)
    started(settings)
    log.info("serving on %s:%s for %s", settings.host, settings.port, settings.url)
    stopping = asyncio.create_task(ended.wait())
    renewing = asyncio.create_task(_renewal(state.folder, settings))
    await asyncio.wait({serving, stopping, renewing}, return_when=asyncio.FIRST_COMPLETED)
    again = renewing.done() and not ended.is_set()
    renewing.cancel()
    log.info("ending: open polls are answered, and runs go on at the next start")
    state.hub.drain()
    await asyncio.sleep(0)
    server.stop()  # type: ignore[no-untyped-call]
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(serving), 15.0)
    if state.database.broken is not None:
        raise state.database.broken
    return again


async def _listening(settings: ServerSettings, serving: asyncio.Task[None]) -> None:
    """Wait until the port answers."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "localhost") else settings.host
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection(host, settings.port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
    await serving


def _check_port(settings: ServerSettings) -> None:
    """Refuse a port that is taken, with a sentence."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ServerError(
                "server-port",
                f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Nothing was "
                "started.",
                "Free the port, or change host and port in server.toml.",
            ) from None


def _is_renewed(folder: Path, settings: ServerSettings) -> bool:
    """Renew the TLS certificate if it is time to; what cannot be done now is tried again later."""
    try:
        return renew_tls(folder, settings)
    except (HansaError, OSError) as error:
        log.error("the TLS certificate could not be renewed, and holds a while longer: %s", error)
        return False


def _renewed_or_kept(folder: Path, settings: ServerSettings) -> None:
    """Renew the TLS certificate before a start; one that cannot be, but still holds, is kept."""
    try:
        renew_tls(folder, settings)
    except (HansaError, OSError) as error:
        if not _seconds_left(folder) > 0:
            raise
        log.error("the TLS certificate could not be renewed, and holds a while longer: %s", error)


def _seconds_left(folder: Path) -> float:
    """Return how long the TLS certificate holds; 0 if there is none."""
    try:
        present = x509.load_pem_x509_certificates((folder / "tls.pem").read_bytes())[0]
    except (OSError, ValueError):
        return 0.0
    return present.not_valid_after_utc.timestamp() - wall()


def renew_tls(folder: Path, settings: ServerSettings) -> bool:
    """Issue the TLS certificate anew if it is near its end, or not for the present names."""
    wanted = set(tls_hosts(settings))
    try:
        present = x509.load_pem_x509_certificates((folder / "tls.pem").read_bytes())[0]
        names = present.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        held_names = set(names.get_values_for_type(x509.DNSName))
        held_names |= {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
        left = present.not_valid_after_utc.timestamp() - wall()
    except (OSError, ValueError, x509.ExtensionNotFound):
        held_names, left = set(), 0.0
    if wanted <= held_names and left > TLS_RENEW_DAYS * 86_400:
        return False
    load_authority(folder).issue_tls(folder, tls_hosts(settings))
    return True
