"""One client's script: a thread that is awake only while the run waits for it.

    run (engine's thread)                      script (its own thread)
    open      -- starts the thread -->         runs up to tasks(initial)
              <-- ready ---------------
    ask(task) -- task ---------------->        one turn of its loop
              <-- the task, sent ------        back at the head of the loop
    finish    -- no more -------------->       the loop ends, the last lines run
              <-- ended ---------------

Control is handed over, so there is no concurrency and nothing depends on timing.
"""

from __future__ import annotations

import contextlib
import queue
import runpy
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hansa.errors import LearnerError
from hansa.learners.script_task import (
    Evaluate,
    ScriptTask,
    Sent,
    as_arrays,
    here,
    is_tensor,
    script_error,
)
from hansa.limits import SCRIPT_END_S

_POLL_S = 0.5  # how soon Ctrl-C is seen on systems where waiting cannot be interrupted


class _Evaluation(NamedTuple):
    params: Any
    data: Any


class _Ended(NamedTuple):
    error: Exception | None


class _Ready(NamedTuple):
    pass


class _Unwind(BaseException):
    """Leaves a script whose client will not come back, past its `except Exception`."""


class Session:
    """A script on behalf of one client.

    Args:
      path: of the script.
      client: whose it is.
      data: what the script gets from `local_data()`.
    """

    def __init__(self, path: Path, client: str, data: Any) -> None:
        self.client, self.data = client, data
        self.initial: Any = None  # arrays, once open
        self.evaluate: Evaluate | None = None
        self.ended = False
        self._path = path
        self._tensors: set[str] = set()  # names, or positions, of what were torch tensors
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._main = (sys.modules["__main__"], [str(path)])

    def open(self) -> None:
        """Run the script up to its loop.

        Raises:
          LearnerError: it ended before; or whatever the script raised.
        """
        thread = threading.Thread(target=self._run, name=f"script of {self.client}", daemon=True)
        reply = self._hand_over(thread.start)
        if isinstance(reply, _Ended):
            raise reply.error or script_error(
                f"{self._path.name} ended without asking for a task.",
                "Put its training into: for task in hansa.tasks(net.state_dict()):",
            )

    def check_running(self) -> None:
        """Refuse to go on with a script that has left its loop.

        Raises:
          LearnerError: it has.
        """
        if self.ended:
            raise script_error(
                f"{self._path.name} ended before the run did: it left its loop over tasks().",
                "Remove the break; the plan's rounds and stop decide when a run ends.",
            )

    def train(self, task: ScriptTask) -> Sent:
        """Have the script do one task, whose `params` are arrays; return what it sent.

        Raises:
          LearnerError: it ended without sending.
          Exception: whatever the script raised.
        """
        task.params = self._as_given(task.params)
        if (error := self._ask(task)) is not None:
            raise error
        if task.sent is None:
            raise script_error(
                f"{self._path.name} left its loop in round {task.round} without sending a result.",
                "Call task.send before break, and do not end the loop yourself.",
            )
        return task.sent

    def measure(self, params: Any, data: Any) -> Any:
        """Have the script evaluate arrays on data; return what its function returned.

        Raises:
          Exception: whatever the script raised.
        """
        evaluation = _Evaluation(self._as_given(params), data)
        self._measured: Any = None
        if (error := self._ask(evaluation)) is not None:
            raise error
        return self._measured

    def finish(self, *, last_lines: bool) -> Exception | None:
        """End the script, with or without the lines after its loop; return what it raised."""
        if self.ended:
            return None
        self.ended = True
        with self._as_main():
            self._requests.put(None if last_lines else _Unwind())
            try:
                reply: _Ended = self._replies.get(timeout=SCRIPT_END_S)
            except queue.Empty:
                return TimeoutError(f"the last lines took more than {SCRIPT_END_S:g} s")
        return reply.error

    def tasks(self, initial: Any, evaluate: Evaluate | None) -> Iterator[ScriptTask]:
        """Yield tasks to the script; this runs in its thread."""
        if self.initial is not None:
            raise script_error(
                "The script called tasks() a second time.", "Use one loop over tasks()."
            )
        self.initial, self.evaluate = as_arrays(initial), evaluate
        pairs = initial.items() if isinstance(initial, Mapping) else enumerate(initial)
        self._tensors = {str(name) for name, value in pairs if is_tensor(value)}
        while True:
            self._replies.put(_Ready())
            request = self._requests.get()
            if isinstance(request, _Unwind):
                raise request
            if request is None:
                return
            if isinstance(request, ScriptTask):
                yield request
                _check_sent(request)
            elif evaluate is not None:
                self.data = request.data
                self._measured = evaluate(*request)

    def _ask(self, request: Any) -> Exception | None:
        """Wake the script with a request; return what it raised, if it did not come back."""
        reply = self._hand_over(lambda: self._requests.put(request))
        if isinstance(reply, _Ended):
            self.ended = True
            return reply.error
        return None

    def _hand_over(self, wake: Any) -> _Ready | _Ended:
        """Let the script run until it waits again, or ends."""
        with self._as_main():
            wake()
            try:
                while True:
                    with contextlib.suppress(queue.Empty):
                        reply: _Ready | _Ended = self._replies.get(timeout=_POLL_S)
                        return reply
            except BaseException:  # Ctrl-C: the script must not wait for a run that is over
                self.ended = True
                self._requests.put(_Unwind())
                raise

    @contextlib.contextmanager
    def _as_main(self) -> Iterator[None]:
        """Give the script the `__main__` and the arguments it would have on its own."""
        outer = sys.modules["__main__"], sys.argv
        sys.modules["__main__"], sys.argv = self._main
        try:
            yield
        finally:
            self._main = sys.modules["__main__"], sys.argv
            sys.modules["__main__"], sys.argv = outer

    def _run(self) -> None:
        here.channel = self
        error: Exception | None = None
        try:
            runpy.run_path(str(self._path), run_name="__main__")
        except _Unwind:
            pass
        except SystemExit as end:
            if end.code not in (None, 0):
                error = script_error(
                    f"{self._path.name} called sys.exit({end.code!r}).",
                    "Run it alone to see why: python " + self._path.name,
                )
        except Exception as raised:  # noqa: BLE001 - handed to the thread that waits
            error = raised
        except BaseException as raised:  # noqa: BLE001 - must not end the run, as Ctrl-C would
            error = script_error(
                f"{self._path.name} raised {type(raised).__name__}.", "Raise an Exception instead."
            )
        self._replies.put(_Ended(error))

    def _as_given(self, params: Any) -> Any:
        """Return arrays as what the script gave: torch tensors again where they were."""
        if not self._tensors:
            return params
        from hansa.learners.torch_arrays import to_tensor

        if isinstance(params, list):
            return [to_tensor(a) if str(i) in self._tensors else a for i, a in enumerate(params)]
        return {n: to_tensor(a) if n in self._tensors else a for n, a in params.items()}


def _check_sent(task: ScriptTask) -> None:
    if task.sent is None:
        raise script_error(
            f"The script sent no result for round {task.round}.",
            "Call task.send(net.state_dict()) at the end of the loop's body.",
        )


def describe(error: Exception) -> str:
    """Return one line for an error that came too late to fail anything."""
    return str(error) if isinstance(error, LearnerError) else f"{type(error).__name__}: {error}"
