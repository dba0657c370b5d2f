"""A large blob on its way: chunks in any order, into one file, whatever gets in between.

Beside the file of bytes, `<name>.part`, lies one of marks, `<name>.have`: one byte for each chunk,
set once its bytes are written and, where they came alone, match the digest that their sender
signed.  Neither file is synchronised; whether a crash has spoilt something shows when the whole is
hashed: while it comes if it comes in one stream, else at the end.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from hansa.errors import ServerError
from hansa.failpoints import hit
from hansa.limits import CHUNK_BYTES
from hansa.store.addresses import Bytes, chunk_count, digest_of_file
from hansa.store.faults import disk_faults, too_large, wrong_digest
from hansa.store.files import write_all

if TYPE_CHECKING:
    from hansa.store.blobs import BlobStore


class ChunkedUpload:
    """The upload of one blob; made by `BlobStore.chunks`.

    Attributes:
      size: bytes of the whole blob.
      count: chunks it has; all but the last have CHUNK_BYTES bytes.
    """

    def __init__(self, store: BlobStore, stem: Path, digest: str, *, size: int) -> None:
        self.digest = digest
        self.size = size
        self.count = chunk_count(size)
        self._store = store
        self._name = stem.name
        self._part = stem.with_name(f"{stem.name}.part")
        self._marks = stem.with_name(f"{stem.name}.have")
        self._lock = threading.Lock()
        self._ending = threading.Lock()  # held while the whole is hashed, which takes long
        self._closed = False  # meanwhile nothing is begun anew
        self._writers: dict[int, ChunkWriter] = {}
        self._done = False
        self._have = self._read_marks()

    def _read_marks(self) -> set[int]:
        """Return the chunks that an earlier process has taken."""
        if not self._part.exists() or self._part.stat().st_size != self.size:
            for path in (self._marks, self._part):
                path.unlink(missing_ok=True)
            return set()
        with contextlib.suppress(FileNotFoundError):
            marks = self._marks.read_bytes()[: self.count]
            return {n for n, mark in enumerate(marks) if mark == 1}
        return set()

    @property
    def have(self) -> list[int]:
        """Numbers of the chunks that are there."""
        with self._lock:
            return sorted(self._have)

    def length(self, n: int) -> int:
        """Return how many bytes a chunk has.

        Raises:
          ServerError: blob-address, there is no such chunk.
        """
        if not 0 <= n < self.count:
            raise ServerError(
                "blob-address",
                f"{self.digest} with {self.size} bytes has no chunk {n}.",
                f"Its chunks are 0 to {self.count - 1}, of {CHUNK_BYTES} bytes each.",
            )
        return min(CHUNK_BYTES, self.size - n * CHUNK_BYTES)

    def stream(self) -> StreamWriter:
        """Return a writer of the whole, from its first byte on."""
        return StreamWriter(self)

    def writer(self, n: int, digest: str | None) -> ChunkWriter:
        """Return a writer for a chunk; an earlier one for the same chunk is cut off.

        Args:
          digest: BLAKE3 of the chunk's bytes, as hex digits; None: only the whole is checked.

        Raises:
          ServerError: blob-address, server-disk-full or server-disk.
        """
        length = self.length(n)
        with self._lock, disk_faults(f"blob {self.digest}", self._store.spares):
            if not (self._done or self._closed or self._part.exists()):
                self._have.clear()  # swept away, or dropped for newer ones
                self._marks.unlink(missing_ok=True)
                with self._store.spares.open(self._part, self.size) as file:
                    file.truncate(self.size)
            writer = ChunkWriter(self, n, digest, length=length)
            if n not in self._have and not self._done:
                # The one before may belong to a connection that is dead without our knowing.
                self._writers[n] = writer
        return writer

    def write_at(self, writer: ChunkWriter, offset: int, data: Bytes) -> bool:
        """Write bytes of a chunk, unless it is there or somebody else's by now; tell whether."""
        with self._lock, disk_faults(f"blob {self.digest}", self._store.spares):
            if self._writers.get(writer.n) is not writer:
                return False
            with open(self._part, "rb+", buffering=0) as file:
                file.seek(writer.n * CHUNK_BYTES + offset)
                write_all(file, data)
        return True

    def mark(self, writer: ChunkWriter) -> None:
        """Record that a chunk is there; its bytes have been checked."""
        with self._lock, disk_faults(f"blob {self.digest}", self._store.spares):
            if self._writers.pop(writer.n, None) is not writer:
                if writer.n in self._have or self._done:
                    return  # it was there before
                raise ServerError(
                    "blob-digest",
                    f"Chunk {writer.n} of {self.digest} is being sent by two connections.",
                    "Nothing was kept of the earlier one; send the chunk again.",
                )
            hit("before_chunk_recorded")
            descriptor = os.open(self._marks, os.O_WRONLY | os.O_CREAT, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                file.seek(writer.n)
                file.write(b"\x01")
            self._have.add(writer.n)
        hit("after_chunk_recorded")

    def release(self, writer: ChunkWriter) -> None:
        """Let go of a chunk that did not come whole."""
        with self._lock:
            if self._writers.get(writer.n) is writer:
                del self._writers[writer.n]

    def complete(self, *, hashed: bool = False) -> bool:
        """Make it a blob if every chunk is there; tell whether the blob is there.

        Args:
          hashed: every byte was hashed when it was written, and the whole is what was announced.

        Raises:
          ServerError: blob-digest, the whole is not what was announced, and all of it is dropped;
            server-disk-full or server-disk.
        """
        with self._ending:
            with self._lock:
                if self._done:
                    return True
                if len(self._have) < self.count or not self._part.exists():
                    return False
                self._closed = True
            good = False
            try:
                with disk_faults(f"blob {self.digest}", self._store.spares):
                    whole = self._part.stat().st_size == self.size
                    good = whole and (hashed or digest_of_file(self._part)[0] == self.digest)
                if good:
                    self._finish()
            except BaseException:
                good = False
                raise
            finally:
                with self._lock:
                    self._drop()  # after a failed fsync, too: a second one would prove nothing
                    self._closed, self._done = False, good
                self._store.forget_upload(self._name)
        if not good:
            raise wrong_digest(self.digest, "the digest of the whole is another")
        return True

    def _finish(self) -> None:
        if self._store.durable:
            with disk_faults(f"blob {self.digest}"), self._part.open("rb+") as file:
                os.fsync(file.fileno())
        self._store.adopt(self._part, self.digest)

    def _drop(self) -> None:
        self._have.clear()
        self._writers.clear()
        for path in (self._marks, self._part):
            with contextlib.suppress(OSError):
                path.unlink()


class ChunkWriter:
    """Takes the bytes of one chunk; in a `with`, what was not committed does not count."""

    def __init__(self, upload: ChunkedUpload, n: int, digest: str | None, *, length: int) -> None:
        self.n = n
        self.left = length  # bytes that are still to come
        self.alone = True  # nobody else wrote any byte of the chunk
        self._upload = upload
        self._digest = digest
        self._taken = 0
        self._hash = blake3()

    def __enter__(self) -> ChunkWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, data: Bytes) -> None:
        """Take some more bytes.

        Raises:
          ServerError: blob-too-large, server-disk-full or server-disk.
        """
        if len(data) > self.left:
            what = f"Chunk {self.n} of {self._upload.digest}"
            raise too_large(what, f"more than its {self._taken + self.left} bytes")
        self.alone &= self._upload.write_at(self, self._taken, data)
        if self._digest is not None:
            self._hash.update(data)
        self._taken += len(data)
        self.left -= len(data)

    def commit(self) -> None:
        """Check the chunk, and mark it as there.

        Raises:
          ServerError: blob-digest, server-disk-full or server-disk.
        """
        what = f"chunk {self.n} of {self._upload.digest}"
        if self.left:
            raise wrong_digest(what, f"{self.left} bytes are missing")
        if self._digest is not None and self._hash.hexdigest() != self._digest:
            raise wrong_digest(what, "their digest is another")
        self._upload.mark(self)

    def abort(self) -> None:
        """Give the chunk up; does nothing after `commit`."""
        self._upload.release(self)


class StreamWriter:
    """Takes the whole in one stream; after a cut, the chunks that came are there.

    In a `with`; nothing is a blob before `commit`.
    """

    def __init__(self, upload: ChunkedUpload) -> None:
        self._upload = upload
        self._left = upload.size
        self._hash = blake3()
        self._alone = True
        self._next = 0
        self._chunk: ChunkWriter | None = None

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, data: Bytes) -> None:
        """Take some more bytes.

        Raises:
          ServerError: blob-too-large, blob-digest, server-disk-full or server-disk.
        """
        view = memoryview(data).cast("B")
        if len(view) > self._left:
            raise too_large(self._upload.digest, f"more than the {self._upload.size} bytes")
        self._left -= len(view)
        self._hash.update(view)
        while view:
            if self._chunk is None:
                self._chunk = self._upload.writer(self._next, None)
            taken = min(self._chunk.left, len(view))
            self._chunk.write(view[:taken])
            view = view[taken:]
            if not self._chunk.left:
                self._chunk.commit()
                self._alone &= self._chunk.alone
                self._chunk, self._next = None, self._next + 1

    def commit(self) -> None:
        """Make it a blob.

        Raises:
          ServerError: blob-digest, and all of it is dropped; server-disk-full or server-disk.
        """
        if self._left:
            raise wrong_digest(self._upload.digest, f"{self._left} bytes are missing")
        right = f"blake3:{self._hash.hexdigest()}" == self._upload.digest
        if not self._upload.complete(hashed=right and self._alone):
            # Another connection's bytes were wrong, and what both had sent is gone.
            raise wrong_digest(self._upload.digest, "chunks of it were dropped meanwhile")

    def abort(self) -> None:
        """Give up the chunk that did not come whole; does nothing after `commit`."""
        if self._chunk is not None:
            self._chunk.abort()
