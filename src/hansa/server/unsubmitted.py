"""What people have uploaded and not submitted: kept for a day, and no more of each than has room.

Whoever sends a blob, or is told that it is there, has a claim on it until a run of theirs needs it.
A claim keeps the blob from every sweep, and counts.  Age is that of the file, which each word about
it renews.  A mark for each claim lies in a folder, so that a restart forgets nobody's share.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import NamedTuple

from hansa.clock import wall
from hansa.errors import RequestRefused
from hansa.limits import (
    DOCTOR_ORPHAN_S,
    PARTIAL_AGE_S,
    PARTIAL_IDLE_S,
    UNSUBMITTED_BYTES_MAX,
    UNSUBMITTED_MAX,
)
from hansa.server.claims import Claim, claims_in
from hansa.server.routes import in_thread
from hansa.server.upkeep import left_over
from hansa.store.blobs import BlobStore
from hansa.store.faults import disk_faults

_PARTS = 2  # of the disk's room, of which somebody may have one


class Unsubmitted:
    """Claims on a store's blobs; all methods may be called from any thread.

    Args:
      folder: of the marks.
      store: of packages and models.
      wanted: returns the digests of all blobs that runs need.
      refused: told who was refused, and which blob.
    """

    def __init__(
        self,
        folder: Path,
        store: BlobStore,
        *,
        wanted: Callable[[], set[str]],
        refused: Callable[[str, str], None] = lambda _who, _digest: None,
    ) -> None:
        self._folder, self._store = folder, store
        self._wanted, self._refused = wanted, refused
        self._lock = threading.Lock()
        self._at_it = dict.fromkeys(claims_in(folder), 0)  # requests that are going on, by claim
        with disk_faults(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)

    @contextlib.asynccontextmanager
    async def uploading(self, owner: str, digest: str, size: int) -> AsyncIterator[None]:
        """Claim a blob before it is looked for, and while it comes.

        Raises:
          RequestRefused: upload-too-much, the owner has uploaded enough that is not submitted.
        """
        claim = await in_thread(self.begin, owner, digest, size)
        try:
            yield
        finally:
            await in_thread(self.end, claim)

    def begin(self, owner: str, digest: str, size: int) -> Claim:
        """Claim a blob until `end`, and for a day if anything of it is there by then.

        Raises:
          RequestRefused: as `uploading`.
        """
        with disk_faults(str(self._folder)):
            found = self._claimed(owner, digest, size)
            if isinstance(found, Claim):
                return found
            wanted = self._wanted()
            with self._lock:
                self._settle([claim for claim in self._at_it if claim.owner == owner], wanted)
            found = self._claimed(owner, digest, size)
        if isinstance(found, Claim):
            return found
        self._refused(owner, digest)
        raise RequestRefused(
            "upload-too-much",
            f"{owner} would upload {size} bytes, and has {found.files} uploads of {found.size} "
            f"bytes here that were not submitted; there may be {UNSUBMITTED_MAX} of "
            f"{found.room} bytes now. Nothing was kept of this one.",
            f"Submit what is here, or wait: it goes {DOCTOR_ORPHAN_S / 3600:.0f} hours after it "
            "came. The operator sees with hansa server doctor how much room the disk has.",
            status=409,
        )

    def end(self, claim: Claim) -> None:
        """A request is over; a claim on nothing ends with it."""
        with self._lock:
            if claim not in self._at_it:
                return  # submitted meanwhile
            self._at_it[claim] -= 1
            if not self._at_it[claim] and self._file(claim) is None:
                self._forget(claim)

    def submitted(self, owner: str, digests: Collection[str]) -> None:
        """From now on a run needs these: they count no longer."""
        with self._lock:
            for claim in [c for c in self._at_it if c.owner == owner and c.digest in digests]:
                self._forget(claim)

    def let_go(self, digest: str) -> None:
        """Remove a blob that no run needs any longer, unless somebody counts on it."""
        with self._lock:
            if not self._is_claimed(digest):
                self._store.remove(digest)

    def sweep(self, trail: threading.Lock) -> int:
        """Remove what is not submitted, and was not spoken of for long.

        Args:
          trail: held by whoever records that a blob is needed.

        Returns:
          how many blobs were removed.
        """
        with self._lock, disk_faults(str(self._folder)):
            self._settle(list(self._at_it), set(), idle_s=PARTIAL_AGE_S)
            for claim in [c for c, requests in self._at_it.items() if not requests]:
                if _is_older(self._store.path(claim.digest), DOCTOR_ORPHAN_S):
                    self._forget(claim)
        removed = 0
        if left_over(self._store, self._wanted()):
            with trail:  # nothing becomes needed meanwhile
                for path in left_over(self._store, self._wanted()):
                    removed += self._remove_old(path)
        return removed

    def _remove_old(self, path: Path) -> bool:
        """Remove a file that nothing refers to, unless it was claimed since that was found."""
        digest = f"blake3:{path.name.removesuffix('~')}"
        with self._lock:
            if self._is_claimed(digest) or not _is_older(path, DOCTOR_ORPHAN_S):
                return False
            self._store.remove(digest)
            return True

    def _claimed(self, owner: str, digest: str, size: int) -> Claim | _Share:
        """Return a claim that is counted from now on, or else what its owner has already."""
        with self._lock:
            there = self._store.path(digest)
            with contextlib.suppress(FileNotFoundError):
                size = there.stat().st_size  # whatever its sender says
            claim = Claim(digest, size, owner)
            if claim not in self._at_it:
                share = self._share(owner)
                if share.files >= UNSUBMITTED_MAX or share.size + size > share.room:
                    return share
                (self._folder / claim.name).touch()
                self._at_it[claim] = 0
            with contextlib.suppress(FileNotFoundError):
                os.utime(there)
            self._at_it[claim] += 1
            return claim

    def _share(self, owner: str) -> _Share:
        """Return how much somebody has claimed, and how much that may be.

        What has come counts as room too: it is the share of one that does not shrink as it is used.
        """
        mine = [claim for claim in self._at_it if claim.owner == owner]
        here = sum(claim.size for claim in mine if self._store.has(claim.digest))
        free = shutil.disk_usage(self._folder).free
        room = min(UNSUBMITTED_BYTES_MAX, (free + here) // _PARTS)
        return _Share(len(mine), sum(claim.size for claim in mine), room)

    def _settle(
        self, claims: list[Claim], wanted: set[str], idle_s: float = PARTIAL_IDLE_S
    ) -> None:
        """End claims on what runs need, what is not there, and uploads that nobody goes on with."""
        for claim in claims:
            if self._at_it[claim]:
                continue
            file = self._file(claim)
            if file is not None and file.suffix == ".part" and _is_older(file, idle_s):
                self._store.drop_upload(claim.digest, claim.size, owner=claim.owner)
                file = None
            if file is None or claim.digest in wanted:
                self._forget(claim)

    def _file(self, claim: Claim) -> Path | None:
        """Return where the blob is, or what has come of it; None if nothing is there."""
        part = self._store.part(claim.digest, claim.size, owner=claim.owner)
        whole = self._store.path(claim.digest)
        return next((path for path in (whole, part) if path.exists()), None)

    def _is_claimed(self, digest: str) -> bool:
        return any(claim.digest == digest for claim in self._at_it)

    def _forget(self, claim: Claim) -> None:
        del self._at_it[claim]
        (self._folder / claim.name).unlink(missing_ok=True)


class _Share(NamedTuple):
    """What somebody has claimed."""

    files: int
    size: int
    room: int  # bytes that it may be


def _is_older(file: Path, seconds: float) -> bool:
    """Tell whether a file is there, and nothing was done with it for so long."""
    with contextlib.suppress(FileNotFoundError):
        return file.stat().st_mtime < wall() - seconds
    return False
