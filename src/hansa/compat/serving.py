"""What a process that runs foreign client code does, whatever the system.

It is spoken to through its standard streams, ignores Ctrl-C (the project decides), and ends when
its input does.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hansa.code import code_changed, code_digest, make_current, read_code
from hansa.errors import HansaError
from hansa.hosting.wire import PLACE, Failed, Ready, receive_with, send_with
from hansa.learners.generators import import_torch_if_named
from hansa.limits import MESSAGE_CHARS_MAX
from hansa.pipes import Closed, send, worker_streams
from hansa.seeds import Key
from hansa.traces import line_of, sound, trace_of

IMPORT_KEY = Key.root(0).child("import")  # the same in every process


class Host(Protocol):
    """What runs the client code of one project."""

    def serve(self, request: Any, arrays: dict[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
        """Have a client do a task; return the answer, and arrays."""

    def abort(self) -> None:
        """Ask the client that is at work to stop; called from another thread."""

    def close(self) -> None:
        """End, because the project has."""


def serve(
    setup: type[Any], task: type[Any], host_of: Callable[[Any], Host], *, name: str, page: str
) -> None:
    """Serve one project until it closes the pipe.

    Args:
      setup: kind of the first request, which has the project's `folder`.
      task: kind of all others.
      host_of: puts the stand-in in place and makes the host from the first request.
      name: of the package that is stood in for.
      page: of the documentation, about what of it is there.
    """
    hosts: list[Host] = []

    def abort() -> None:
        for host in hosts:
            host.abort()
        _leave_nothing()

    requests, replies = worker_streams(abort)
    folder = Path()
    while True:
        try:
            request, arrays = receive_with(requests, setup | task)
            try:
                if isinstance(request, setup):
                    folder = Path(request.folder)
                    hosts.append(host_of(request))
                    send(replies, Ready())
                else:
                    send_with(replies, *hosts[0].serve(request, arrays))
            except Closed:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code
                send(replies, failed(error, folder, name=name, page=page))
        except Closed:
            break
    for host in hosts:
        host.close()
    _leave_nothing()


def take_code(folder: Path, digest: bytes) -> None:
    """Let imports find a project's code, with torch before it.

    Args:
      folder: of the project.
      digest: of its code when the project was opened.

    Raises:
      RunError: run-changed.
    """
    code = read_code(folder)
    if code_digest(code) != digest:
        raise code_changed(folder)
    make_current(folder, code)
    import_torch_if_named(code.values())


def failed(error: BaseException, folder: Path, *, name: str, page: str) -> Failed:
    """Describe what a client's code raised."""
    trace = trace_of(error)
    if isinstance(error, HansaError):
        return Failed(error.code, sound(error.happened), sound(error.hint), trace)
    where = line_of(error, folder) or "The client"
    what = sound(f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX])
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == name:
        return Failed(
            "learner-module",
            f"{where} imports something of {name} that Hansa does not stand in for: {error}",
            f"The client's side is there; see {page} for what is not.",
            trace,
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return Failed(
            "learner-missing-package",
            f"{where} imports {package}, which is not installed.",
            f"Install it beside Hansa with: pip install {package}",
            trace,
        )
    hint = "Correct the client's code; its traceback is kept with the failure."
    return Failed("client-failed", f"{where} raised {what.rstrip('.')}.", hint, trace)


def _leave_nothing() -> None:
    """Remove the temporary files of this process, whose project may have been killed."""
    place = Path(tempfile.gettempdir())
    if place.name.startswith(PLACE):
        shutil.rmtree(place, ignore_errors=True)
