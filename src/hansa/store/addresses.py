"""Addresses of blobs: the BLAKE3 of their bytes."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from blake3 import blake3

from hansa.errors import ServerError
from hansa.limits import CHUNK_BYTES, HASH_THREADED_BYTES

Bytes: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

_DIGEST = re.compile(r"blake3:([0-9a-f]{64})", re.ASCII)


def hex_of(digest: str) -> str:
    """Return the 64 hex digits of an address, which are safe in a path.

    Raises:
      ServerError: blob-address.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ServerError(
            "blob-address",
            f"{digest[:80]!r} is not the address of a blob.",
            'An address is "blake3:" and 64 hex digits in lower case.',
        )
    return match[1]


def digest_of(*parts: Bytes) -> str:
    """Return the address of these bytes, one after the other."""
    large = sum(map(len, parts)) >= HASH_THREADED_BYTES
    hasher = blake3(max_threads=blake3.AUTO if large else 1)
    for part in parts:
        hasher.update(part)
    return f"blake3:{hasher.hexdigest()}"


def digest_of_file(path: str | os.PathLike[str]) -> tuple[str, int]:
    """Return the address of a file's bytes, and their number.

    Raises:
      OSError: as the system reports it.
    """
    with mapped(path) as data:
        return digest_of(data), len(data)


@contextlib.contextmanager
def mapped(path: str | os.PathLike[str]) -> Iterator[memoryview]:
    """Give a file's bytes without reading them into memory; the file must not change."""
    with Path(path).open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # which cannot be mapped
            yield memoryview(b"")
            return
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = memoryview(data)
    try:
        yield view
    finally:
        # After an error its traceback may still hold parts of the view; they go with it.
        with contextlib.suppress(BufferError):
            view.release()
            data.close()


def chunk_count(size: int) -> int:
    """Return how many chunks a blob of so many bytes has."""
    return -(-size // CHUNK_BYTES)
