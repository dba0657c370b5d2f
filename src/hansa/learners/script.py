"""A learner that is the user's own training script; see `hansa.script` for the script's side."""

from __future__ import annotations

import functools
import sys
import warnings
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

from hansa.algorithms import Capability
from hansa.errors import HansaWarning, LearnerError
from hansa.learners.function import (
    FunctionWork,
    TrainContext,
    as_metrics,
    count_examples,
    statistics,
)
from hansa.learners.generators import EVALUATION, import_torch_if_named, seeded
from hansa.learners.learner import Seed, Task, seed_of
from hansa.learners.script_session import Session, describe
from hansa.learners.script_task import ScriptTask
from hansa.limits import SCRIPTS_MAX
from hansa.metrics import Metrics
from hansa.params import Params
from hansa.seeds import Key

_OBSERVER = "evaluation"  # the name, in place of a client's, of the script that only evaluates


class ScriptLearner:
    """Trains by running a script, one copy for each client.

    Scripts wait in their threads between rounds and end with `close`, or when the learner is no
    longer used.  What a script keeps between rounds is not restored after an interruption.

    Args:
      path: of the script.

    Raises:
      LearnerError: there is no such file.
    """

    capabilities: frozenset[Capability] = frozenset()

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise LearnerError(
                "learner-module",
                f"There is no training script {path}.",
                "Name it in the plan: [learner] kind = 'script', module = 'train.py'.",
            )
        self._path = path.resolve()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._end = weakref.finalize(self, _finish, self._sessions)

    def init(self, sample: Any, key: Key) -> Seed:
        session = self._open(_OBSERVER, sample, key.child("init"))
        params = Params.of(session.initial)
        return seed_of(params, statistics(params))

    def begin(self, task: Task, data: Any) -> FunctionWork:
        return FunctionWork(functools.partial(self._train, task.key.child("script")), task, data)

    def evaluate(self, params: Params, data: Any) -> Metrics:
        session = self._sessions.get(_OBSERVER)
        if session is None or session.ended:
            session = self._open(_OBSERVER, data, EVALUATION)
        self._sessions.move_to_end(_OBSERVER)
        if session.evaluate is None:
            return {}
        arrays: Any = params.copy().to_dict()
        with seeded(EVALUATION):
            values = session.measure(_shaped(arrays, session.initial), data)
        return as_metrics(values, self.examples(data), "evaluate")

    def examples(self, data: Any) -> int:
        return count_examples(data)

    def close(self) -> None:
        """End all scripts; those of clients run the lines after their loop."""
        _finish(self._sessions)

    def _train(
        self, key: Key, params: dict[str, Any], data: Any, ctx: TrainContext
    ) -> tuple[Any, dict[str, float]]:
        session = self._sessions.get(ctx.client) or self._open(ctx.client, data, key.child("open"))
        self._sessions.move_to_end(ctx.client)
        session.check_running()
        task = ScriptTask(
            _shaped(params, session.initial),
            round=ctx.round,
            client=ctx.client,
            epochs=ctx.epochs,
            steps=ctx.steps,
            batch_size=ctx.batch_size,
            lr=ctx.lr,
            options=ctx.options,
        )
        try:
            with seeded(key):
                sent = session.train(task)
        except BaseException:
            del self._sessions[ctx.client]  # what it kept may be half done
            raise
        ctx.weight, ctx.examples = sent.weight, sent.examples
        return sent.params, sent.metrics

    def _open(self, client: str, data: Any, key: Key) -> Session:
        folder = self._path.parent
        import_torch_if_named(path.read_bytes() for path in folder.glob("*.py"))
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))  # the script's own imports beside it
        session = Session(self._path, client, data)
        with seeded(key):
            session.open()
        self._sessions[client] = session
        while len(self._sessions) > SCRIPTS_MAX:
            _, oldest = self._sessions.popitem(last=False)
            oldest.finish(last_lines=False)
        return session


def _finish(sessions: OrderedDict[str, Session]) -> None:
    while sessions:
        client, session = sessions.popitem(last=False)
        error = session.finish(last_lines=client != _OBSERVER)
        if error is not None:
            message = f"After the run, the script of {client} failed: {describe(error)}"
            warnings.warn(message, HansaWarning, stacklevel=2)


def _shaped(arrays: dict[str, Any], initial: Any) -> Any:
    """Return named arrays as the script gave its own: by name, or as a list."""
    return list(arrays.values()) if isinstance(initial, list) else arrays
