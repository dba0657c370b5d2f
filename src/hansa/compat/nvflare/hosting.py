"""From a task to an executor and back, in the process that runs a FLARE app's clients."""

from __future__ import annotations

import logging
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hansa.compat.arrays import in_given_precision
from hansa.compat.nvflare.components import Executor, FLContext
from hansa.compat.nvflare.engine import Engine, build
from hansa.compat.nvflare.exchange import DXO, ModelLearnableKey, Shareable, from_shareable
from hansa.compat.nvflare.filters import KEY
from hansa.compat.nvflare.names import (
    AppConstants,
    DataKind,
    EventType,
    FLContextKey,
    MetaKey,
    ReservedHeaderKey,
    ReturnCode,
)
from hansa.compat.nvflare.wire import Answer, Parts, Setup, Task
from hansa.compat.serving import IMPORT_KEY, take_code
from hansa.errors import LearnerError
from hansa.learners.generators import seeded
from hansa.seeds import Key

_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


class Host:
    """The client code of one app, or of several that have the same code.

    Args:
      setup: whose code it is.

    Raises:
      RunError: run-changed, the files are not those that the project was opened with.
    """

    def __init__(self, setup: Setup) -> None:
        folder = Path(setup.folder)
        take_code(folder, setup.digest)
        sys.path.insert(0, str(folder.resolve() / "custom"))
        self._setup, self._folder = setup, folder
        self._temporary = tempfile.TemporaryDirectory(prefix="hansa-app-")
        self._sites: dict[str, _Site] = {}
        self._working: _Site | None = None
        set_up_logging(setup.log_levels)

    def serve(self, task: Task, arrays: dict[str, np.ndarray]) -> tuple[Answer, dict[str, Any]]:
        """Have a client do a task.

        Raises:
          Exception: whatever the app's code raises.
        """
        if task.kind == "seed":
            with seeded(Key(task.key)):
                return Answer(0), self._seed()
        if task.site not in self._sites:
            root = Path(self._temporary.name) / task.site
            with seeded(IMPORT_KEY):
                engine = Engine(task.site, root, self._folder)
                self._sites[task.site] = _Site(self._setup, self._parts(task.site), engine)
        self._working = self._sites[task.site]
        try:
            with seeded(Key(task.key)):
                return self._working.do(task, arrays)
        finally:
            self._working = None

    def _parts(self, site: str) -> Parts:
        return next(p for p in self._setup.apps if not p.sites or site in p.sites)

    def abort(self) -> None:
        """Trigger the signal of the client that is at work, and tell its components."""
        if (site := self._working) is not None:
            site.abort()

    def close(self) -> None:
        """Tell all components that the run has ended."""
        for site in self._sites.values():
            site.end()
        self._temporary.cleanup()

    def _seed(self) -> dict[str, np.ndarray]:
        """Return the weights that the app's persistor starts from."""
        persistor = build(self._setup.persistor, self._setup.file)
        engine = Engine("server", Path(self._temporary.name) / "server", self._folder)
        engine.add(persistor)
        ctx = engine.new_context()
        ctx.set_prop(AppConstants.START_ROUND, self._setup.start_round, sticky=False)
        engine.fire_event(EventType.START_RUN, ctx)
        loaded = persistor.load(ctx)
        weights = loaded.get(ModelLearnableKey.WEIGHTS) if isinstance(loaded, dict) else None
        if not weights:
            raise LearnerError(
                "learner-incomplete",
                f"{type(persistor).__name__} of the app loads no weights, so there is no model to "
                "start from.",
                "Let load_model return make_model_learnable(weights, {}).",
            )
        return _arrays(weights, "load_model")


class _Site:
    """One client, with components of its own."""

    def __init__(self, setup: Setup, parts: Parts, engine: Engine) -> None:
        self._setup, self._engine = setup, engine
        for part in parts.components:
            engine.add(build(part, setup.file), str(part.get("id")))
        self._executors: list[tuple[list[str], Executor]] = [
            (list(part["tasks"]), engine.add(build(part["executor"], setup.file)))
            for part in parts.executors
        ]
        self._filters = {
            "data": self._chains(parts.data_filters),
            "result": self._chains(parts.result_filters),
        }
        self._fire(EventType.ABOUT_TO_START_RUN, engine.new_context())
        self._fire(EventType.START_RUN, engine.new_context())

    def _chains(self, described: list[dict[str, Any]]) -> list[tuple[list[str], Any]]:
        return [
            (list(chain["tasks"]), self._engine.add(build(part, self._setup.file)))
            for chain in described
            for part in chain["filters"]
        ]

    def _fire(self, event: str, ctx: FLContext) -> None:
        self._engine.fire_event(event, ctx)
        self._engine.keep(ctx)

    def do(self, task: Task, arrays: dict[str, np.ndarray]) -> tuple[Answer, dict[str, Any]]:
        """Have the executor of a task do it."""
        name = task.name if task.kind == "ask" else self._setup.tasks[task.kind]
        executor = next((e for tasks, e in self._executors if name in tasks or "*" in tasks), None)
        if executor is None and task.kind == "ask":
            raise LearnerError(
                "task-unknown",
                f"No executor of {self._engine.site} does the task {name!r}: "
                f"{ReturnCode.TASK_UNKNOWN}.",
                "Name it under an executor in config_fed_client.json, and import the app again.",
            )
        if executor is None:
            return Answer(0), {}  # a client need not validate; who trains is known at import
        engine, ctx = self._engine, self._engine.new_context()
        engine.panic = ""
        engine.abort_signal.reset()
        # An executor may write into what it gets, and a difference is added to what it got.
        given = {key: array.copy() for key, array in arrays.items()}
        shareable = self._shareable(task, name, arrays)
        ctx.set_peer_context(self._peer(task))
        ctx.set_prop(KEY, Key(task.key), sticky=False)
        ctx.set_prop(FLContextKey.TASK_NAME, name, sticky=False)
        ctx.set_prop(FLContextKey.TASK_DATA, shareable, sticky=False)
        shareable = self._filtered("data", name, shareable, ctx)
        self._fire(EventType.BEFORE_TASK_EXECUTION, ctx)
        result = executor.execute(name, shareable, ctx, engine.abort_signal)
        ctx.set_prop(FLContextKey.TASK_RESULT, result, sticky=False)
        self._fire(EventType.AFTER_TASK_EXECUTION, ctx)
        self._require_ok(result, executor, name)
        result = self._filtered("result", name, result, ctx)
        if task.kind == "ask":
            return _answered(result)
        dxo = from_shareable(result)
        if task.kind == "evaluate":
            return Answer(0, _numbers(dxo.data)), {}
        return self._trained(dxo, given, name)

    def abort(self) -> None:
        """Ask the task that is being done to end."""
        self._engine.abort_signal.trigger("the run was stopped")
        self._fire(EventType.ABORT_TASK, self._engine.new_context())

    def end(self) -> None:
        """Tell that the run has ended."""
        self._fire(EventType.ABOUT_TO_END_RUN, self._engine.new_context())
        self._fire(EventType.END_RUN, self._engine.new_context())

    def _shareable(self, task: Task, name: str, arrays: dict[str, np.ndarray]) -> Shareable:
        shareable = DXO(DataKind.WEIGHTS, dict(arrays)).to_shareable() if arrays else Shareable()
        shareable.update(task.settings)
        headers = {
            ReservedHeaderKey.TASK_NAME: name,
            ReservedHeaderKey.TASK_ID: f"{name}-{task.round}",
            AppConstants.CURRENT_ROUND: task.round,
            AppConstants.NUM_ROUNDS: self._setup.rounds,
            AppConstants.MODEL_OWNER: "server",
        }
        for key, value in headers.items():
            shareable.set_header(key, value)
        shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, task.round)
        return shareable

    def _peer(self, task: Task) -> FLContext:
        peer = FLContext()
        peer.set_prop(FLContextKey.CURRENT_RUN, 1, private=False)
        peer.set_prop(AppConstants.CURRENT_ROUND, task.round, private=False)
        return peer

    def _filtered(self, side: str, name: str, content: Shareable, ctx: FLContext) -> Shareable:
        for tasks, part in self._filters[side]:
            if name in tasks or "*" in tasks:
                content = part.process(content, ctx)
        return content

    def _require_ok(self, result: Any, executor: Executor, name: str) -> None:
        """Refuse what says that a task was not done.

        Raises:
          LearnerError: client-failed, with the return code and what the executor said.
        """
        said = result.get_return_code() if isinstance(result, Shareable) else "no Shareable"
        if said == ReturnCode.OK and not self._engine.panic:
            return
        panic = f"; it said: {self._engine.panic}" if self._engine.panic else ""
        raise LearnerError(
            "client-failed",
            f"{type(executor).__name__} of {self._engine.site} answered the task {name!r} with "
            f"{said}{panic}.",
            "What it wrote to the log says more.",
        )

    def _trained(
        self, dxo: DXO, given: Mapping[str, np.ndarray], name: str
    ) -> tuple[Answer, dict[str, Any]]:
        """Return what a training gave, as a whole model."""
        expected = self._setup.expects or dxo.data_kind
        if expected not in (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF):
            expected = DataKind.WEIGHTS
        if dxo.data_kind != expected or dxo.get_meta_prop(MetaKey.PROCESSED_ALGORITHM):
            how = "encrypted" if dxo.data_kind == expected else dxo.data_kind
            raise LearnerError(
                "learner-params",
                f"{self._engine.site} answered the task {name!r} with {how} data; the app's "
                f"aggregator expects {expected}.",
                "Correct expected_data_kind of the aggregator (expects= in model.py), or the code.",
            )
        arrays = _arrays(dxo.data, name)
        if expected == DataKind.WEIGHT_DIFF:
            arrays = _added(arrays, given)
        elif self._filters["result"]:
            arrays = {**given, **arrays}  # what a filter has left out stays as it was sent
        steps = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1.0)
        before = dxo.get_meta_prop(MetaKey.INITIAL_METRICS)
        told = before if isinstance(before, dict) else {MetaKey.INITIAL_METRICS: before}
        metrics = _numbers(told)
        if self._setup.says_more:
            others = dxo.meta.keys() - {MetaKey.NUM_STEPS_CURRENT_ROUND, MetaKey.INITIAL_METRICS}
            metrics |= _numbers({key: dxo.meta[key] for key in sorted(others, key=str)})
            metrics |= {expected: 1.0} if expected == DataKind.WEIGHT_DIFF else {}
        return Answer(0, metrics, float(steps)), in_given_precision(arrays, given)


def _answered(result: Shareable) -> tuple[Answer, dict[str, np.ndarray]]:
    """Return what an executor gave to a named task: arrays, and all the rest as facts."""
    arrays: dict[str, np.ndarray] = {}
    facts = {key: v for key, v in result.items() if key not in (ReservedHeaderKey.HEADERS, "DXO")}
    if result.get_header(ReservedHeaderKey.CONTENT_TYPE) == "DXO":
        dxo = from_shareable(result)
        data = dict(dxo.data)
        arrays = {str(k): v for k, v in data.items() if isinstance(v, np.ndarray)}
        facts |= {str(k): v for k, v in data.items() if not isinstance(v, np.ndarray)}
        facts |= {"kind": dxo.data_kind, "meta": dict(dxo.meta)}
    return Answer(0, facts=_plain(facts)), arrays


def _plain(value: Any) -> Any:
    """Return facts with NumPy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _arrays(weights: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    arrays = {str(name): np.asarray(value) for name, value in weights.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise LearnerError(
                "learner-params",
                f"{where} gives {name} as {array.dtype}, which is no tensor.",
                "Give NumPy arrays of numbers.",
            )
    return arrays


def _added(
    diff: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the model that a difference leads to; what it does not name stays."""
    if unknown := diff.keys() - given.keys():
        raise LearnerError(
            "learner-params",
            f"The difference names {', '.join(sorted(unknown))}, which the model does not have.",
            "Keep the names of the model.",
        )
    moved = {name: np.asarray(array + diff[name]) for name, array in given.items() if name in diff}
    for name, array in moved.items():
        whole = array.astype(given[name].dtype)
        if whole.dtype.kind in "iub" and (whole == array).all():  # else it is refused, not cut
            moved[name] = whole
    return {**given, **moved}


def _numbers(values: Any) -> dict[str, float]:
    """Return the numbers among a client's metrics."""
    found = {}
    for name, value in dict(values).items():
        if isinstance(value, int | float | np.number) and not isinstance(value, bool):
            found[str(name)] = float(value) if math.isfinite(value) else math.nan
    return found


def set_up_logging(levels: Mapping[str, str]) -> None:
    """Show what an app's loggers say, from these levels on."""
    logging.basicConfig(stream=sys.stderr, format=_FORMAT, level=levels.get("root", "WARNING"))
    for name, level in levels.items():
        if name != "root":
            logging.getLogger(name).setLevel(level)
