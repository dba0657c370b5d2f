"""Files known by the digest of their bytes: written once, never changed, whole or not there.

A blob that must survive a loss of power is synchronised before it takes its name, `<hex>`.  One
that its sender would send again is not: its name is `<hex>~`, and `sweep` looks at its bytes before
it counts as there after a restart.  One that becomes durable while it is read has both for a while.
What is still arriving lies beside them, as `<random>.tmp`, or in chunks in the folder `partial`.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from hansa.clock import wall
from hansa.failpoints import hit
from hansa.limits import (
    BLOB_BYTES_MAX,
    CHUNK_BYTES,
    CHUNK_LISTS_MAX,
    PARTIAL_AGE_S,
    PARTIAL_UPLOADS_MAX,
)
from hansa.store.addresses import Bytes, digest_of, digest_of_file, hex_of, mapped
from hansa.store.faults import disk_faults, missing, too_large, wrong_digest
from hansa.store.files import link_or_copy_whole, sync_folder, write_all
from hansa.store.partials import ChunkedUpload
from hansa.store.spares import NO_SPARES, Spares

_STORED = re.compile(r"([0-9a-f]{64})~?", re.ASCII)


class BlobWriter:
    """Takes the bytes of one blob, of which nothing is seen before `commit`.

    Use it in a `with`: what was not committed is removed.
    """

    def __init__(self, store: BlobStore, digest: str, size: int, *, durable: bool) -> None:
        self._store = store
        self._digest = digest
        self._left = self._size = size
        self._durable = durable
        self._hash = blake3()
        self._temporary: Path | None = store.new_temporary()
        with disk_faults(f"blob {digest}", store.spares):
            try:
                self._file = store.spares.open(self._temporary, size)
            except OSError:
                store.drop_temporary(self._temporary)
                raise

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, data: Bytes) -> None:
        """Take some more bytes.

        Raises:
          ServerError: blob-too-large, more than announced; server-disk-full; or server-disk.
        """
        if len(data) > self._left:
            raise too_large(self._digest, f"more than the {self._size} bytes announced")
        with disk_faults(f"blob {self._digest}", self._store.spares):
            write_all(self._file, data)
        self._hash.update(data)
        self._left -= len(data)

    def commit(self) -> None:
        """Check size and digest, and give the blob its name.

        Raises:
          ServerError: blob-digest, server-disk-full or server-disk; the blob is not there then.
        """
        assert self._temporary is not None, "committed or aborted before"
        try:
            if self._left:
                raise wrong_digest(self._digest, f"{self._left} bytes are missing")
            if f"blake3:{self._hash.hexdigest()}" != self._digest:
                raise wrong_digest(self._digest, "their digest is another")
            with disk_faults(f"blob {self._digest}", self._store.spares):
                if self._durable:
                    os.fsync(self._file.fileno())
                self._file.close()
            self._store.adopt(self._temporary, self._digest, durable=self._durable)
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove what was written; does nothing after `commit`, and the second time."""
        if self._temporary is None:
            return
        with contextlib.suppress(OSError):
            self._file.close()
        self._store.drop_temporary(self._temporary)
        self._temporary = None


class BlobStore:
    """A folder of blobs.  All methods may be called from any thread.

    Args:
      folder: made if it is not there.  One process writes to it.
      durable: whether blobs survive a loss of power when a method does not say.
      spares: get the files that are removed, and are written over.

    Raises:
      ServerError: server-disk or server-disk-full.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, durable: bool, spares: Spares = NO_SPARES
    ) -> None:
        self.folder = Path(folder)
        self.durable = durable
        self.spares = spares
        self._partial = self.folder / "partial"
        self._lock = threading.Lock()
        self._open: set[Path] = set()  # temporary files of this process
        self._written: set[str] = set()  # names of blobs that no loss of power can have touched
        self._uploads: dict[str, ChunkedUpload] = {}
        self._chunk_lists: OrderedDict[str, list[str]] = OrderedDict()
        self._hashing = threading.Lock()  # one at a time: hashing uses every core
        with disk_faults(str(self.folder)):
            self.folder.mkdir(parents=True, exist_ok=True)
            if durable:
                # A crash may have left names that were not synchronised, of files that were.
                sync_folder(self.folder)

    def path(self, digest: str) -> Path:
        """Return where the blob is, or would be."""
        name = hex_of(digest)
        durable, light = self.folder / name, self.folder / f"{name}~"
        return durable if durable.exists() or not light.exists() else light

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there, whole."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """Return its number of bytes.

        Raises:
          ServerError: blob-missing.
        """
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise missing(digest) from None

    def intact(self, digest: str) -> bool:
        """Tell whether the blob is there and its bytes are those of its digest: reads them all."""
        try:
            return digest_of_file(self.path(digest))[0] == digest
        except OSError:
            return False

    def writer(self, digest: str, size: int, *, durable: bool | None = None) -> BlobWriter:
        """Return a writer for a blob of this digest and number of bytes.

        Raises:
          ServerError: blob-address, blob-too-large, server-disk-full or server-disk.
        """
        hex_of(digest)
        _check_size(digest, size)
        return BlobWriter(self, digest, size, durable=self._is_durable(durable))

    def put(
        self, digest: str, chunks: Iterable[Bytes], *, size: int, durable: bool | None = None
    ) -> None:
        """Store a blob from its parts.

        Raises:
          ServerError: as `writer`, and blob-digest.
        """
        with self.writer(digest, size, durable=durable) as writer:
            for chunk in chunks:
                writer.write(chunk)
            writer.commit()

    def put_bytes(
        self, data: Bytes | Sequence[Bytes], *, durable: bool | None = None
    ) -> tuple[str, int]:
        """Store bytes, or several one after the other; return the blob's digest and size.

        Raises:
          ServerError: server-disk-full or server-disk.
        """
        parts: Sequence[Bytes] = data if isinstance(data, list | tuple) else [data]  # type: ignore[list-item]
        digest = digest_of(*parts)
        if self._is_there(digest, durable):
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.path(digest))  # it is as new as one that was written now
        else:
            self._write(digest, parts, durable=durable)
        return digest, sum(memoryview(part).nbytes for part in parts)

    def harden(self, digest: str) -> bool:
        """Synchronise a blob that may be read meanwhile; it keeps both names until `settle`.

        Returns:
          whether it is there.

        Raises:
          ServerError: server-disk-full or server-disk.
        """
        durable, light = self.folder / hex_of(digest), self.folder / f"{hex_of(digest)}~"
        if not durable.exists():
            if not light.exists():
                return False
            temporary = self.new_temporary()
            try:
                with disk_faults(f"blob {digest}", self.spares):
                    link_or_copy_whole(light, temporary)
                    hit("before_blob_renamed")
                    os.replace(temporary, durable)
                    self._sync_name(durable)
                hit("after_blob_renamed")
            finally:
                self.drop_temporary(temporary)
        return True

    def settle(self, digest: str) -> None:
        """Take from a blob the name that it had before it was durable."""
        name = hex_of(digest)
        if (self.folder / name).exists():
            (self.folder / f"{name}~").unlink(missing_ok=True)
            self._written.discard(f"{name}~")

    def _write(self, digest: str, parts: Sequence[Bytes], *, durable: bool | None) -> None:
        """Write the bytes of a blob whose digest is known."""
        temporary = self.new_temporary()
        try:
            with disk_faults(f"blob {digest}", self.spares):
                self._write_file(temporary, parts)
                if self._is_durable(durable):
                    _sync_file(temporary)
            self.adopt(temporary, digest, durable=durable)
        finally:
            self.drop_temporary(temporary)

    def chunks(self, digest: str, size: int, *, owner: str = "") -> ChunkedUpload:
        """Return the upload of a large blob, as far as it came.

        Args:
          owner: whose upload it is; nobody can spoil another's.

        Raises:
          ServerError: blob-address, blob-too-large, server-disk-full or server-disk.
        """
        _check_size(digest, size)
        name = self._upload_name(digest, size, owner)
        with self._lock:
            upload = self._uploads.get(name)
            if upload is None:
                with disk_faults(f"blob {digest}", self.spares):
                    self._partial.mkdir(exist_ok=True)
                    self._make_room(name)
                    upload = ChunkedUpload(self, self._partial / name, digest, size=size)
                self._uploads[name] = upload
        return upload

    def have(self, digest: str, size: int, *, owner: str = "") -> list[int]:
        """Return which chunks of a blob its owner has sent; unlike `chunks`, begins nothing."""
        if not self.part(digest, size, owner=owner).exists():
            return []
        return self.chunks(digest, size, owner=owner).have

    def part(self, digest: str, size: int, *, owner: str = "") -> Path:
        """Return where a blob lies that its owner sends in chunks, as long as it is not whole."""
        return self._partial / f"{self._upload_name(digest, size, owner)}.part"

    def drop_upload(self, digest: str, size: int, *, owner: str = "") -> None:
        """Drop an upload in chunks, as far as it came."""
        with self._lock:
            self._drop_upload(self.part(digest, size, owner=owner))

    def _drop_upload(self, part: Path) -> None:
        self._uploads.pop(part.stem, None)
        part.with_suffix(".have").unlink(missing_ok=True)
        part.unlink(missing_ok=True)

    def chunk_digests(self, digest: str) -> list[str]:
        """Return the BLAKE3 of each chunk of a blob, as hex digits.

        Raises:
          ServerError: blob-missing.
        """
        with self._hashing:
            known = self._chunk_lists.get(digest)
            if known is None:
                known = self._hash_chunks(digest)
                self._chunk_lists[digest] = known
                if len(self._chunk_lists) > CHUNK_LISTS_MAX:
                    self._chunk_lists.popitem(last=False)
            return known

    def _hash_chunks(self, digest: str) -> list[str]:
        try:
            with mapped(self.path(digest)) as data:
                pieces = (data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES))
                return [digest_of(piece).removeprefix("blake3:") for piece in pieces]
        except FileNotFoundError:
            raise missing(digest) from None

    def remove(self, digest: str) -> None:
        """Remove a blob, if it is there; whoever reads it meanwhile may finish."""
        name = hex_of(digest)
        for path in (self.folder / name, self.folder / f"{name}~"):
            self.spares.give(path)
        self._written.discard(f"{name}~")
        with self._hashing:
            self._chunk_lists.pop(digest, None)

    def digests(self) -> Iterator[str]:
        """Give the digest of every blob."""
        names = {m[1] for m in map(_STORED.fullmatch, os.listdir(self.folder)) if m}
        yield from (f"blake3:{name}" for name in sorted(names))

    def begun(self) -> set[str]:
        """Return the digests of all blobs, and of those whose upload in chunks has begun."""
        parts = {path.name.partition(".")[0] for path in self._partial.glob("*.part")}
        return {*self.digests(), *(f"blake3:{name}" for name in parts)}

    def sweep_partials(self, *, older_s: float = PARTIAL_AGE_S) -> int:
        """Remove what a crash has left; the process that serves calls it when it starts.

        That is: files of writers that are gone, uploads that nobody went on with for `older_s`,
        and blobs without synchronisation whose bytes did not survive.

        Returns:
          how many files were removed.
        """
        with self._lock, disk_faults(str(self.folder)):
            left = [path for path in self.folder.glob("*.tmp") if path not in self._open]
            begun = self._partial.glob("*")
            left += [path for path in begun if path.stat().st_mtime < wall() - older_s]
            for path in left:
                path.unlink()
                self._uploads.pop(path.stem, None)
            removed = len(left)
        for path in self.folder.glob("*~"):
            if path.name in self._written or not _STORED.fullmatch(path.name):
                continue
            twice = (self.folder / path.name[:-1]).exists()  # it was becoming durable
            if not twice and digest_of_file(path)[0] == f"blake3:{path.name[:-1]}":
                self._written.add(path.name)
            else:
                path.unlink()
                removed += 1
        return removed

    def backup(self, folder: str | os.PathLike[str]) -> int:
        """Link or copy every synchronised blob into another folder; return how many there are.

        Raises:
          ServerError: server-disk-full or server-disk.
        """
        target = Path(folder)
        names = [n for n in os.listdir(self.folder) if _STORED.fullmatch(n) and n[-1] != "~"]
        with disk_faults(f"a backup in {target}"):
            target.mkdir(parents=True, exist_ok=True)
            for name in names:
                if not (target / name).exists():
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        link_or_copy_whole(self.folder / name, target / name)
            sync_folder(target)
        return len(names)

    def new_temporary(self) -> Path:
        """Return a new path for bytes that are not a blob yet."""
        path = self.folder / f"{os.urandom(8).hex()}.tmp"
        with self._lock:
            self._open.add(path)
        return path

    def drop_temporary(self, path: Path) -> None:
        """Remove a temporary file, if it is still there."""
        with contextlib.suppress(OSError):
            path.unlink()
        with self._lock:
            self._open.discard(path)

    def forget_upload(self, name: str) -> None:
        """Drop an upload that ended, from memory."""
        with self._lock:
            self._uploads.pop(name, None)

    def adopt(self, file: Path, digest: str, *, durable: bool | None = None) -> None:
        """Give a file its name as a blob; whoever calls has checked and synchronised its bytes."""
        name = hex_of(digest)
        hit("before_blob_renamed")
        with disk_faults(f"blob {digest}", self.spares):
            if not self._is_durable(durable):
                self._written.add(f"{name}~")
                os.replace(file, self.folder / f"{name}~")
                return
            os.replace(file, self.folder / name)
            self._sync_name(self.folder / name)
            (self.folder / f"{name}~").unlink(missing_ok=True)
            self._written.discard(f"{name}~")
        hit("after_blob_renamed")

    def _write_file(self, path: Path, parts: Sequence[Bytes]) -> None:
        with self.spares.open(path, sum(memoryview(part).nbytes for part in parts)) as file:
            for part in parts:
                write_all(file, part)

    def _sync_name(self, path: Path) -> None:
        try:
            sync_folder(self.folder)
        except OSError:
            # Nobody may be told that it is there, and nobody shall find it there later.
            path.unlink(missing_ok=True)
            raise

    def _is_durable(self, durable: bool | None) -> bool:
        return self.durable if durable is None else durable

    def _is_there(self, digest: str, durable: bool | None) -> bool:
        """Tell whether the blob is there, and synchronised if that is asked for."""
        name = hex_of(digest)
        if (self.folder / name).exists():
            return True
        return not self._is_durable(durable) and (self.folder / f"{name}~").exists()

    def _upload_name(self, digest: str, size: int, owner: str) -> str:
        """Return the name of an upload's files, the last part the same for all of an owner's."""
        return f"{hex_of(digest)}.{size}.{blake3(owner.encode()).hexdigest(length=8)}"

    def _make_room(self, name: str) -> None:
        """Drop the oldest uploads of an owner who has begun too many."""
        mine = name.rpartition(".")[2]
        if (self._partial / f"{name}.part").exists():
            return
        begun = sorted(self._partial.glob(f"*.{mine}.part"), key=lambda p: p.stat().st_mtime)
        for path in begun[: max(0, len(begun) - PARTIAL_UPLOADS_MAX + 1)]:
            self._drop_upload(path)


def _check_size(digest: str, size: int) -> None:
    if not 0 <= size <= BLOB_BYTES_MAX:
        raise too_large(digest[:80], f"{size} bytes")


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
