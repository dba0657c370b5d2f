"""The routes of blobs and updates: bytes go from the socket to the disk, hashed on the way.

A body is never held whole, and nothing counts before its bytes match the digest that its sender
has signed.  Updates can be sent and asked about; nobody can read them back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from blake3 import blake3
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hansa.clock import monotonic
from hansa.errors import ServerError
from hansa.identity.roles import Role
from hansa.limits import (
    BLOB_BYTES_MAX,
    CHUNK_BYTES,
    DISK_HERE_S,
    DISK_SLOW_S,
    PIECE_BYTES,
    SENDING_BYTES,
    SENDING_PIECE_BYTES_MIN,
    UPLOAD_PIECE_BYTES,
)
from hansa.protocol.messages import BlobChunks
from hansa.server.auth import Principal
from hansa.server.routes import WHOLE, Route, answer, in_thread
from hansa.server.turns import Turns
from hansa.server.unsubmitted import Unsubmitted
from hansa.store.addresses import Bytes, hex_of
from hansa.store.blobs import BlobStore
from hansa.store.faults import disk_failed, missing, too_large, wrong_digest

READERS: tuple[Role, ...] = ("site", "combiner", "submitter", "viewer", "admin")
SUBMITTERS: tuple[Role, ...] = ("submitter", "admin")
SITES: tuple[Role, ...] = ("site", "combiner")

_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})?", re.ASCII)


class Upload(NamedTuple):
    """What somebody would send."""

    owner: str
    digest: str
    size: int
    run: str  # of an update: the task it was computed for
    round: int


class State(Protocol):
    """What the routes need of the server."""

    blobs: BlobStore

    @property
    def readable(self) -> Sequence[BlobStore]:
        """Stores that members may fetch from."""

    @property
    def unsubmitted(self) -> Unsubmitted:
        """Who has uploaded what, for runs that are to come."""

    def update_store(self, upload: Upload) -> BlobStore:
        """Return where this update is put; raise if its site may not send it now."""


Delivered = Callable[[Request, Principal, Callable[[], Awaitable[Response]]], Awaitable[Response]]
"""Answers a request that brings an update, and perhaps its result; its last argument takes the
update alone and returns the answer to that."""


class _Disk:
    """Whether the disk has lately taken at once what it was given; for one event loop."""

    def __init__(self) -> None:
        self._slow_until = float("-inf")

    def is_swift(self) -> bool:
        """Return whether to write in the event loop."""
        return monotonic() >= self._slow_until

    def took(self, seconds: float) -> bool:
        """Note how long a piece has taken; return whether that was as good as no time."""
        if seconds >= DISK_HERE_S:
            self._slow_until = monotonic() + DISK_SLOW_S
        return seconds < DISK_HERE_S


class _Writer(Protocol):
    def write(self, data: Bytes) -> None: ...


def routes(state: State, delivered: Delivered) -> list[Route]:
    """Return the routes of blobs and updates.

    Args:
      state: of the server.
      delivered: takes an update that brings its result.
    """
    turns, disk = Turns(), _Disk()
    blobs = _Uploads(lambda _: state.blobs, turns, disk, state.unsubmitted.uploading)
    updates = _Uploads(state.update_store, turns, disk)

    async def update(request: Request, principal: Principal, signed: str | None) -> Response:
        return await delivered(request, principal, partial(updates.put, request, principal, signed))

    downloads = _Downloads(state.readable, blobs)
    one, chunks, chunk = "/{digest}", "/{digest}/chunks", "/{digest}/chunks/{n}"
    return [
        Route(f"/v1/blobs{one}", "GET", READERS, downloads.get),
        Route(f"/v1/blobs{chunks}", "GET", READERS, downloads.chunks),
        Route(f"/v1/blobs{one}", "PUT", SUBMITTERS, blobs.put),
        Route(f"/v1/blobs{chunk}", "PUT", SUBMITTERS, blobs.put_chunk),
        Route(f"/v1/updates{one}", "PUT", SITES, update),
        Route(f"/v1/updates{chunks}", "GET", SITES, updates.chunks),
        Route(f"/v1/updates{chunk}", "PUT", SITES, updates.put_chunk),
    ]


_Counted = Callable[[str, str, int], contextlib.AbstractAsyncContextManager[None]]


def _uncounted(_owner: str, _digest: str, _size: int) -> contextlib.nullcontext[None]:
    """Hold nothing: what sites send is counted by their tasks."""
    return contextlib.nullcontext()


class _Uploads:
    """Takes blobs into a store that may depend on who sends them, and for what.

    Args:
      store_for: tells the store.
      turns: of all that come in.
      disk: that all are written to.
      counted: holds a blob for its sender, before it is looked for and while it comes.
    """

    def __init__(
        self,
        store_for: Callable[[Upload], BlobStore],
        turns: Turns,
        disk: _Disk,
        counted: _Counted = _uncounted,
    ) -> None:
        self._store_for, self._turns, self._disk = store_for, turns, disk
        self._counted = counted

    def _store(self, request: Request, principal: Principal, size: int) -> BlobStore:
        digest, query = request.path_params["digest"], request.query_params
        hex_of(digest)
        number = _number(query.get("round", "0"), "number of a round")
        return self._store_for(Upload(principal.name, digest, size, query.get("run", ""), number))

    async def put(self, request: Request, principal: Principal, signed: str | None) -> Response:
        """Take a whole blob; of a large one the chunks that came stay after a cut."""
        digest = request.path_params["digest"]
        if hex_of(digest) != signed:
            raise wrong_digest(digest, "the digest signed for the body is another")
        size = _announced(request, limit=BLOB_BYTES_MAX)
        store = self._store(request, principal, size)
        async with self._counted(principal.name, digest, size):
            await self._take_whole(request, principal, store, size=size)
        return answer(BlobChunks(size=size, chunk_bytes=CHUNK_BYTES, complete=True))

    async def _take_whole(
        self, request: Request, principal: Principal, store: BlobStore, *, size: int
    ) -> None:
        digest = request.path_params["digest"]
        if store.has(digest):
            await self._take(request, _Checked(hex_of(digest)), size=size)
        elif size > CHUNK_BYTES:
            upload = await in_thread(partial(store.chunks, digest, size, owner=principal.name))
            with upload.stream() as writer:
                await self._take(request, writer, size=size)
        elif not store.durable and self._disk.is_swift():
            with store.writer(digest, size) as writer:
                await self._take(request, writer, size=size, light=True)
        else:
            with await in_thread(store.writer, digest, size) as writer:
                await self._take(request, writer, size=size)

    async def _take(self, request: Request, writer: Any, *, size: int, light: bool = False) -> None:
        """Give a request's body to a writer, in its turn; as `_take`."""
        async with contextlib.aclosing(self._turns.parts(request, size)) as parts:
            await _take(parts, writer, size=size, disk=self._disk, light=light)

    async def put_chunk(
        self, request: Request, principal: Principal, signed: str | None
    ) -> Response:
        """Take one chunk of a large blob; the last one to come makes it whole."""
        digest, n = request.path_params["digest"], _number(request.path_params["n"], "chunk")
        whole = self._whole_size(request)
        store = self._store(request, principal, whole)
        async with self._counted(principal.name, digest, whole):
            return await self._take_chunk(request, principal, n, store=store, signed=signed)

    async def _take_chunk(
        self,
        request: Request,
        principal: Principal,
        n: int,
        *,
        store: BlobStore,
        signed: str | None,
    ) -> Response:
        digest, whole = request.path_params["digest"], self._whole_size(request)
        if store.has(digest):
            size = _announced(request, limit=CHUNK_BYTES)
            await self._take(request, _Checked(signed), size=size)
            return answer(BlobChunks(size=whole, chunk_bytes=CHUNK_BYTES, complete=True))
        upload = await in_thread(partial(store.chunks, digest, whole, owner=principal.name))
        length = upload.length(n)
        if _announced(request, limit=length) != length:
            raise wrong_digest(f"chunk {n} of {digest}", f"it must have {length} bytes")
        with await in_thread(upload.writer, n, signed or "") as writer:
            await self._take(request, writer, size=length)
        complete = await in_thread(upload.complete)
        return answer(BlobChunks(size=whole, chunk_bytes=CHUNK_BYTES, complete=complete))

    async def chunks(self, request: Request, principal: Principal, _digest: str | None) -> Response:
        """Tell which chunks are there."""
        return answer(await self.progress(request, principal))

    async def progress(self, request: Request, principal: Principal) -> BlobChunks:
        """Return how far an upload is.

        Raises:
          ServerError: blob-missing, the blob is not there, and no size is given to look for parts.
        """
        digest = request.path_params["digest"]
        whole = self._whole_size(request) if "size" in request.query_params else 0
        # A client that hears now that nobody waits for it need not send anything.
        store = self._store(request, principal, whole)
        if not whole and not store.has(digest):
            raise missing(digest)
        async with self._counted(principal.name, digest, whole):
            return await self._progress(principal, store, digest, whole)

    async def _progress(
        self, principal: Principal, store: BlobStore, digest: str, whole: int
    ) -> BlobChunks:
        if store.has(digest):
            size = store.size(digest)
            return BlobChunks(size=size, chunk_bytes=CHUNK_BYTES, complete=True)
        have = await in_thread(partial(store.have, digest, whole, owner=principal.name))
        complete = False
        if have:  # a crash may have come between the last chunk and the end
            upload = await in_thread(partial(store.chunks, digest, whole, owner=principal.name))
            complete = await in_thread(upload.complete)
        return BlobChunks(
            size=whole, chunk_bytes=CHUNK_BYTES, complete=complete, have=[] if complete else have
        )

    def _whole_size(self, request: Request) -> int:
        size = _number(request.query_params.get("size", ""), "size of a blob")
        if not 0 < size <= BLOB_BYTES_MAX:
            raise too_large(request.path_params["digest"][:80], f"{size} bytes")
        return size


class _Downloads:
    """Gives blobs out of the stores that may be read."""

    def __init__(self, stores: Sequence[BlobStore], uploads: _Uploads) -> None:
        self._stores = stores
        self._uploads = uploads
        self._sending: set[_File] = set()

    async def get(self, request: Request, _principal: Principal, _digest: str | None) -> Response:
        """Give a blob, or a range of at most CHUNK_BYTES of it."""
        digest = request.path_params["digest"]
        for store in self._having(digest):
            try:
                return self._given(request, store, digest)
            except ServerError as error:
                if error.code != "blob-missing":
                    raise
        raise missing(digest)

    def _given(self, request: Request, store: BlobStore, digest: str) -> Response:
        """Answer out of one store, from which a message may just have gone.

        Raises:
          ServerError: blob-missing, server-disk.
        """
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        size = store.size(digest)
        wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
        if wanted is None or size == 0:
            return self._opened(store, digest, (0, size), whole=True, headers=headers)
        start = int(wanted[1])
        last = min(int(wanted[2] or size - 1), size - 1, start + CHUNK_BYTES - 1)
        if start >= size or last < start:
            headers["Content-Range"] = f"bytes */{size}"
            return Response(status_code=416, headers=headers)
        headers["Content-Range"] = f"bytes {start}-{last}/{size}"
        return self._opened(store, digest, (start, last + 1), whole=False, headers=headers)

    def _opened(
        self,
        store: BlobStore,
        digest: str,
        span: tuple[int, int],
        *,
        whole: bool,
        headers: dict[str, str],
    ) -> Response:
        try:
            path = store.path(digest)
            return _File(path, *span, whole=whole, headers=headers, sending=self._sending)
        except FileNotFoundError:
            raise missing(digest) from None
        except OSError as error:  # such as too many open files
            raise disk_failed(f"blob {digest}", str(error)) from error

    async def chunks(self, request: Request, principal: Principal, _digest: str | None) -> Response:
        """Tell the chunks' digests of a blob that is there, or how far its upload is."""
        digest = request.path_params["digest"]
        if principal.role in SUBMITTERS and "size" in request.query_params:  # it would be sent
            return answer(await self._uploads.progress(request, principal))
        for store in self._having(digest):
            try:
                digests = await in_thread(store.chunk_digests, digest)
                size = store.size(digest)
            except ServerError as error:
                if error.code != "blob-missing":
                    raise
                continue
            told = BlobChunks(size=size, chunk_bytes=CHUNK_BYTES, complete=True, digests=digests)
            return answer(told)
        if principal.role not in SUBMITTERS:
            raise missing(digest)
        return answer(await self._uploads.progress(request, principal))

    def _having(self, digest: str) -> Iterator[BlobStore]:
        """Give the stores that have a blob; before it is read it may go from the first of them."""
        hex_of(digest)
        return (store for store in self._stores if store.has(digest))


class _Checked:
    """Takes bytes that are there already, only to see that the sender has them."""

    def __init__(self, digest: str | None) -> None:
        self._digest = digest
        self._hash = blake3()

    def write(self, data: Bytes) -> None:
        self._hash.update(data)

    def commit(self) -> None:
        if self._hash.hexdigest() != self._digest:
            raise wrong_digest("the body", "their digest is another")


class _File(Response):
    """Sends a file, or part of it, in pieces; removed meanwhile, it is still sent.

    granian takes pieces for a client that has gone, so that is looked out for while a large one is
    sent.

    Args:
      path: of the file.
      start: of the part.
      end: of the part.
      whole: it is no part.
      headers: of the answer, besides its own.
      sending: the files that are on their way, which share the memory for pieces.
    """

    def __init__(
        self,
        path: Path,
        start: int,
        end: int,
        *,
        whole: bool,
        headers: dict[str, str],
        sending: set[_File],
    ) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        super().__init__(status_code=200 if whole else 206, media_type="application/octet-stream")
        self.headers.update(headers)
        self.headers["Content-Length"] = str(end - start)
        self._start, self._end, self._sending = start, end, sending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as ASGI asks for."""
        self._sending.add(self)
        # A small one is read whole before anybody would notice.
        small = self._end - self._start <= CHUNK_BYTES
        gone = None if small else asyncio.ensure_future(_gone(receive))
        try:
            start: dict[str, Any] = {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
            await send(start)
            if scope["method"] == "HEAD" or self._start == self._end:
                await send({"type": "http.response.body", "body": b""})
            else:
                await self._send_pieces(send, gone)
        finally:
            if gone is not None:
                gone.cancel()
            self._sending.discard(self)
            os.close(self._descriptor)

    async def _send_pieces(self, send: Send, gone: asyncio.Future[None] | None) -> None:
        """Send pieces, read here while the system's cache has them; see `_take`."""
        at, swift = self._start, True
        while at < self._end and not (gone is not None and gone.done()):
            room = max(SENDING_BYTES // len(self._sending), SENDING_PIECE_BYTES_MIN)
            length = min(PIECE_BYTES, room, self._end - at)
            if swift:
                began = monotonic()
                piece = os.pread(self._descriptor, length, at)
                swift = monotonic() - began < DISK_HERE_S
            else:
                piece = await in_thread(os.pread, self._descriptor, length, at)
            if not piece:
                break  # the file is shorter than it was; the client sees it by the length
            at += len(piece)
            more = at < self._end
            await send({"type": "http.response.body", "body": piece, "more_body": more})


async def _gone(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _take(
    parts: AsyncIterator[bytes], writer: Any, *, size: int, disk: _Disk, light: bool = False
) -> None:
    """Give a body to a writer and commit it.

    While the system's cache takes pieces at once, they are written here, for to hand one to another
    thread takes longer.  Once it does not, one is written while the next one comes.

    Args:
      parts: of the body.
      writer: takes it.
      size: in bytes.
      disk: that it goes to.
      light: to commit it does not wait for the disk.

    Raises:
      ServerError: blob-too-large or blob-digest; server-disk-full or server-disk.
    """
    taken, waiting, held, swift = 0, list[bytes](), 0, disk.is_swift()
    writing: asyncio.Future[None] | None = None
    try:
        async for part in parts:
            taken += len(part)
            if taken > size:
                raise too_large("The body", f"more than the {size} bytes announced")
            if swift:
                began = monotonic()
                writer.write(part)
                swift = disk.took(monotonic() - began)
                continue
            waiting.append(part)
            held += len(part)
            if held >= UPLOAD_PIECE_BYTES:
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(in_thread(_write, writer, waiting))
                waiting, held = [], 0
        if writing is not None:
            await writing
            writing = None
        if light and swift:
            writer.commit()
        else:
            await in_thread(_write_last, writer, waiting)
    except ClientDisconnect:
        raise wrong_digest("the body", f"the connection ended after {taken} bytes") from None
    finally:
        if writing is not None:
            await asyncio.wait([writing])


def _write(writer: _Writer, parts: list[bytes]) -> None:
    for part in parts:
        writer.write(part)


def _write_last(writer: Any, parts: list[bytes]) -> None:
    _write(writer, parts)
    writer.commit()


def _announced(request: Request, *, limit: int) -> int:
    """Return the body's announced size.

    Raises:
      ServerError: blob-too-large, it is beyond the limit, or is not announced.
    """
    text = request.headers.get("Content-Length", "")
    if not WHOLE.fullmatch(text):
        raise too_large("The body", "no announced size")
    if int(text) > limit:
        raise too_large("The body", f"{text} bytes, more than {limit}")
    return int(text)


def _number(text: str, what: str) -> int:
    if not WHOLE.fullmatch(text):
        raise ServerError(
            "blob-address",
            f"{text[:40]!r} is not the {what}.",
            "It is a whole number in decimal digits, from 0 on.",
        )
    return int(text)
