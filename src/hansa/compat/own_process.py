"""A site's worker that is the site's own process: the user's objects and data never leave it.

Only the hand-over that Hansa itself has written is imported here; any other code is refused, and a
plan that names commands, so a server cannot make such a process run anything but what it was
started with.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from blake3 import blake3

from hansa.client import failure_of
from hansa.clock import monotonic
from hansa.code import read_code
from hansa.compat.hand_over import HandOver
from hansa.errors import SiteError
from hansa.hosting.process import Lost
from hansa.site.settings import SiteSettings
from hansa.site.worker import Result, Work, serve, set_up
from hansa.site.worker_messages import Failed, Ready, Request, Setup
from hansa.site.worker_process import Answer, Files, Worker
from hansa.site.workers import Workers

_LOOK_S = 0.1
_STILL = "what was asked before is still at work in this process. Start the process again."


class OwnProcess(Workers):
    """Runs the code of runs in this very process, one task at a time.

    Args:
      folder: of the site.
      settings: of the site.
      hand_over: the only code that is taken.
    """

    def __init__(self, folder: Path, settings: SiteSettings, *, hand_over: HandOver) -> None:
        super().__init__(folder, settings)
        self._thread, self._hand_over = TaskThread(), hand_over

    def start_worker(
        self, command: list[str], folder: Path | None, more: Mapping[str, str]
    ) -> Worker:
        """Return what works in this process; nothing is started."""
        return InProcess(self._thread, self._hand_over)

    def _sandboxed(self) -> bool:
        """Return no, whatever the policy says of code that others bring: here it is refused."""
        return False


class TaskThread:
    """One thread that does all tasks: the user's code is never called twice at the same time."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def put(self, task: Callable[[], None]) -> None:
        """Have something done after what is under way."""
        self._tasks.put(task)

    def _work(self) -> None:
        while True:
            self._tasks.get()()


class InProcess:
    """One run's worker in this process.

    A task that is cancelled or takes too long cannot be ended here: its result is not waited for,
    and dropped when it comes.

    Args:
      thread: does the tasks.
      hand_over: the only code that is taken.
    """

    def __init__(self, thread: TaskThread, hand_over: HandOver) -> None:
        self._thread, self._hand_over = thread, hand_over
        self._work: Work | None = None
        self._gone = threading.Event()

    def ask(self, request: Request, *, seconds: float, files: Files | None = None) -> Answer:
        """Do a task in the task thread and return the answer; see `WorkerProcess.ask`.

        Raises:
          Lost: it was cancelled, or took too long.
        """
        answers: queue.SimpleQueue[Answer | OSError] = queue.SimpleQueue()
        begun = threading.Event()

        def task() -> None:
            begun.set()
            answers.put(self._answered(request, files))

        self._thread.put(task)
        until = monotonic() + seconds
        while not self._gone.is_set():
            try:
                answer = answers.get(timeout=_LOOK_S)
            except queue.Empty:
                if monotonic() > until:
                    self.kill()
                    told = f"It took more than {seconds:g} s, this site's limit for a task."
                    if not begun.is_set():
                        told = f"In {seconds:g} s it did not begin: {_STILL}"
                    raise Lost("site-limit", told) from None
                continue
            if isinstance(answer, OSError):
                raise answer
            return answer
        raise Lost("site-cancelled", "The task was cancelled before it was done.")

    def cancel(self) -> None:
        """Wait for nothing any more."""
        self._gone.set()

    def kill(self) -> None:
        """Wait for nothing any more."""
        self._gone.set()

    def close(self) -> None:
        """Wait for nothing any more."""
        self._gone.set()

    @property
    def alive(self) -> bool:
        """Return whether it can be asked."""
        return not self._gone.is_set()

    def last_words(self) -> str:
        """Return nothing: what the user's code prints is on its own terminal."""
        return ""

    def _answered(self, request: Request, files: Files | None) -> Answer | OSError:
        if self._gone.is_set():  # cancelled before its turn
            return Answer(Failed("site-cancelled", "The task was cancelled.", ""))
        try:
            if isinstance(request, Setup):
                _check(request, self._hand_over)
                self._work = set_up(request)
                return Answer(Ready(len(self._work.data.train)))
            assert self._work is not None  # Setup comes first
            return _kept(serve(self._work, request), files, unless=self._gone)
        except OSError as error:
            return error
        except BaseException as error:  # noqa: BLE001 - it is the user's code; the thread goes on
            return Answer(Failed(*failure_of(error)))


def _check(setup: Setup, hand_over: HandOver) -> None:
    """Refuse all but the hand-over to what this process was started with.

    Raises:
      SiteError: site-request.
    """
    whose = hand_over.whose
    if not hand_over.is_ours(read_code(Path(setup.package))):
        fault = f"The run brings code of its own, and a {whose}'s process runs none"
    elif not hand_over.runs_only(setup.plan):
        fault = f"The plan names something else to run than the {whose} of this process"
    else:
        return
    raise SiteError("site-request", f"{fault}. Nothing was run.", hand_over.submit)


def _kept(result: Result, files: Files | None, *, unless: threading.Event) -> Answer:
    """Write the bytes of a result to the files that they belong in."""
    done, hasher = result.done, blake3()
    if files is None or unless.is_set():
        return Answer(done)
    rest = [memoryview(chunk).cast("B") for chunk in result.chunks]
    with open(files.update, "wb") as update:
        left = done.update
        while left:
            piece = rest.pop(0)
            update.write(piece)
            hasher.update(piece)
            left -= len(piece)
    with open(files.state, "wb") as state:
        state.writelines(rest)
    return Answer(done, f"blake3:{hasher.hexdigest()}")
