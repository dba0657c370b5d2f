"""What the disk refuses, as errors a person can act on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from hansa.errors import ServerError
from hansa.limits import BLOB_BYTES_MAX, CHUNK_BYTES
from hansa.store.spares import NO_SPARES, Spares

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def disk_full(what: str) -> ServerError:
    """Return the error of a disk without space."""
    return ServerError(
        "server-disk-full",
        f"There is no space left for {what}; nothing of it was kept.",
        "Free some disk space; what was refused is sent again, and no restart is needed.",
    )


def disk_failed(what: str, reason: str) -> ServerError:
    """Return the error of a disk, or of a system, that does not do what it was asked."""
    return ServerError(
        "server-disk",
        f"The system could not store {what}: {reason}. Nothing of it counts as stored.",
        "Check the disk, its cable and the system's log, and the limit of open files.",
    )


@contextlib.contextmanager
def disk_faults(what: str, spares: Spares = NO_SPARES) -> Iterator[None]:
    """Turn a system's error into one of `disk_full` and `disk_failed`.

    Args:
      what: was to be stored.
      spares: go when there is no room, so that the next try may have some.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            spares.clear()
            raise disk_full(what) from error
        reason = error.strerror or os.strerror(error.errno or 0)
        raise disk_failed(what, reason) from error


def missing(digest: str) -> ServerError:
    """Return the error of a blob that is not there."""
    return ServerError(
        "blob-missing",
        f"There is no blob {digest} here.",
        "It may have been removed, or its upload did not end; send it again.",
    )


def too_large(what: str, reason: str) -> ServerError:
    """Return the error of a blob, chunk or body with more bytes than it may have."""
    return ServerError(
        "blob-too-large",
        f"{what} has {reason}; nothing of it was kept.",
        f"A blob may have {BLOB_BYTES_MAX} bytes, sent in chunks of {CHUNK_BYTES}.",
    )


def wrong_digest(what: str, reason: str) -> ServerError:
    """Return the error of bytes that are not those announced."""
    return ServerError(
        "blob-digest",
        f"The bytes of {what} are not those announced: {reason}. Nothing was changed.",
        "Send them again; if it happens often, look for a faulty disk, memory or network device.",
    )
