"""The process of a run's own parts, seen from the server."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from hansa.aggregators import Contribution
from hansa.errors import CODES, RunError, UpdateRefused
from hansa.functions.place import GuestProcess, Place, Room
from hansa.hosting.process import Lost
from hansa.hosting.wire import send_with
from hansa.limits import FUNCTION_SLACK_BYTES, FUNCTION_TIMES_MAX, MESSAGE_CHARS_MAX
from hansa.own.messages import (
    Call,
    Denied,
    Facts,
    Given,
    Part,
    Raised,
    Ready,
    Reply,
    Request,
    Returned,
    Setup,
)
from hansa.own.naming import Own
from hansa.own.values import Arrays, Unfit, as_kind, plain, unfit
from hansa.params import Layout, Params, encode
from hansa.params.model import ModelLayout
from hansa.plan import Plan
from hansa.store.client_states import StoredVector, file_name
from hansa.store.files import link_or_copy
from hansa.text import clean

T = TypeVar("T")


class Model(NamedTuple):
    """The tensors of a run's model, as they are submitted."""

    tensors: Sequence[tuple[str, str, Sequence[int]]]
    buffers: Sequence[str]
    constants: Sequence[str] = ()
    fixed: Mapping[str, np.ndarray] = MappingProxyType({})  # values of the constants

    def layout(self) -> ModelLayout:
        """Return the same for whoever computes with it."""
        tensors = ((n, d, tuple(shape)) for n, d, shape in self.tensors)
        layout = ModelLayout(Layout.of(tensors), self.buffers, self.constants)
        return layout.holding(self.fixed) if self.fixed else layout


class _Process(GuestProcess):
    replies = Reply


class Parts:
    """The process of one run's own parts; thread-safe.

    Once it is lost, nothing can be asked of it any more: the run fails.

    Args:
      plan: of the run.
      own: its parts that are the project's.
      place: where the process runs.
      model: of the run.
    """

    def __init__(self, plan: Plan, own: Own, place: Place, model: Model) -> None:
        self._plan, self.own, self._place, self._model = plan, own, place, model
        self._seconds = plan.server_functions.time_s
        self._bytes = model.layout().layout.nbytes
        self._lock = threading.Lock()  # who asks is answered before another asks
        self._room: Room | None = None
        self._process: _Process | None = None
        self._lost: RunError | None = None
        self._most = 0
        self.expect(0)

    def facts(self) -> Facts:
        """Start the process, have the parts made, and end it; return what they are.

        Raises:
          HansaError: what their code raised, or a plan that cannot run.
        """
        try:
            return self.start()
        finally:
            self.close()

    def start(self) -> Facts:
        """Start the process, from a thread that lives as long as it shall; return its facts.

        Raises:
          HansaError: as `facts`.
        """
        with self._lock:
            self._room = room = Room(self._place)
            self._process = room.start(_Process, "hansa.own.worker")
            folder, shown = room.inside()
            tensors = [(n, d, list(shape)) for n, d, shape in self._model.tensors]
            setup = Setup(
                self._place.limits,
                folder,
                shown,
                msgspec.to_builtins(self._plan),
                tensors,
                list(self._model.buffers),
                list(self._model.constants),
            )
            # Only a workflow makes whole models there.
            fixed = self._model.fixed if self.own.workflow else {}
            reply, _ = self._asked("making", setup, dict(fixed))
        if not isinstance(reply, Ready):
            raise self._failed("making", "it answered something else")
        return reply.facts

    def close(self) -> None:
        """End the process, and remove its folder."""
        process, self._process = self._process, None
        if process is not None:
            process.close()
        if self._room is not None:
            self._room.close()
        self._room = None

    def expect(self, clients: int) -> None:
        """Let the process send messages of its own to so many clients."""
        self._most = (FUNCTION_TIMES_MAX + clients) * self._bytes + FUNCTION_SLACK_BYTES

    def call(self, part: Part, value: Any, kind: type[T]) -> T:
        """Call a part with a value; return the value of a kind that it returns.

        Raises:
          RunError: function-failed, function-time, or what its code raised.
        """
        reply, arrays = self.asked(part, Call(part), value)
        if not isinstance(reply, Returned):
            raise self._failed(part, "it answered something else")
        return self.fitted(part, reply.value, arrays, kind)

    def fitted(self, part: str, value: Any, arrays: Arrays, kind: type[T]) -> T:
        """Return what came from the process as a value of a kind.

        Raises:
          RunError: function-failed, it is none.
        """
        try:
            return as_kind(value, arrays, kind)
        except Unfit as why:
            raise unfit(f"What {self.words(part)} returned", why) from None

    def asked(self, part: str, frame: Call | Given | Denied, value: Any) -> tuple[Reply, Arrays]:
        """Send a frame with a value, and return the next one of the process.

        Raises:
          RunError: as `call`.
        """
        told, arrays = plain(value)
        if not isinstance(frame, Denied):
            frame = msgspec.structs.replace(frame, value=told)
        with self._lock:
            return self._asked(part, frame, arrays)

    def show(self, contributions: Sequence[Contribution]) -> list[tuple[str, str, float]]:
        """Put updates where the process can read them; return client, file and weight of each.

        Raises:
          OSError: the disk refuses it.
        """
        assert self._room is not None  # it has been started
        told = []
        for one in contributions:
            path = self._room.shown / f"{file_name(one.client)}.safetensors"
            stored = next(iter(one.vectors.values()))
            if isinstance(stored, StoredVector):
                link_or_copy(stored.path, path)
            else:
                arrays = {name: np.asarray(vector) for name, vector in one.vectors.items()}
                path.write_bytes(b"".join(encode(Params.of(arrays))))
            told.append((one.client, path.name, float(one.weight)))
        return told

    def hide(self) -> None:
        """Remove what was shown."""
        if self._room is not None:
            for path in self._room.shown.iterdir():
                path.unlink(missing_ok=True)

    def words(self, part: str) -> str:
        """Say what a part is."""
        own = self.own
        named = {
            "making": "making the project's own parts",
            "run": f"the workflow {own.workflow}",
            "aggregate": f"the aggregator {own.aggregator}",
            "decode": f"decode() of the transform {own.transforms}",
        }
        return named.get(part, f"{part}() of the algorithm {own.algorithm}")

    # ---- inside

    def _asked(self, part: str, frame: Request, arrays: Arrays) -> tuple[Reply, Arrays]:
        """Ask; the caller has the lock."""
        if self._lost is not None:
            raise self._lost
        process = self._process
        if process is None:
            raise self._failed(part, "its process has ended with the run")
        process.most = self._most
        try:
            reply, back = process.asked(
                lambda pipe: send_with(pipe, frame, arrays), seconds=self._seconds
            )
        except Lost as lost:
            self._lost = self._as_error(part, *lost.args, words=process.last_words())
            raise self._lost from None
        if isinstance(reply, Raised):
            raise self._raised(part, reply)
        return reply, back

    def _raised(self, part: str, reply: Raised) -> RunError | UpdateRefused:
        """Return what the code raised as an error of this side."""
        if part == "decode":
            code = reply.code if reply.code in CODES else "update-names"
            what = f"{self.words(part)} refuses the update: {clean(reply.what, MESSAGE_CHARS_MAX)}"
            return UpdateRefused(code, what, "Correct the transform, and run again.")
        if reply.code in CODES:
            what, hint = clean(reply.what, MESSAGE_CHARS_MAX), clean(reply.hint, MESSAGE_CHARS_MAX)
            error = RunError(reply.code, what, hint)
        else:
            error = self._failed(part, reply.what)
        if reply.trace:
            error.add_note(reply.trace)
        return error

    def _failed(self, part: str, what: str) -> RunError:
        return RunError(
            "function-failed",
            f"{self.words(part)} failed: {clean(what, MESSAGE_CHARS_MAX)}",
            "Correct it: hansa log shows its traceback, and hansa run calls the same code here.",
        )

    def _as_error(self, part: str, code: str, what: str, *, words: str) -> RunError:
        if code == "function-time":
            return RunError(
                "function-time",
                f"{self.words(part)} was ended. {what}",
                "Make it faster, or raise server_functions.time_s of the plan.",
            )
        error = self._failed(part, what)
        if words:
            error.add_note(words)
        return error
