"""Blobs on their way: in chunks, several at once, resumed after a cut, checked at the end."""

from __future__ import annotations

import contextlib
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from blake3 import blake3

from hansa.errors import RequestRefused, ServerError
from hansa.limits import BLOB_BYTES_MAX, CHUNK_BYTES, PIECE_BYTES, TRANSFERS_MAX
from hansa.protocol.connection import Connection, Pieces
from hansa.protocol.messages import BlobChunks, BlobRef, TaskKey
from hansa.store.addresses import chunk_count, digest_of, digest_of_file, hex_of, mapped
from hansa.store.faults import disk_faults, wrong_digest
from hansa.store.files import write_all
from hansa.store.spares import NO_SPARES, Spares

Place = Literal["blobs", "updates"]

_TOO_LARGE = 413


def upload(
    connection: Connection,
    source: str | os.PathLike[str] | bytes | memoryview,
    *,
    to: Place,
    ref: BlobRef | None = None,
    task: TaskKey | None = None,
    on_chunk: Callable[[int], None] | None = None,
    on_sent: Callable[[int], None] | None = None,
) -> BlobRef:
    """Send a blob, or what the server lacks of it; resending is always safe.

    Args:
      source: path of a file that does not change meanwhile, or the bytes.
      to: `blobs`, what people submit; `updates`, what a site computed.
      ref: digest and size, where the caller knows them; the server checks both.
      task: what an update was computed for.
      on_chunk: told the number of each chunk that has left, from any thread.
      on_sent: told the bytes of each body before it leaves, from any thread.

    Raises:
      RequestRefused, ServerError, IdentityError: as `Connection.request`; call again to resume.
      OSError: the file cannot be read.
    """
    with _opened(source) as data:
        if ref is None or ref.size != len(data):
            ref = BlobRef(digest=digest_of(data), size=len(data))
        path = f"/v1/{to}/{ref.digest}"
        whose = "" if task is None else f"run={task.run}&round={task.round}"
        query, have = f"size={len(data)}" + (f"&{whose}" if whose else ""), list[int]()
        if len(data) > CHUNK_BYTES:
            there = connection.call("GET", f"{path}/chunks?{query}", kind=BlobChunks)
            if there.complete:
                return ref
            have = there.have
        whole = Pieces(data, CHUNK_BYTES, on_chunk or _unheard)
        target = f"{path}?{whose}" if whose else path
        if have or not _sent_whole(connection, target, whole, ref=ref, on_sent=on_sent):
            _upload_chunks(connection, path, data, have, query, on_chunk, on_sent)
    return ref


def _unheard(_: int) -> None:
    """Tell nobody."""


def _sent_whole(
    connection: Connection,
    path: str,
    body: Pieces,
    *,
    ref: BlobRef,
    on_sent: Callable[[int], None] | None,
) -> bool:
    """Send a blob in one stream; False if something on the way takes no body as large."""
    try:
        _send(connection, path, body, digest=hex_of(ref.digest), on_sent=on_sent)
    except RequestRefused as refusal:
        if refusal.status != _TOO_LARGE or ref.size <= CHUNK_BYTES:
            raise
        return False  # such as a proxy that was set for chunks
    return True


def _upload_chunks(
    connection: Connection,
    path: str,
    data: memoryview,
    have: Sequence[int],
    query: str,
    on_chunk: Callable[[int], None] | None,
    on_sent: Callable[[int], None] | None,
) -> None:
    count = chunk_count(len(data))
    completed = threading.Event()

    def send(n: int) -> None:
        with data[n * CHUNK_BYTES : (n + 1) * CHUNK_BYTES] as chunk:
            digest = blake3(chunk).hexdigest()
            target = f"{path}/chunks/{n}?{query}"
            answer = _send(connection, target, chunk, digest=digest, on_sent=on_sent)
        if msgspec.json.decode(answer, type=BlobChunks).complete:
            completed.set()
        if on_chunk is not None:
            on_chunk(n)

    _at_once(send, sorted(set(range(count)) - set(have)))
    if not completed.is_set():
        raise ServerError(
            "server-unreachable",
            f"{connection.url} has every chunk of {path}, and does not have the whole.",
            "Send it again; if it happens often, look at the server's log.",
        )


def _send(
    connection: Connection,
    path: str,
    body: memoryview | Pieces,
    *,
    digest: str,
    on_sent: Callable[[int], None] | None,
) -> bytes:
    if on_sent is not None:
        on_sent(len(body))
    return connection.request("PUT", path, body=body, digest=digest).body


def _at_once(do: Callable[[int], None], numbers: Sequence[int]) -> None:
    """Call a function for each number, a few at a time; the first error ends it."""
    stopped = threading.Event()

    def unless_stopped(n: int) -> None:
        if not stopped.is_set():
            do(n)

    with ThreadPoolExecutor(min(TRANSFERS_MAX, max(1, len(numbers)))) as pool:
        tasks = [pool.submit(unless_stopped, n) for n in numbers]
        try:
            wait(tasks, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()
    for task in tasks:
        task.result()


class Known(NamedTuple):
    """A file that may share chunks with one to be fetched, such as the last round's message."""

    path: Path
    chunks: Sequence[str] = ()  # BLAKE3 of each as hex digits, where that is known


def download(
    connection: Connection,
    ref: BlobRef,
    target: Path,
    *,
    known: Sequence[Known] = (),
    spares: Spares = NO_SPARES,
) -> Sequence[str]:
    """Fetch a blob into a file, which is there whole and checked, or as it was.

    The first try is one stream.  What a cut has left of it is in `<target>.part`; from then on,
    and if a known file shares chunks with it, the blob is put together from chunks: those that are
    there, those that a known file has, and the others from the server, a few at a time.

    Args:
      connection: to the server.
      ref: digest and size of the blob.
      target: the file.
      known: files that may share chunks with it.
      spares: files that may be written over.

    Returns:
      BLAKE3 of each chunk, for the next call's `known`; empty if nobody asked for them.

    Raises:
      RequestRefused, ServerError, IdentityError: as `Connection.request`; blob-digest, what came
        is not what was asked for; server-disk-full or server-disk, it cannot be written.
    """
    if ref.size > BLOB_BYTES_MAX:
        raise wrong_digest(ref.digest, f"{ref.size} bytes are more than a blob may have")
    part, digests = target.with_name(f"{target.name}.part"), list[str]()
    with disk_faults(str(target), spares):
        large = ref.size > CHUNK_BYTES
        sources = [file for file in known if large and file.path.is_file()]
        if large and (sources or part.exists()):
            digests = _chunks_of(connection, ref)
            sources = [file for file in sources if _shares(file, digests)]
        if sources or (digests and part.exists()):
            _fetch_chunks(connection, ref, part, digests, known=sources, spares=spares)
        else:
            _fetch_whole(connection, ref, part, spares)
        os.replace(part, target)
    return digests


def _chunks_of(connection: Connection, ref: BlobRef) -> list[str]:
    """Return what the server says of a blob's chunks; the digest of the whole decides."""
    there = connection.call("GET", f"/v1/blobs/{ref.digest}/chunks", kind=BlobChunks)
    fits = there.size == ref.size and there.chunk_bytes == CHUNK_BYTES
    if not fits or len(there.digests) != chunk_count(ref.size):
        raise wrong_digest(ref.digest, f"the server has it with {there.size} bytes")
    return there.digests


def _shares(file: Known, digests: Sequence[str]) -> bool:
    """Tell whether a file has a chunk in the same place; one of unknown digests is read."""
    if file.chunks:
        return any(map(operator.eq, file.chunks, digests))
    with mapped(file.path) as data:
        starts = range(0, len(data), CHUNK_BYTES)
        return any(
            _is(data[at : at + CHUNK_BYTES], digest)
            for at, digest in zip(starts, digests, strict=False)
        )


def _fetch_whole(connection: Connection, ref: BlobRef, part: Path, spares: Spares) -> None:
    part.unlink(missing_ok=True)
    with spares.open(part, ref.size) as file:

        def write(data: bytes, _at: int) -> None:
            with disk_faults(f"blob {ref.digest}", spares):  # not trouble of the network
                write_all(file, data)

        hasher = _fetch(connection, ref, (0, ref.size), write)
    if f"blake3:{hasher.hexdigest()}" != ref.digest:
        part.unlink()
        raise wrong_digest(ref.digest, "their digest is another")


def _fetch_chunks(
    connection: Connection,
    ref: BlobRef,
    part: Path,
    digests: Sequence[str],
    *,
    known: Sequence[Known],
    spares: Spares,
) -> None:
    with contextlib.ExitStack() as files:
        sources = [files.enter_context(mapped(file.path)) for file in known]
        begun = part.exists()  # what a cut has left
        if not begun:
            spares.open(part, ref.size).close()
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o600)
        files.callback(os.close, descriptor)
        os.ftruncate(descriptor, ref.size)

        def write(data: bytes | memoryview, at: int) -> None:
            with disk_faults(f"blob {ref.digest}", spares):  # as above
                _write_at(descriptor, data, at)

        def fetch(n: int) -> None:
            start = n * CHUNK_BYTES
            end = min(start + CHUNK_BYTES, ref.size)
            if begun and _is(os.pread(descriptor, end - start, start), digests[n]):
                return
            for source in sources:
                with source[start:end] as piece:
                    if _is(piece, digests[n]):
                        write(piece, start)
                        return
            hasher = _fetch(connection, ref, (start, end), write)
            if hasher.hexdigest() != digests[n]:
                raise wrong_digest(f"chunk {n} of {ref.digest}", "their digest is another")

        _at_once(fetch, range(len(digests)))
    if digest_of_file(part) != (ref.digest, ref.size):
        part.unlink()
        raise wrong_digest(ref.digest, "the digest of the whole is another")


def _is(data: bytes | memoryview, digest: str) -> bool:
    return blake3(data).hexdigest() == digest


def _fetch(
    connection: Connection,
    ref: BlobRef,
    span: tuple[int, int],
    write: Callable[[bytes, int], None],
) -> blake3:
    """Give the bytes of a span of a blob to `write`, piece by piece; return their hash."""
    at, end = span
    headers = {} if span == (0, ref.size) else {"Range": f"bytes={at}-{end - 1}"}
    hasher = blake3()
    with connection.stream("GET", f"/v1/blobs/{ref.digest}", headers=headers) as response:
        announced = response.headers.get("Content-Length")
        if announced != str(end - at):
            raise wrong_digest(ref.digest, f"{announced} bytes came instead of {end - at}")
        while at < end:
            data = response.read(min(PIECE_BYTES, end - at))
            if not data:
                raise wrong_digest(ref.digest, f"{end - at} bytes are missing")
            hasher.update(data)
            write(data, at)
            at += len(data)
    return hasher


def _write_at(descriptor: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


@contextlib.contextmanager
def _opened(source: str | os.PathLike[str] | bytes | memoryview) -> Iterator[memoryview]:
    if isinstance(source, bytes | memoryview):
        yield memoryview(source).cast("B")
    else:
        with mapped(source) as data:
            yield data
