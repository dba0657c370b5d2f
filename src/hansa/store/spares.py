"""Files that nobody needs any more, kept a while to be written over.

A round's files are as many and as large as the last round's.  Writing over one takes a quarter of
the time of writing a new one: the system need not find and clear memory and blocks for it again.

A file is written over only while it has one name and nobody else has it open or mapped.  The system
itself says so: it grants a lease for writing to a file's only opener.  Where there are no leases,
or a file system grants one for a file that is mapped, files are removed at once.

Source: fcntl(2), "Leases".
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import signal
import sys
import threading
from pathlib import Path

from hansa.limits import SPARE_BYTES_MIN, SPARES_BYTES_MAX


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
        if folder is not None:
            with contextlib.suppress(OSError):
                for path in folder.iterdir():
                    path.unlink()

    def give(self, path: Path) -> None:
        """Remove a file, if it is there; whoever reads it meanwhile may finish.

        Raises:
          OSError: it cannot be removed.
        """
        if self._folder is not None:
            with contextlib.suppress(OSError):
                facts = path.stat()
                # Of two names the one that goes last is kept.
                fits = SPARE_BYTES_MIN <= facts.st_size <= SPARES_BYTES_MAX
                if fits and facts.st_nlink == 1 and self._is_of_use():
                    self._keep(path, facts.st_size)
                    return
        path.unlink(missing_ok=True)

    def open(self, path: Path, size: int) -> io.FileIO:
        """Open a file that is not there yet, to write `size` bytes from its beginning.

        Until they are all written, it holds nothing or some of another file's bytes.

        Raises:
          OSError: as the system reports it.
        """
        if self._folder is None or size < SPARE_BYTES_MIN or not self._take(path, size):
            return path.open("xb", buffering=0)
        file = path.open("r+b", buffering=0)
        try:
            file.truncate(size)
        except BaseException:
            file.close()
            raise
        return file

    def clear(self) -> None:
        """Remove all that is kept."""
        with self._lock:
            while self._kept:
                self._drop(next(iter(self._kept)))

    def _is_of_use(self) -> bool:
        """Tell, having tried it once, whether this file system knows who reads a file."""
        with self._lock:
            if not self._tried and self._folder is not None:
                self._tried = True
                self._folder.mkdir(parents=True, exist_ok=True)
                if not _knows_readers(self._folder / "tried"):
                    self._folder = None
            return self._folder is not None

    def _keep(self, path: Path, size: int) -> None:
        assert self._folder is not None
        spare = self._folder / os.urandom(8).hex()
        os.rename(path, spare)
        with self._lock:
            self._kept[spare] = size
            while sum(self._kept.values()) > SPARES_BYTES_MAX:
                self._drop(next(iter(self._kept)))

    def _take(self, path: Path, size: int) -> bool:
        """Give the name to the kept file of the nearest size; tell whether there is one."""
        with self._lock:
            fitting = [f for f, kept in self._kept.items() if kept // 2 <= size <= 2 * kept]
            for spare in sorted(fitting, key=lambda file: abs(self._kept[file] - size)):
                if _is_ours_alone(spare):
                    del self._kept[spare]
                    break
            else:
                return False
        try:
            os.rename(spare, path)
        except OSError:
            spare.unlink(missing_ok=True)
            return False
        return True

    def _drop(self, spare: Path) -> None:
        del self._kept[spare]
        with contextlib.suppress(OSError):
            spare.unlink()


def _knows_readers(path: Path) -> bool:
    """Tell whether a new file is ours alone, and is not while it is mapped and nothing else."""
    try:
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
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        # Who opens it in this instant lets us know by a signal.  The usual one would end the
        # process; this one is ignored unless somebody handles it.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return os.fstat(descriptor).st_nlink == 1
    except OSError:
        return False
    finally:
        os.close(descriptor)


NO_SPARES = Spares(None)
"""Removes what it is given."""
