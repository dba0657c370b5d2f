"""The temporary folder of a rehearsal, and those that rehearsals which were killed left behind.

It holds the keys of a certificate authority, so it must not lie about.  Its lock is freed by the
system when its rehearsal ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "hansa-dev-"
_LOCK = "in-use"


@contextlib.contextmanager
def temporary_place() -> Iterator[Path]:
    """Give a folder that is removed at the end, at the latest when the next one is made."""
    import filelock  # slow to import

    remove_leftovers()
    place = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with filelock.FileLock(place / _LOCK):
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove this person's temporary folders whose rehearsal is gone; one kept has no lock."""
    import filelock

    for place in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, filelock.Timeout):
            about = place.lstat()
            owned = not hasattr(os, "getuid") or about.st_uid == os.getuid()
            if not (owned and stat.S_ISDIR(about.st_mode) and (place / _LOCK).is_file()):
                continue
            with filelock.FileLock(place / _LOCK, timeout=0):
                shutil.rmtree(place, ignore_errors=True)
