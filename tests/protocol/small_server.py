"""A server of blobs alone: the real routes, sessions and proofs, and nothing else.

It is called directly, as ASGI, or over TLS from a thread.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from blake3 import blake3
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hansa.errors import HansaError, IdentityError, RequestRefused
from hansa.identity import (
    Prover,
    Sessions,
    check_certificate,
    create_authority,
    key_fingerprint,
    new_key,
)
from hansa.protocol.connection import Connection
from hansa.protocol.messages import SessionAnswer, SessionRequest
from hansa.server import blobs, refusals
from hansa.server.auth import Principal
from hansa.server.unsubmitted import Unsubmitted
from hansa.store.blobs import BlobStore


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    taken: int  # bytes of the body that were asked for


class SmallServer:
    """Members are made on the spot: one of each name, whose role is the name's first word."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.authority = create_authority(folder, federation="test")
        self.authority.issue_tls(folder, ["localhost", "127.0.0.1"])
        self.blobs = BlobStore(folder / "blobs", durable=True)
        self.messages = BlobStore(folder / "messages", durable=False)
        self.updates = BlobStore(folder / "updates", durable=False)
        self.readable = (self.messages, self.blobs)
        self.unsubmitted = Unsubmitted(folder / "unsubmitted", self.blobs, wanted=set)
        self.most = 2**40  # bytes of an update that a site may send; 0: it has no task
        self.body_max = 2**40  # bytes of a body that a proxy before the server lets through
        self.sessions = Sessions()
        self.opened = 0  # sessions
        self.renew = False  # whether members are asked to renew their certificates
        self._provers: dict[str, Prover] = {}
        self._loop = asyncio.new_event_loop()
        self._keys = {}
        self._members = {}
        by_path: dict[str, dict[str, blobs.Route]] = {}
        for route in blobs.routes(self, lambda _request, _principal, upload: upload()):
            by_path.setdefault(route.path, {})[route.method] = route
        self.app = Starlette(
            routes=[
                Route("/v1/authority", self._authority),
                Route("/v1/sessions", self._session, methods=["POST"]),
                *(Route(p, self._guarded(m), methods=list(m)) for p, m in by_path.items()),
            ]
        )

    def update_store(self, upload: blobs.Upload) -> BlobStore:
        if upload.size > self.most:
            code = "upload-unwanted"
            raise RequestRefused(code, "No.", "Wait.", status=413 if self.most else 409)
        return self.updates

    def key(self, name: str):
        if name not in self._keys:
            self._keys[name] = new_key()
            self._members[key_fingerprint(self._keys[name].public)] = name
        return self._keys[name]

    def certificate(self, name: str) -> str:
        return self.authority.issue_member(name, name.partition("-")[0], self.key(name).public)

    async def _authority(self, request: Request) -> Response:
        return PlainTextResponse(self.authority.pem)

    async def _session(self, request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await request.body(), type=SessionRequest)
            member = check_certificate(asked.certificate, self.authority.pem, at=None)
            token, seconds = self.sessions.open(key_fingerprint(member.public), member.name)
            self.opened += 1
            said = SessionAnswer(session=token, seconds=seconds, renew=self.renew)
            return Response(msgspec.json.encode(said))
        except HansaError as error:
            return refusals.answer(error)

    def _public(self, fingerprint: str) -> bytes:
        return self.key(self._members[fingerprint]).public

    def _guarded(self, methods: dict[str, blobs.Route]):
        async def endpoint(request: Request) -> Response:
            route = methods.get(request.method) or methods["GET"]
            if int(request.headers.get("content-length") or "0") > self.body_max:
                return PlainTextResponse("Request Entity Too Large", status_code=413)
            try:
                query = request.scope["query_string"].decode()
                target = request.scope["path"] + (f"?{query}" if query else "")
                proof = self.sessions.check(
                    request.headers.get("hansa-proof", ""),
                    request.method,
                    target,
                    public_key_of=self._public,
                )
                name = self._members[proof.fingerprint]
                role = name.partition("-")[0]
                if role not in route.roles:
                    raise IdentityError("identity-role", "Not for you.", "Ask.")
                principal = Principal(name, "site", role, proof.fingerprint)
                return await route.handler(request, principal, proof.body_digest)
            except HansaError as error:
                return refusals.answer(error)

        return endpoint

    def forget_sessions(self) -> None:
        """Do as a restart does."""
        self.sessions = Sessions()
        self._provers.clear()

    def prover(self, name: str) -> Prover:
        if name not in self._provers:
            key = self.key(name)
            session, _ = self.sessions.open(key_fingerprint(key.public), name)
            self._provers[name] = Prover(key, session)
        return self._provers[name]

    def call(
        self,
        who: str,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] = b"",
        *,
        signed: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request past the network; `signed` is what the proof says of the body."""
        whole = body if isinstance(body, bytes) else b""
        digest = blake3(whole if signed is None else signed).hexdigest()
        sent = {"content-length": str(len(whole)), **(headers or {})}
        sent["hansa-proof"] = self.prover(who).header(method, target, digest)
        pieces = [body] if isinstance(body, bytes) else body
        return self._loop.run_until_complete(ask(self.app, method, target, pieces, headers=sent))

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[str]:
        """Serve over TLS meanwhile; gives the address."""
        with socket.create_server(("127.0.0.1", port)) as free:
            port = free.getsockname()[1]
        server = Server(
            self.app,
            address="127.0.0.1",
            port=port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
            ssl_cert=self.folder / "tls.pem",
            ssl_key=self.folder / "tls-key.pem",
        )
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(),))
        thread.start()
        try:
            _wait_for(port)
            yield f"https://127.0.0.1:{port}"
        finally:
            loop.call_soon_threadsafe(server.stop)
            thread.join(20)
            assert not thread.is_alive()

    def connect(self, url: str, name: str, **settings) -> Connection:
        return Connection(
            url,
            authority_pem=self.authority.pem,
            key=self.key(name),
            certificate=lambda: self.certificate(name),
            **settings,
        )


async def ask(
    app, method: str, target: str, pieces: Iterable[bytes], *, headers: dict[str, str]
) -> Answer:
    """Call an ASGI application; None among the pieces: the client goes away."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 443),
    }
    parts, sent, taken = iter(pieces), [], 0

    async def receive():
        nonlocal taken
        piece = next(parts, b"")
        if piece is None:
            return {"type": "http.disconnect"}
        taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    body = b"".join(m.get("body", b"") for m in sent[1:])
    heads = {k.decode().lower(): v.decode() for k, v in start["headers"]}
    return Answer(start["status"], heads, body, taken)


def code_of(answer: Answer) -> str:
    return msgspec.json.decode(answer.body)["error"]["code"]


def _wait_for(port: int) -> None:
    pause = threading.Event()
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        pause.wait(0.01)
    raise AssertionError("the server did not start")
