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
from hansa.holding import Holder, born, is_held, noted, wait_until_free
from hansa.store.files import write_durably

PROCESS_FILE = "process.json"


@contextlib.contextmanager
def announced(folder: Path) -> Iterator[None]:
    """Say who serves, for the length of a block; the caller holds the folder's lock."""
    me = Holder(pid=os.getpid(), started=now(), born=born(os.getpid()))
    write_durably(folder / PROCESS_FILE, [msgspec.json.encode(me)])
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / PROCESS_FILE).unlink(missing_ok=True)


def find_process(folder: Path) -> Holder | None:
    """Return the process that serves from a folder, if there is one.

    Raises:
      ServerError: server-busy, there is one, and it is not known which.
    """
    if not is_held(folder):
        return None
    found = noted(folder / PROCESS_FILE, Holder)
    if found is None:
        raise ServerError(
            "server-busy",
            f"A process serves from {folder.resolve()}, and {PROCESS_FILE} does not say which.",
            "It may be starting or ending this moment: try again; or send it SIGTERM by hand.",
        )
    return found


def stop_process(folder: Path, *, seconds: float) -> Holder | None:
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
