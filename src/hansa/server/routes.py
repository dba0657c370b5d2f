"""What a route is, and how messages come in and go out."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import msgspec
from blake3 import blake3
from starlette.requests import Request
from starlette.responses import Response

from hansa.errors import RequestRefused, ServerError
from hansa.limits import HANDLER_THREADS, JSON_BYTES_MAX, RESULT_THREADS
from hansa.server.auth import Principal

T = TypeVar("T")

WHOLE = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
"""A whole number that a database can hold."""

Handler = Callable[[Request, Principal, str | None], Awaitable[Response]]
"""Takes a request, who has made it, and the digest that its body must have."""


class Route(NamedTuple):
    """One line of the table of routes; who is not named in it is refused."""

    path: str
    method: str
    roles: tuple[str, ...]
    handler: Handler


_threads = ThreadPoolExecutor(HANDLER_THREADS, thread_name_prefix="hansa-handler")
_results = ThreadPoolExecutor(RESULT_THREADS, thread_name_prefix="hansa-result")


async def in_result_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run what takes a result, which may wait for others to be folded, where only results wait."""
    return await asyncio.get_running_loop().run_in_executor(_results, work, *arguments)


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run something that reads, computes or waits for a disk, beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work, *arguments)


async def read_message(request: Request, digest: str | None, kind: type[T]) -> T:
    """Return a request's body as a message.

    Raises:
      ServerError: too long, or not what was signed.
      RequestRefused: it is no such message.
    """
    return parsed(await read_body(request, limit=JSON_BYTES_MAX, digest=digest), kind)


async def read_body(request: Request, *, limit: int, digest: str | None = None) -> bytes:
    """Return the whole body of a small request, checked before anybody parses it.

    Args:
      request: its body has not been read.
      limit: bytes; no more than one piece beyond it is ever held.
      digest: that the body must have; None: nothing was signed.

    Raises:
      ServerError: too long, or not what was signed.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        raise _too_long(limit)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise _too_long(limit)
    if digest is not None and not hmac.compare_digest(blake3(body).hexdigest(), digest):
        raise ServerError(
            "blob-digest",
            f"The body of {len(body)} bytes is not the one that was signed; nothing was done.",
            "Send it again.  A proxy on the way may have changed it.",
        )
    return bytes(body)


def parsed(body: bytes, kind: type[T]) -> T:
    """Return bytes as a message of a kind.

    Raises:
      RequestRefused: they are not.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(
            "request-message",
            f"The request is no {kind.__name__}: {error}. Nothing was done.",
            "Use the server's release of Hansa, or one beside it.",
            status=422,
        ) from None


def answer(message: Any, status: int = 200) -> Response:
    """Return a message as a response."""
    return Response(msgspec.json.encode(message), status, media_type="application/json")


def number(request: Request, name: str, default: float, *, top: float) -> float:
    """Return a number from the query, between 0 and `top`.

    Raises:
      RequestRefused: it is none.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= top:
        raise RequestRefused(
            "request-message",
            f"{name} is {text[:40]!r}; it is a number from 0 to {top:g}. Nothing was done.",
            "Correct the query.",
            status=422,
        )
    return value


def round_number(text: str) -> int:
    """Return the number of a round out of a path or query, which may hold anything, of any length.

    Raises:
      RequestRefused: it is none.
    """
    if not WHOLE.fullmatch(text):
        raise RequestRefused(
            "request-message",
            f"{text[:40]!r} is not the number of a round. Nothing was done.",
            "It is a whole number in decimal digits, from 0 on.",
            status=422,
        )
    return int(text)


def _too_long(limit: int) -> ServerError:
    return ServerError(
        "blob-too-large",
        f"The body is longer than {limit} bytes; the rest was not read.",
        "Send what the route is for; models and code travel as blobs.",
    )
