"""What a piece of work has looked at outside itself, so that its result can be used again.

    with Consulted() as seen:
        result = work()
    found = seen.facts()            # keep them beside the result
    holds(found, was=..., now=...)  # later: would the work see the same?

Noted are files that are opened, asked about (there or not) and loaded as modules, and folders that
are listed, by this process and by Hansa's own processes of foreign code.  Work that asks a network
or starts other programs may depend on anything: of it there are no facts.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from hansa.limits import CONSULTED_FILES_MAX, CONSULTED_READ_BYTES

REPORT = "_HANSA_CONSULTED"
"""Environment variable between our own processes: the file to which each adds what it looked at."""

_LIBRARY = (f"{os.path.dirname(os.__file__)}{os.sep}", "/proc/", "/dev/", "/sys/")
_INSTALLED = f"{os.sep}site-packages{os.sep}"
_OF_A_RUN = {"run.json", "plan.json"}  # files in the folder of each
_LISTED = ("os.listdir", "os.scandir")
_BEYOND = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.sendto",
)
_OURS = "hansa.compat."
_UNSEEN = {"h5py", "safetensors"}  # their compiled code opens files of weights
_ASKED = ("stat", "lstat", "access")  # of which no audit event tells
_OWN_FILES = f"{os.path.dirname(os.path.abspath(__file__))}{os.sep}"  # many, and all small

_turn = threading.Lock()
_at_work: Consulted | None = None
_stat: Callable[..., os.stat_result] = os.stat
_hooked = False


class _Report(msgspec.Struct, frozen=True):
    """What one of our own processes says of itself."""

    paths: list[str]
    beyond: bool


class Consulted:
    """Notes what is looked at while it is entered, in any thread; another one waits for its turn.

    What was noted before in the process counts too: a module is loaded once.
    """

    _paths: set[str] = set()  # noqa: RUF012 - of the process
    _beyond = False

    def __init__(self) -> None:
        self._children = 0
        self._report: Path | None = None
        self._place = ""  # of the report, which may be a parent's

    def __enter__(self) -> Consulted:
        global _at_work
        _turn.acquire()
        self._place = os.environ.get(REPORT, "")
        if not self._place:
            with contextlib.suppress(OSError):  # without a report there are no facts of children
                descriptor, self._place = tempfile.mkstemp(prefix="hansa-consulted-")
                os.close(descriptor)
                self._report = Path(self._place)
                os.environ[REPORT] = self._place
        _listen()
        _at_work = self
        return self

    def __exit__(self, *_: object) -> None:
        global _at_work
        _at_work = None
        reports: list[_Report] = []
        if self._report is not None:
            os.environ.pop(REPORT, None)  # the code may have emptied it
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                lines = self._report.read_bytes().splitlines()
                reports = [msgspec.json.decode(line, type=_Report) for line in lines]
            with contextlib.suppress(OSError):
                self._report.unlink()
        for report in reports:
            self._paths.update(report.paths)
            self._look_beyond(report.beyond)
        self._look_beyond(len(reports) != self._children)  # one that was killed says nothing
        _turn.release()

    def facts(self) -> dict[str, str] | None:
        """Return each path with what tells whether it is the same; None: that is not all.

        Called once the work is done, in the process that did it.
        """
        paths = sorted(path for path in self._paths | _modules() if not _is_library(path))
        if self._beyond or _UNSEEN & sys.modules.keys() or len(paths) > CONSULTED_FILES_MAX:
            return None
        return {path: _state(path) for path in paths}

    def tell(self) -> None:
        """Add what this process has looked at to its parent's file."""
        beyond = self._beyond or bool(_UNSEEN & sys.modules.keys())
        with contextlib.suppress(OSError, UnicodeEncodeError):  # who says nothing is not believed
            line = msgspec.json.encode(_Report(sorted(self._paths | _modules()), beyond))
            with open(self._place, "ab", buffering=0) as file:
                file.write(line + b"\n")

    def hear(self, event: str, arguments: Sequence[Any]) -> None:
        """Take note of an event of the interpreter; see the audit events of Python."""
        if event == "open" or event in _LISTED or event == "sqlite3.connect":
            self.note(arguments[0])
        elif event == "subprocess.Popen":
            self._started(arguments[1])
        elif event in _BEYOND:
            self._look_beyond(True)

    def note(self, path: Any) -> None:
        """Take note of a path, whatever stands for one."""
        if path is None:
            path = "."
        if isinstance(path, str | bytes | os.PathLike):
            self._paths.add(os.path.abspath(os.fsdecode(path)))

    def _started(self, words: Any) -> None:
        ours = isinstance(words, list | tuple) and any(str(w).startswith(_OURS) for w in words)
        self._children += ours
        self._look_beyond(not ours)

    def _look_beyond(self, is_so: bool) -> None:
        Consulted._beyond |= is_so


def holds(facts: Mapping[str, str], *, was: str, now: str) -> bool:
    """Return whether everything that was looked at is as it was.

    Args:
      facts: of `Consulted`.
      was: the folder of the project then.
      now: its folder now; what was looked at outside must also be there as seen from here.
    """
    for path, state in facts.items():
        fixed = path.startswith(_OWN_FILES)
        places = {path} if was == now or fixed or not is_inside(path, was) else set()
        if was != now and not fixed:
            places.add(os.path.normpath(os.path.join(now, os.path.relpath(path, was))))
        if any(_state(place) != state for place in places):
            return False
    return True


def is_inside(path: str, folder: str) -> bool:
    """Return whether a path is a folder's, or the folder itself."""
    return path == folder or path.startswith(f"{folder}{os.sep}")


def files_below(folder: Path, besides: Collection[str] = ()) -> str | None:
    """Return a digest of names, sizes and times of all files below a folder.

    Args:
      besides: paths below the folder that are left out, as are runs, caches, virtual
        environments, and what people read.

    Returns:
      None: there are too many, or a link leads to others.
    """
    hasher, count = blake3(), 0
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_aside(name))
        if any(os.path.islink(os.path.join(here, name)) for name in folders):
            return None
        if here != os.fspath(folder) and ("pyvenv.cfg" in files or {*files} >= _OF_A_RUN):
            folders.clear()
            continue
        count += len(files)
        if count > CONSULTED_FILES_MAX:
            return None
        for name in sorted(files):
            path = os.path.join(here, name)
            below = os.path.relpath(path, folder)
            if below.replace(os.sep, "/") not in besides and not _is_aside(name):
                hasher.update(f"{below}\0{_times(path)}\0".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def _listen() -> None:
    """Hear of what is opened, once and for all, and of what is asked about."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_heard)
        for name in _ASKED:
            setattr(os, name, _noted(getattr(os, name)))
        _hooked = True


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if _at_work is not None:
        _at_work.hear(event, arguments)


def _noted(ask: Callable[..., Any]) -> Callable[..., Any]:
    """Return a question about a path that is noted; folders on the way to others are not."""

    @functools.wraps(ask)
    def asked(path: Any, *more: Any, **options: Any) -> Any:
        if _at_work is not None and (ask is _stat or not _is_folder(path)):
            _at_work.note(path)
        return ask(path, *more, **options)

    for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if ask in able:
            able.add(asked)  # shutil looks there
    return asked


def _is_folder(path: Any) -> bool:
    try:
        return stat.S_ISDIR(_stat(path).st_mode)
    except (OSError, ValueError, TypeError):
        return False


def _modules() -> set[str]:
    """Return the files of what was imported, now or before."""
    loaded = [m for name, m in list(sys.modules.items()) if name != "__main__"]
    files = [vars(module).get("__file__") for module in loaded if hasattr(module, "__dict__")]
    return {os.path.abspath(file) for file in files if isinstance(file, str)}


def _is_library(path: str) -> bool:
    return path.startswith(_LIBRARY) or _INSTALLED in path or f"{os.sep}__pycache__" in path


def _is_aside(name: str) -> bool:
    return name in ("runs", "__pycache__", "README.md") or name.startswith(".")


def _state(path: str) -> str:
    """Return what changes when a file's content, or the names in a folder, do."""
    try:
        about = _stat(path)
        if stat.S_ISDIR(about.st_mode):
            names = sorted(name for name in os.listdir(path) if not _is_aside(name))
            return blake3("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
        small = about.st_size <= CONSULTED_READ_BYTES and not path.startswith(_OWN_FILES)
        if stat.S_ISREG(about.st_mode) and small:
            with open(path, "rb") as file:
                return blake3(file.read(CONSULTED_READ_BYTES + 1)).hexdigest()
    except (OSError, ValueError):
        return "link" if os.path.islink(path) else ""
    return _times(path)


def _times(path: str) -> str:
    try:
        about = _stat(path)
    except (OSError, ValueError):
        return ""
    return f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns} {about.st_ino}"
