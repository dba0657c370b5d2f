"""The process that runs Flower clients: `python -m hansa.compat.flower.worker`.

It is spoken to through its standard streams, ignores Ctrl-C (the project decides), and ends when
its input does.
"""

from __future__ import annotations

import signal
import traceback
from pathlib import Path

from hansa.compat.flower.hosting import Host
from hansa.compat.flower.shim import NAME, install
from hansa.compat.flower.wire import Failed, Ready, Request, Setup, receive_with, send_with
from hansa.errors import HansaError
from hansa.limits import FAILURE_CHARS_MAX, MESSAGE_CHARS_MAX
from hansa.pipes import Closed, end_with, send, take_streams


def main() -> None:
    """Serve one project until it closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, replies = take_streams()
    end_with(requests)
    host: Host | None = None
    folder = Path()
    while True:
        try:
            request, arrays = receive_with(requests, Request)
            try:
                if isinstance(request, Setup):
                    folder = Path(request.folder)
                    install()
                    host = Host(request)
                    send(replies, Ready())
                else:
                    assert host is not None  # Setup comes first
                    send_with(replies, *host.serve(request, arrays))
            except Closed:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code
                send(replies, failed(error, folder))
        except Closed:
            break


def failed(error: BaseException, folder: Path) -> Failed:
    """Describe what a client's code raised."""
    trace = _sound("".join(traceback.format_exception(error))[-FAILURE_CHARS_MAX:])
    if isinstance(error, HansaError):
        return Failed(error.code, _sound(error.happened), _sound(error.hint), trace)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    where = f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else "The client"
    what = _sound(f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX])
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == NAME:
        return Failed(
            "learner-module",
            f"{where} imports something of Flower that Hansa does not stand in for: {error}",
            "The client's side is there; see docs/howto/coming-from-flower.md for what is not.",
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
    return Failed("client-failed", f"{where} raised {what}.", hint, trace)


def _sound(text: str) -> str:
    """Return text that can be written anywhere; file names bring lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    main()
