"""`server.toml`: what an operator may choose; every key has a default that works."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from hansa.errors import ServerError
from hansa.limits import (
    FUNCTION_MEMORY_MB,
    SERVER_HEARTBEAT_S_MAX,
    SERVER_NAME_CHARS_MAX,
    SERVER_RUNS_MAX,
)
from hansa.text import nearest, toml, unknown_key

SETTINGS_FILE = "server.toml"

UPWARD = "upward"
"""Folder below a combiner's: its membership of the server above."""

UPWARD_LEDGER = "ledger.jsonl"
"""And its ledger of what leaves for that server, named as a site's is."""


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The operator's choices."""

    name: str = "federation"
    """what people see"""
    url: str = "https://localhost:8443"
    """how sites and people reach this server; it stands in every invitation"""
    host: str = "0.0.0.0"
    """address to listen on"""
    port: int = 8443
    """port to listen on"""
    tls: bool = True
    """false only behind a proxy that ends TLS on this very machine: then host must be loopback"""
    heartbeat_s: float = 5.0
    """a site that is not heard of for two of these counts as lost"""
    runs: int = SERVER_RUNS_MAX
    """runs at work at the same time; more wait their turn"""
    gather_s: float = 20.0
    """how long a new run waits for the word of sites that are there, before it begins without"""
    deadline_s: float = 3600.0
    """a round closes after this time where its plan says nothing"""
    server_functions: Literal["refused", "sandboxed", "preferred"] = "refused"
    """code of a project at this server, its server functions and the parts that its plan names:
    refused; run in a sandbox, of which there must be one; preferred: without one where there is
    none"""
    server_functions_memory_mb: int = FUNCTION_MEMORY_MB
    """MiB of memory that such code of one run may take"""
    redis: str = ""
    """Redis for models of plans with keep.store = "redis", as in redis://HOST:6379/0"""


def operated_by(folder: Path) -> str:
    """Return the commands that a folder is operated with: `hansa server`, or `hansa combiner`."""
    return f"hansa {'combiner' if (folder / UPWARD).exists() else 'server'}"


LOOPBACK = ("127.0.0.1", "::1", "localhost")


def load_settings(folder: Path) -> ServerSettings:
    """Read a server's settings.

    Raises:
      ServerError: there is no server in this folder, or a value is not possible.
    """
    path = folder / SETTINGS_FILE
    try:
        settings = msgspec.convert(tomllib.loads(path.read_text("utf-8")), ServerSettings)
    except FileNotFoundError:
        raise ServerError(
            "server-settings",
            f"There is no {SETTINGS_FILE} in {folder.resolve()}.",
            "Make a server with: hansa server init, or name its folder with --folder.",
        ) from None
    except (OSError, ValueError, msgspec.ValidationError) as error:
        key = unknown_key(str(error))
        hint = "Correct it; hansa server init --folder NEW writes one with every key."
        raise ServerError(
            "server-settings",
            f"{path} cannot be used: {error}.",
            hint if key is None else nearest(key, ServerSettings.__struct_fields__),
        ) from None
    return checked(settings, where=f"{path}:")


def checked(settings: ServerSettings, *, where: str) -> ServerSettings:
    """Return settings that a server can have.

    Args:
      settings: as read or asked for.
      where: they come from, to begin a sentence with.

    Raises:
      ServerError: server-settings.
    """
    fault = _fault(settings)
    if fault:
        raise ServerError("server-settings", f"{where} {fault}", "Correct that value.")
    return settings


def _fault(settings: ServerSettings) -> str:
    if not settings.tls and settings.host not in LOOPBACK:
        return (
            f"tls is false and host is {settings.host!r}; without TLS a server listens on "
            "loopback only."
        )
    if not 0 < len(settings.name) <= SERVER_NAME_CHARS_MAX or not settings.name.isprintable():
        return f"name is {settings.name[:80]!r}; it has 1 to {SERVER_NAME_CHARS_MAX} characters."
    if not _is_address(settings.url):
        return (
            f"url is {settings.url[:200]!r}; it is the address as in https://HOST:PORT, in ASCII: "
            "a name with other letters in its form for DNS, xn--..."
        )
    if not settings.host.isascii():
        return f"host is {settings.host[:200]!r}; it is an address or a name in ASCII."
    if not 0 < settings.port < 65536:
        return f"port is {settings.port}; it is a number from 1 to 65535."
    if not 0.1 <= settings.heartbeat_s <= SERVER_HEARTBEAT_S_MAX:
        most = SERVER_HEARTBEAT_S_MAX
        return f"heartbeat_s is {settings.heartbeat_s}; it is from 0.1 to {most:g} seconds."
    if not 0 < settings.deadline_s < math.inf or not 0 <= settings.gather_s < math.inf:
        return "deadline_s is above 0 and gather_s is not negative, both in seconds."
    if settings.server_functions_memory_mb < 256:
        return (
            f"server_functions_memory_mb is {settings.server_functions_memory_mb}; Python and "
            "NumPy alone take 256."
        )
    if settings.redis and not settings.redis.startswith(("redis://", "rediss://", "unix://")):
        return "redis is no address as in redis://HOST:6379/0."
    if settings.runs < 1:
        return f"runs is {settings.runs}; at least one can be at work."
    return ""


def _is_address(url: str) -> bool:
    """Tell whether this is the address of a server, and nothing more."""
    try:
        place = urlsplit(url)
        port = place.port
    except ValueError:
        return False
    more = place.path.strip("/") or place.query or place.fragment or "@" in place.netloc
    named = bool(place.hostname) and url.isascii()  # certificates and DNS know no other letters
    return place.scheme == "https" and named and port != 0 and not more


def settings_text(settings: ServerSettings) -> str:
    """Return the text of a settings file with every key, its value and its meaning."""
    return "\n".join(_lines(settings)) + "\n"


def _lines(settings: ServerSettings) -> list[str]:
    meanings = {
        "name": "what people see",
        "url": "how sites and people reach this server; it stands in every invitation",
        "host": "address to listen on",
        "port": "port to listen on",
        "tls": "false only behind a proxy that ends TLS on this machine; host is loopback then",
        "heartbeat_s": "seconds; a site not heard of for two of these counts as lost",
        "runs": "runs at work at the same time; more wait their turn",
        "gather_s": "seconds a new run waits for the word of sites that are there",
        "deadline_s": "seconds after which a round closes where its plan says nothing",
        "server_functions": "code of a project at this server: refused, sandboxed or preferred",
        "server_functions_memory_mb": "MiB of memory that such code of one run may take",
        "redis": "keeps models of plans that want it; HANSA_REDIS comes first, as for a password",
    }
    values = msgspec.to_builtins(settings)
    return [f"{key} = {toml(values[key])}  # {meaning}" for key, meaning in meanings.items()]
