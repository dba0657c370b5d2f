"""Where a run's server functions are executed, and the process in which they are."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple, TypeVar

import numpy as np

from hansa.errors import RunError
from hansa.functions.messages import (
    KEPT,
    MODEL,
    Call,
    Function,
    Go,
    One,
    Raised,
    Ready,
    Reply,
    Returned,
    Setup,
)
from hansa.hosting.confined import Limits
from hansa.hosting.process import HostedProcess, Lost
from hansa.hosting.sandbox import environment, sandbox_command
from hansa.hosting.wire import receive_with, send_with
from hansa.limits import FUNCTION_SLACK_BYTES, FUNCTION_TIMES_MAX
from hansa.plan import Plan
from hansa.text import clean

_INSIDE, _SHOWN = "/hansa/package", "/hansa/shown"


class Shown:
    """Shows what the functions print to whoever simulates."""

    def write(self, data: bytes) -> None:
        """Write to standard error."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(data.decode("utf-8", "backslashreplace"))


class Place(NamedTuple):
    """Where the functions run.

    `confined`: in a sandbox, and with `limits`.  `hidden`: folders that they never see.  `scratch`:
    where the code lies meanwhile; None for the system's place, which no start sweeps.  `wanted`:
    whether the run goes on; a process that computes for one that was stopped is ended.
    """

    code: Mapping[str, bytes]  # of the project
    confined: bool = False
    hidden: tuple[Path, ...] = ()
    limits: Limits = Limits()
    log: Any = Shown()  # gets what they print; has `write(bytes)`
    scratch: Path | None = None
    wanted: Callable[[], bool] = lambda: True


class Answer(NamedTuple):
    """What a function returned."""

    value: Any
    memory: Any  # plain JSON data; see `hansa.functions.memory`
    model: dict[str, np.ndarray]  # of `aggregate`
    kept: dict[str, np.ndarray]  # arrays of the memory


P = TypeVar("P", bound="GuestProcess")


class GuestProcess(HostedProcess[tuple[Any, dict[str, np.ndarray]]], ABC):
    """A process that runs code of a project for a run, and answers frames with arrays."""

    most = FUNCTION_SLACK_BYTES  # bytes of arrays that it may send
    replies: ClassVar[Any]  # the frames that it may answer

    def receive(self, pipe: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
        """Return the next frame, and its arrays."""
        return receive_with(pipe, self.replies, most=self.most)


class _Process(GuestProcess):
    replies = Reply


class Room:
    """The folder of one process: the project's code, and what it is shown besides.

    Args:
      place: where the process runs.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        if place.scratch is not None:
            place.scratch.mkdir(exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="hansa-functions-", dir=place.scratch)
        self._package = Path(self._folder.name) / "package"
        self.shown = Path(self._folder.name) / "shown"
        self.shown.mkdir()
        for name, content in place.code.items():
            path = self._package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def inside(self) -> tuple[str, str]:
        """Return where the process sees the code, and what it is shown."""
        if self._place.confined:
            return _INSIDE, _SHOWN
        return str(self._package), str(self.shown)

    def start(self, kind: type[P], module: str) -> P:
        """Start the process; call it from a thread that lives as long as it shall."""
        place = self._place
        command = [sys.executable, "-P", "-s", "-m", module]
        if place.confined:
            seen = {_INSIDE: self._package, _SHOWN: self.shown}
            command = sandbox_command(command, readable=seen, hidden=place.hidden)
        return kind(
            command,
            environment=environment() if place.confined else dict(os.environ),
            folder=None if place.confined else self._package,
            log=place.log,
            counted=place.confined,
            over=("function-time", "the limit of code at a server"),
            wanted=place.wanted,
        )

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


class Functions:
    """The process of one run's server functions; it is started when it is first needed.

    Use it from one thread, which lives as long as it shall.

    Args:
      plan: of the run; names the file.
      place: where it runs.
      model_bytes: of the run's model; what comes back is measured by it.
    """

    def __init__(self, plan: Plan, place: Place, model_bytes: int) -> None:
        self._plan, self._place = plan, place
        self._most = FUNCTION_TIMES_MAX * model_bytes + FUNCTION_SLACK_BYTES
        self._process: _Process | None = None
        self._room: Room | None = None

    def call(self, call: Call, arrays: Mapping[str, np.ndarray]) -> Answer:
        """Call `select` or `settings`.

        Args:
          call: which, and with what.
          arrays: the model's, as `model/NAME`, and the memory's, as `memory/NUMBER`.

        Raises:
          RunError: function-failed or function-time; the process is gone after the second.
        """
        return self._answer(call, arrays, lambda pipe: None)

    def aggregate(
        self,
        call: Call,
        arrays: Mapping[str, np.ndarray],
        updates: Iterator[tuple[One, dict[str, np.ndarray]]],
    ) -> Answer:
        """Call `aggregate`, sending one update after the other; otherwise as `call`."""

        def say(pipe: BinaryIO) -> None:
            for one, model in updates:
                send_with(pipe, one, model)
            send_with(pipe, Go(), {})

        return self._answer(call, arrays, say)

    def close(self) -> None:
        """End the process, and remove its folder."""
        if self._process is not None:
            self._process.close()
        if self._room is not None:
            self._room.close()
        self._process = self._room = None

    def _answer(
        self, call: Call, arrays: Mapping[str, np.ndarray], more: Callable[[BinaryIO], None]
    ) -> Answer:
        process = self._running(call.function)
        process.most = self._most

        def say(pipe: BinaryIO) -> None:
            send_with(pipe, call, dict(arrays))
            more(pipe)

        reply, back = self._asked(process, say, call.function)
        if not isinstance(reply, Returned):
            raise self._lost(call.function, "client-lost", "It answered something else.")
        return Answer(reply.value, reply.memory, _below(MODEL, back), _below(KEPT, back))

    def _running(self, function: Function) -> _Process:
        if self._process is not None and self._process.alive:
            return self._process
        self.close()
        plan = self._plan
        self._room = Room(self._place)
        self._process = process = self._room.start(_Process, "hansa.functions.worker")
        assert plan.server_functions.file is not None  # or nobody would ask
        setup = Setup(
            self._place.limits,
            self._room.inside()[0],
            plan.server_functions.file,
            plan.seed,
            plan.rounds,
        )
        reply, _ = self._asked(process, lambda pipe: send_with(pipe, setup, {}), function)
        if not isinstance(reply, Ready):
            raise self._lost(function, "client-lost", "It answered something else.")
        return process

    def _asked(
        self, process: _Process, say: Callable[[BinaryIO], None], function: Function
    ) -> tuple[Any, dict[str, np.ndarray]]:
        try:
            reply, back = process.asked(say, seconds=self._plan.server_functions.time_s)
        except Lost as lost:
            raise self._lost(function, *lost.args) from None
        if isinstance(reply, Raised):
            raise failed(self._plan, function, reply.what, trace=reply.trace)
        return reply, back

    def _lost(self, function: Function, code: str, what: str) -> RunError:
        words = "" if self._process is None else self._process.last_words()
        self.close()
        if code == "function-time":
            return RunError(
                "function-time",
                f"{function}() of {self._plan.server_functions.file} was ended. {what}",
                "Make it faster, or raise server_functions.time_s of the plan.",
            )
        return failed(self._plan, function, what, trace=words)


def failed(plan: Plan, function: Function, what: str, *, trace: str = "") -> RunError:
    """Return what to say of a function that failed; its traceback is in a note."""
    error = RunError(
        "function-failed",
        f"{function}() of {plan.server_functions.file} failed: {clean(what, 1_000)}",
        'Correct it, or let the plan say server_functions.failing = "default".',
    )
    if trace:
        error.add_note(trace)
    return error


def _below(start: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
