"""What the application answers when something goes wrong behind it."""

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from hansa.server.app import App, Asked


async def fine(request: Request) -> Response:
    return PlainTextResponse("fine")


async def broken(request: Request) -> Response:
    raise ZeroDivisionError("a defect of ours")


async def half(request: Request) -> Response:
    async def pieces():
        yield b"half of it"
        raise ZeroDivisionError("a defect of ours")

    return StreamingResponse(pieces())


@pytest.fixture
def app() -> App:
    endpoints = {"/fine": fine, "/broken": broken, "/half": half}
    return App(Router([Route(p, Asked(e), methods=["GET"]) for p, e in endpoints.items()]))


def ask(app: App, method: str, path: str, sent: list[dict[str, Any]]) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()  # the client says no more
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/absent", 404, "request-route"),
        ("POST", "/fine", 405, "request-route"),
        ("GET", "/broken", 500, "defect"),
    ],
)
def test_what_goes_wrong_is_an_answer_with_a_code(app, method, path, status, code):
    sent: list[dict[str, Any]] = []
    ask(app, method, path, sent)
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == status and json.loads(sent[1]["body"])["error"]["code"] == code


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(app):
    sent: list[dict[str, Any]] = []
    with pytest.raises(ZeroDivisionError):  # so that the connection is closed
        ask(app, "GET", "/half", sent)
    assert [m.get("status", 0) for m in sent] == [200, 0] and sent[1]["more_body"]


def test_what_goes_right_passes_through(app):
    sent: list[dict[str, Any]] = []
    ask(app, "GET", "/fine", sent)
    assert sent[0]["status"] == 200 and sent[1]["body"] == b"fine"


def test_a_request_that_is_cancelled_ends_without_a_word() -> None:
    """As a server ends while a killed follower is still waited for: it printed a traceback."""

    async def waits(request: Request) -> Response:
        await asyncio.Event().wait()
        return PlainTextResponse("never")

    async def cancelled() -> None:
        app = App(Router([Route("/waits", Asked(waits), methods=["GET"])]))
        facts = {"type": "http", "method": "GET", "path": "/waits", "headers": []}
        asked = asyncio.ensure_future(app({**facts, "query_string": b""}, None, None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        asked.cancel()
        await asked

    asyncio.run(cancelled())
