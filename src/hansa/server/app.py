"""The server as one ASGI application: one table of routes, and nothing is let in beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Router
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hansa.clock import wall
from hansa.errors import HansaError, RequestRefused
from hansa.identity import to_text
from hansa.limits import (
    MEMBER_CACHE_S,
    OPEN_BODY_BYTES_MAX,
    SESSION_BURST,
    SESSION_RATE,
    UNSUBMITTED_SWEEP_S,
)
from hansa.protocol.messages import Enrolled, Enrolment, SessionRequest
from hansa.server import blobs, control, members, models, operations, people, refusals, relays
from hansa.server.auth import Gate, Principal
from hansa.server.routes import Route, answer, in_thread, parsed, read_body
from hansa.server.sources import Guesses, Rates, source_of
from hansa.server.state import ServerState

log = logging.getLogger("hansa.server")

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(state: ServerState) -> App:
    """Return the application of a server."""
    door = Door(state)
    sessions = door.opened(door.session, door.session_rates)
    routes = [
        StarletteRoute("/v1/authority", Asked(door.opened(door.authority)), methods=["GET"]),
        StarletteRoute("/v1/sessions", Asked(sessions), methods=["POST"]),
        StarletteRoute("/v1/enrolments", Asked(door.opened(door.enrol)), methods=["POST"]),
    ]
    by_path: dict[str, dict[str, Route]] = {}
    for route in table(state):
        by_path.setdefault(route.path, {})[route.method] = route
    for path, methods in by_path.items():
        routes.append(StarletteRoute(path, Guarded(state.gate, methods), methods=list(methods)))
    return App(Router(routes, lifespan=door.lifespan))


class App:
    """The ASGI application: one of the routes, and an answer for whatever goes wrong behind it.

    Each idle site holds one request open, and its frames with it.  Starlette's own application
    and router would add eight more of them to each, 5 KB a site.

    Args:
      router: knows all routes; none has a parameter in the first two parts of its path.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self._below: dict[str, list[BaseRoute]] = {}
        for route in router.routes:
            place = _place(route.path)  # type: ignore[attr-defined]
            assert "{" not in place, "what lies below is looked for by these parts"
            self._below.setdefault(place, []).append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one lifespan."""
        if scope["type"] != "http":
            scope["app"] = self
            await self.router.app(scope, receive, send)
            return
        sending = _Sending(send)
        try:
            await self._endpoint(scope)(scope, receive, sending)
        except HTTPException as error:
            await _no_route(scope, error)(scope, receive, send)
        except asyncio.CancelledError:
            return  # the server ends, and whoever has asked is gone
        except Exception as error:
            log.error("%s %s", scope["method"], scope["path"], exc_info=error)
            if sending.begun:
                raise  # the connection is closed, and the client sees that the answer is not whole
            await _defect()(scope, receive, send)

    def _endpoint(self, scope: Scope) -> ASGIApp:
        """Return what answers a request.

        Raises:
          HTTPException: 404 or 405, nothing does.
        """
        status = 404
        for route in self._below.get(_place(scope["path"]), ()):
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope["path_params"] = found["path_params"]
                endpoint: ASGIApp = found["endpoint"]
                return endpoint
            if match is Match.PARTIAL:
                status = 405
        raise HTTPException(status)


def _place(path: str) -> str:
    """Return the first two parts of a path, below which a few routes lie."""
    return "/".join(path.split("/", 3)[:3])


class _Sending:
    """Notes whether an answer has begun: a second one could not be told from it."""

    __slots__ = ("_send", "begun")

    def __init__(self, send: Send) -> None:
        self._send, self.begun = send, False

    def __call__(self, message: Message) -> Awaitable[None]:
        self.begun = True
        return self._send(message)


class Asked:
    """An endpoint as the application calls it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class Guarded:
    """An endpoint that admits whoever asks, then calls the handler of the request's method.

    Args:
      gate: admits.
      methods: the routes of one path, by method.
    """

    def __init__(self, gate: Gate, methods: Mapping[str, Route]) -> None:
        self._gate, self._methods = gate, methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            request = Request(scope, receive, send)
            route = self._methods.get(request.method) or self._methods["GET"]
            renewing = route.path == "/v1/certificates"
            principal, digest = await self._gate.admit(request, route.roles, renewing=renewing)
            answering = route.handler(request, principal, digest)
            del request, digest  # a handler that waits long may let go of them
            response = await answering
        except HansaError as error:
            response = refusals.answer(error)
        await response(scope, receive, send)


OPEN_ROUTES = (("GET", "/v1/authority"), ("POST", "/v1/sessions"), ("POST", "/v1/enrolments"))
"""All that a stranger reaches; each takes little, seldom, and gives away nothing secret."""


def table(state: ServerState) -> list[Route]:
    """Return every route that asks for proof, with the roles that may use it."""
    sites = control.Control(state)
    return [
        *control.routes(sites),
        *(Route(*route) for route in blobs.routes(state, sites.delivered)),
        *relays.routes(state),
        *people.routes(state),
        *models.routes(state),
        *operations.routes(state),
        Route("/v1/certificates", "POST", EVERYBODY, Certificates(state).renew),
    ]


EVERYBODY = ("site", "combiner", "viewer", "submitter", "admin")


class Certificates:
    """The handler of renewals."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def renew(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Give a member its next certificate."""
        await read_body(request, limit=OPEN_BODY_BYTES_MAX, digest=digest)
        member, certificate = await self._state.gate.renew(principal)
        return answer(enrolled(self._state, member, certificate))


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """Let a watch go on for which the disk, or the system, has no room at the moment."""
    try:
        yield
    except (HansaError, OSError) as error:
        log.error("%s: %s", what, error)


class Door:
    """Admission, open routes, and turning errors into answers.

    Args:
      state: of the server.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._guesses = Guesses()
        self.session_rates = Rates(rate=SESSION_RATE, burst=SESSION_BURST)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        """Resume the runs, and watch over the presence of sites."""
        state = self._state
        state.hub.attach(asyncio.get_running_loop())
        await in_thread(state.sweep)
        await in_thread(state.runs.resume)
        watches = (self._watch(), self._revocations(), self._sweeps())
        watching = [asyncio.create_task(task) for task in watches]
        try:
            yield
        finally:
            for task in watching:
                task.cancel()
            await in_thread(state.runs.leave)

    async def _watch(self) -> None:
        """Notice silent sites as soon as two heartbeats are over."""
        while True:
            pause = MEMBER_CACHE_S
            with _logged("whether sites are there could not be looked at"):
                pause = await in_thread(self._state.hub.overdue)
            await asyncio.sleep(pause)

    async def _revocations(self) -> None:
        """Let what another process has revoked be felt at once, by polls that wait too."""
        state = self._state
        known: set[tuple[str, str, str]] | None = None
        while True:
            with _logged("revocations could not be looked at"):
                found = await in_thread(members.revoked, state.database)
                new = set() if known is None else found - known
                known = found
                for name, fingerprint, _ in new:
                    await in_thread(state.forget, name, fingerprint)
            await asyncio.sleep(MEMBER_CACHE_S)

    async def _sweeps(self) -> None:
        """Remove what was uploaded for runs that never came."""
        while True:
            await asyncio.sleep(UNSUBMITTED_SWEEP_S)
            with _logged("what nobody has submitted could not be removed"):
                await in_thread(self._state.sweep_unsubmitted)

    def opened(self, handler: Endpoint, rates: Rates | None = None) -> Endpoint:
        """Return an endpoint for strangers, who may not knock too often."""
        limited = rates or self._state.gate.rates

        async def endpoint(request: Request) -> Response:
            try:
                limited.take(source_of(request))
                return await handler(request)
            except HansaError as error:
                return refusals.answer(error)

        return endpoint

    async def authority(self, request: Request) -> Response:
        """Give the CA's certificate; its fingerprint stands in every invitation."""
        return PlainTextResponse(self._state.authority.pem)

    async def session(self, request: Request) -> Response:
        """Open a session for a member's certificate."""
        asked = parsed(await read_body(request, limit=OPEN_BODY_BYTES_MAX), SessionRequest)
        return answer(await self._state.gate.open_session(asked))

    async def enrol(self, request: Request) -> Response:
        """Redeem an invitation."""
        enrolment = parsed(await read_body(request, limit=OPEN_BODY_BYTES_MAX), Enrolment)
        return answer(await in_thread(self._enrol, enrolment, source_of(request)))

    def _enrol(self, enrolment: Enrolment, source: str) -> Enrolled:
        state = self._state
        member, certificate = members.redeem(
            state.database,
            state.authority,
            enrolment,
            at=wall(),
            source=source,
            guesses=self._guesses,
        )
        return enrolled(state, member, certificate)


def enrolled(state: ServerState, member: members.Member, certificate: str) -> Enrolled:
    """Return all that a member must know of its federation."""
    return Enrolled(
        name=member.name,
        role=member.role,
        certificate=certificate,
        authority=state.authority.pem,
        receipt_key=to_text(state.receipt_key.public),
        federation=state.settings.name,
        submitters=state.submitters_pem,
    )


def _no_route(scope: Scope, error: HTTPException) -> Response:
    what = "There is no such place" if error.status_code == 404 else "That is not done there"
    return refusals.answer(
        RequestRefused(
            "request-route",
            f"{what}: {scope['method']} {scope['path'][:200]}.",
            "Use the server's release of Hansa, or one beside it.",
            status=error.status_code,
        )
    )


def _defect() -> Response:
    return refusals.answer(
        RequestRefused(
            "defect",
            "The server failed at this request; nothing that was acknowledged is lost.",
            "Tell the server's operator; its log says more.",
            status=500,
        )
    )
