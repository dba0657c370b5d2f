"""Files that nobody needs any more, kept a while to be written over.

A round's files are as many and as large as the last round's.  Writing over one takes a quarter of
the time of writing a new one: the system need not find and clear memory and blocks for it again.

A file is written over only while it has one name and nobody else has it open or mapped.  The system
itself says so: it grants a lease for writing to a file's only opener.  Where there are no leases,
or a file system grants one for a file that is mapped, files are removed at once.

A lease does not see who has merely found a file (O_PATH).  So what foreign code was shown is
written over only by what the same code is shown: a run's messages have spares of their own.

Source: fcntl(2), "Leases".
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import shutil
import signal
import stat
import sys
import threading
from pathlib import Path

from hansa.limits import SPARE_BYTES_MIN, SPARES_BYTES_MAX

_TRIES = 8  # of files that somebody may be reading, for one new file


class Spares:
    """A folder of files to write over; all methods may be called from any thread.

    Args:
      folder: emptied now; on the disk of the files that are given, else they are removed as they
        come.  None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder if sys.platform == "linux" else None
        self._lock = threading.Lock()
        self._kept: dict[Path, int] = {}  # bytes, the oldest first
        self._tried = False
        left: list[Path] = []
        with contextlib.suppress(OSError):
            left = [] if folder is None else [*folder.iterdir()]
        for path in left:
            with contextlib.suppress(OSError):
                path.unlink()

    def give(self, path: Path) -> None:
        """Remove a file, if it is there; whoever reads it meanwhile may finish.

        Raises:
          OSError: it cannot be removed.
        """
        if self._folder is not None:
            with contextlib.suppress(OSError), self._lock:
                if self._is_wanted(path):
                    self._keep(path)
                    return
        path.unlink(missing_ok=True)

    def open(self, path: Path, size: int) -> io.FileIO:
        """Open a file that is not there yet, to write `size` bytes from its beginning.

        Until they are all written, it holds nothing or some of another file's bytes.

        Raises:
          OSError: as the system reports it.
        """
        while self._folder is not None and (spare := self._taken(size)) is not None:
            try:
                return _renamed(spare, path, size)
            except FileExistsError:
                raise
            except OSError:
                continue  # it is gone, as if it had never been there
            finally:
                with contextlib.suppress(OSError):
                    spare.unlink()
        return path.open("xb", buffering=0)

    def clear(self) -> None:
        """Remove all that is kept."""
        with self._lock:
            while self._kept:
                self._drop(next(iter(self._kept)))

    def _is_wanted(self, path: Path) -> bool:
        """Tell whether to keep a file, now that it is known to be of use; the lock is held."""
        assert self._folder is not None
        facts = path.lstat()
        # Of two names the one that goes last is kept.
        plain = stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1
        if not (plain and SPARE_BYTES_MIN <= facts.st_size <= SPARES_BYTES_MAX):
            return False
        if not self._tried:
            self._tried = True
            if not _knows_readers(self._folder):
                self._folder = None
                return False
        return True

    def _keep(self, path: Path) -> None:
        assert self._folder is not None
        spare = self._folder / os.urandom(8).hex()
        os.rename(path, spare)
        self._kept[spare] = spare.stat().st_size
        scarce = shutil.disk_usage(self._folder).free < SPARES_BYTES_MAX
        while sum(self._kept.values()) > (0 if scarce else SPARES_BYTES_MAX):
            self._drop(next(iter(self._kept)))

    def _taken(self, size: int) -> Path | None:
        """Return a file of about a size that nobody reads, which is not kept any longer."""
        with self._lock:
            fitting = [f for f, kept in self._kept.items() if kept // 2 <= size <= 2 * kept]
            fitting.sort(key=lambda file: abs(self._kept[file] - size))
            for spare in fitting[:_TRIES] if size >= SPARE_BYTES_MIN else ():
                if _is_ours_alone(spare):
                    del self._kept[spare]
                    return spare
        return None

    def _drop(self, spare: Path) -> None:
        del self._kept[spare]
        with contextlib.suppress(OSError):
            spare.unlink()


def _renamed(spare: Path, path: Path, size: int) -> io.FileIO:
    """Give a spare its size, then its new name besides: what has that name has that size.

    Raises:
      FileExistsError: the name is another file's.
      OSError: as the system reports it.
    """
    file = spare.open("r+b", buffering=0)
    try:
        file.truncate(size)
        os.link(spare, path)
    except BaseException:
        file.close()
        raise
    return file


def _knows_readers(folder: Path) -> bool:
    """Tell whether a new file is ours alone, and is not while it is mapped and nothing else."""
    path = folder / "tried"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w+b") as file:
            file.write(b"\0" * mmap.PAGESIZE)
            file.flush()
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with mapping:
            if _is_ours_alone(path):
                return False
        return _is_ours_alone(path)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _is_ours_alone(path: Path) -> bool:
    """Tell whether a file has one name, and nobody has it open or mapped."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # Who opens it in this instant lets us know by a signal.  The usual one would end the
        # process; this one is ignored unless somebody handles it.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        alone = os.fstat(descriptor).st_nlink == 1
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return alone
    except OSError:
        return False
    finally:
        os.close(descriptor)


NO_SPARES = Spares(None)
"""Removes what it is given."""
