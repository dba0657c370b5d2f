"""Where a round's time went: spans, noted in memory and written with the round's own commit.

A span is a JSON object.  `at` is when it began, in UTC; `begin_s` and `seconds` are of a clock that
never goes back, the first counted from the beginning of the round.

    round       everything from the first task to the commit
    exchange    a phase: from its opening until its last result was in
    task        one client's part of a phase, as far as it came
    aggregate   from the last result to the aggregate; `blocks` were folded before
    save        the model's way to its file, with its bytes and each tensor's zeros

A task began when it was handed out and ended when its result had come.  `wait_s` and `work_s` are
the client's word: seconds until it began to work, and those that it worked.  `select_s`, `insert_s`
and `fold_s` are of the server: reading and checking the update, making it count for good, and, of
these last seconds, adding it to the sum.

Noting costs a look at the clock; nothing is written before the commit, and nothing is lost with
it but times: a round that is interrupted has those since the last start.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hansa.clock import iso, monotonic, wall
from hansa.limits import BLOCK_VALUES, SPAN_TASKS_MAX, SPAN_TENSORS_MAX

if TYPE_CHECKING:  # commands that only look at a server load neither
    import numpy as np

    from hansa.params import Params

Span = dict[str, Any]

TIMED = "timed"
"""Kind of the event that holds a round's spans."""


class Spans:
    """The spans of the round that is going on; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock = (wall(), monotonic())
        self._reset(0)

    def _reset(self, number: int) -> None:
        self._number, self._began = number, monotonic()
        self._spans: list[Span] = []
        self._tasks: dict[tuple[str, str], Span] = {}
        self._left_out = 0

    def open(self, number: int) -> None:
        """Begin a round, unless it has begun."""
        with self._lock:
            if number != self._number:
                self._reset(number)

    def note(self, name: str, since: float, **facts: Any) -> Span:
        """Note what has lasted from `since`, a time of `monotonic`, until now; return the span."""
        seconds = monotonic() - since
        with self._lock:
            span = {**self._placed(name, since), "seconds": _short(seconds), **facts}
            self._spans.append(span)
        return span

    def handed(self, phase: str, client: str) -> None:
        """Note that a client has been given its task; the first time counts."""
        began = monotonic()
        with self._lock:
            if (phase, client) in self._tasks:
                return
            if len(self._tasks) >= SPAN_TASKS_MAX:
                self._left_out += 1
                return
            place = self._placed("task", began)
            self._tasks[phase, client] = {**place, "phase": phase, "client": client}

    def received(self, phase: str, client: str, state: str, **facts: Any) -> None:
        """Note that a client's result has come, and what is known of its work."""
        ended = monotonic()
        with self._lock:
            task = self._tasks.get((phase, client))
            if task is not None:
                seconds = ended - self._began - task["begin_s"]
                task |= {"seconds": _short(max(0.0, seconds)), "state": state, **facts}

    def lasted(self, phase: str, client: str, what: str, since: float) -> None:
        """Note how long the server has done something about a client's result."""
        seconds = _short(monotonic() - since)
        with self._lock:
            task = self._tasks.get((phase, client))
            if task is not None:
                task[what] = seconds

    def close(self, number: int) -> dict[str, Any]:
        """Return a round's spans as the event that is written with its commit."""
        self.open(number)
        with self._lock:
            spans = [*self._spans, *self._tasks.values()]
            whole = {**self._placed("round", self._began), "seconds": _short(self._elapsed())}
            fact = {"kind": TIMED, "round": number, "spans": [whole, *spans]}
            if self._left_out:
                fact["left_out"] = self._left_out
            self._reset(number + 1)
        return fact

    def _elapsed(self) -> float:
        return monotonic() - self._began

    def _placed(self, name: str, began: float) -> Span:
        at, zero = self._clock
        begin = _short(max(0.0, began - self._began))
        return {"span": name, "round": self._number, "at": iso(at + began - zero), "begin_s": begin}


def read_spans(path: Path, last: int, *, most: int | None = None) -> list[Span]:
    """Return the spans of a file up to a round, round by round.

    Args:
      path: of the file.
      last: round up to which they count.
      most: bytes that are read at most, from the end; what begins before is left out.

    Each round's first line is its `round`: where a crash has made one repeat, the later one counts.
    A line that a crash has torn never happened.
    """
    rounds: dict[int, list[Span]] = {}
    try:
        with open(path, "rb") as file:
            if most is not None:
                file.seek(max(0, path.stat().st_size - most))
            for line in file:
                try:
                    span = msgspec.json.decode(line, type=Span)
                    number = span["round"]
                except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
                    continue
                if span.get("span") == "round":
                    rounds[number] = []
                if number in rounds:
                    rounds[number].append(span)
    except FileNotFoundError:
        return []
    return [span for number in sorted(rounds) if number <= last for span in rounds[number]]


def effort(wait_s: float, work_s: float, steps: int, epoch_steps: int) -> dict[str, Any]:
    """Return what is known of a client's work: seconds, local steps and passes.

    >>> effort(0.25, 2.0, 20, 8)["epochs"], effort(0.25, 2.0, 20, 8)["epoch_ms"]
    (2.5, 800.0)
    """
    facts: dict[str, Any] = {"wait_s": _short(wait_s), "work_s": _short(work_s)}
    if steps > 0:
        step_ms = 1000 * work_s / steps
        facts |= {"steps": steps, "step_ms": _short(step_ms)}
        if epoch_steps > 0:
            epochs, epoch_ms = steps / epoch_steps, step_ms * epoch_steps
            facts |= {"epochs": _short(epochs), "epoch_ms": _short(epoch_ms)}
    return facts


def model_facts(model: Params) -> dict[str, Any]:
    """Return the size of a model, and values, zeros and bytes of each tensor.

    >>> import numpy as np
    >>> from hansa.params import Params
    >>> model_facts(Params.of({"w": np.float32([0.0, -0.0, 3.0])}))["tensors"]
    [['w', 3, 2, 12]]
    """
    tensors = [
        [name, int(array.size), _zeros(array), int(array.nbytes)]
        for name, array in list(model.items())[:SPAN_TENSORS_MAX]
    ]
    return {"bytes": model.nbytes, "tensors": tensors}


def _zeros(array: np.ndarray) -> int:
    """Count by comparing: NumPy lets other threads go on meanwhile, and is faster at it."""
    import numpy as np

    flat = array.reshape(-1)
    parts = (flat[at : at + BLOCK_VALUES] for at in range(0, flat.size, BLOCK_VALUES))
    return sum(int(np.count_nonzero(part == 0)) for part in parts)


def memory_kb() -> int | None:
    """Return the most memory that this process has had, in KiB; None where no system says it."""
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 1024 if sys.platform == "darwin" else most


def _short(value: float) -> float:
    return round(value, 6)
