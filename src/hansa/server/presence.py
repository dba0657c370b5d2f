"""Which process serves from a folder, and how to end it in an orderly way; see `hansa.holding`."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hansa.clock import now
from hansa.errors import ServerError
from hansa.holding import born, is_held, wait_until_free
from hansa.store.files import write_durably

PROCESS_FILE = "process.json"


class Process(msgspec.Struct, frozen=True):
    """A process that serves."""

    pid: int
    started: str
    born: str = ""  # empty where the system does not tell


@contextlib.contextmanager
def announced(folder: Path) -> Iterator[None]:
    """Say who serves, for the length of a block; the caller holds the folder's lock."""
    write_durably(
        folder / PROCESS_FILE, [msgspec.json.encode(Process(os.getpid(), now(), born(os.getpid())))]
    )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / PROCESS_FILE).unlink(missing_ok=True)


def find_process(folder: Path) -> Process | None:
    """Return the process that serves from a folder, if there is one.

    Raises:
      ServerError: server-busy, there is one, and it is not known which.
    """
    if not is_held(folder):
        return None
    try:
        found = msgspec.json.decode((folder / PROCESS_FILE).read_bytes(), type=Process)
    except (OSError, msgspec.MsgspecError):
        found = None
    if found is None or found.pid <= 1 or found.born != born(found.pid):
        raise ServerError(
            "server-busy",
            f"A process serves from {folder.resolve()}, and {PROCESS_FILE} does not say which.",
            "It may be starting or ending this moment: try again; or send it SIGTERM by hand.",
        )
    return found


def stop_process(folder: Path, *, seconds: float) -> Process | None:
    """Tell the process that serves from a folder to end, and wait; return it, if there was one.

    Args:
      folder: of the server, on this machine.
      seconds: that it may take; it answers what is open first.

    Raises:
      ServerError: server-busy, it still runs, or it is another person's process.
    """
    found = find_process(folder)
    if found is None:
        return None
    try:
        os.kill(found.pid, signal.SIGTERM)
    except ProcessLookupError:
        return found
    except PermissionError:
        raise ServerError(
            "server-busy",
            f"The server is process {found.pid} of another user; it was not told to end.",
            "End it as that user, or where it is a service, with the service's own command.",
        ) from None
    if not wait_until_free(folder, seconds=seconds):
        raise ServerError(
            "server-busy",
            f"The server (process {found.pid}) was told to end, and still runs after "
            f"{seconds:.0f} seconds.",
            "Wait a moment longer; nothing is lost if it is killed.",
        )
    return found
