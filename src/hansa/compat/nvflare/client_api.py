"""FLARE's client API: a training script that receives models and sends them.

    import nvflare.client as flare
    flare.init()
    while flare.is_running():
        model = flare.receive()
        flare.send(flare.FLModel(params=..., metrics={"accuracy": 0.9}))

Each client has a copy of the script in a thread of its own, which waits between rounds; while it
works, everything else waits for it, so that what it draws depends on round and client alone.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import queue
import runpy
import shlex
import sys
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from hansa.compat.nvflare.components import Executor, FLContext, Signal
from hansa.compat.nvflare.exchange import DXO, Shareable, from_shareable, make_reply
from hansa.compat.nvflare.names import AppConstants, DataKind, EventType, MetaKey, ReturnCode
from hansa.errors import LearnerError

_LOOK_S = 0.02  # between two looks at the abort signal


class ParamsType(StrEnum):
    """Whether a model is whole, or what it differs by."""

    FULL = "FULL"
    DIFF = "DIFF"


class FLModel:
    """A model with metrics, as scripts exchange it."""

    def __init__(
        self,
        params_type: str | None = None,
        params: Any = None,
        optimizer_params: Any = None,
        metrics: Any = None,
        start_round: int | None = 0,
        current_round: int | None = None,
        total_rounds: int | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        self.params_type = ParamsType(params_type or ParamsType.FULL)
        self.params, self.optimizer_params, self.metrics = params, optimizer_params, metrics
        self.start_round, self.current_round = start_round, current_round
        self.total_rounds, self.meta = total_rounds, dict(meta or {})


class _Session:
    """One client's script, and what passes to and from it."""

    def __init__(self, path: Path, words: list[str], site: str, exchange: dict[str, Any]) -> None:
        self.site, self.task, self.exchange = site, "", exchange
        self.metrics: Any = None  # what a decorated function has said of the model
        self._model: FLModel | None = None  # that of the task, until something is sent
        self.raised: BaseException | None = None
        self.idle = threading.Event()  # whether it waits for a task
        self._waiting: tuple[str, FLModel] | None = None
        self._tasks: queue.SimpleQueue[tuple[str, FLModel] | None] = queue.SimpleQueue()
        self.sent: queue.SimpleQueue[FLModel] = queue.SimpleQueue()
        self._path, self._words = path, words
        self.thread = threading.Thread(target=self._run, name=f"script of {site}", daemon=True)

    def _run(self) -> None:
        _here.session = self
        sys.argv = [str(self._path), *self._words]
        try:
            runpy.run_path(str(self._path), run_name="__main__")
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for its answer
            self.raised = error

    def give(self, task: tuple[str, FLModel] | None) -> None:
        """Let the script go on with a task, or to its end."""
        self.idle.clear()
        self._tasks.put(task)

    def has_task(self) -> bool:
        """Wait for a task; return whether there is one."""
        if self._waiting is None:
            self.idle.set()
            self._waiting, self._model = self._tasks.get(), None
        self.task = self._waiting[0] if self._waiting else ""
        return self._waiting is not None

    def take(self) -> FLModel | None:
        """Wait for a task, and return its model: the same one until something is sent."""
        if self._model is not None:
            return self._model
        if not self.has_task() or self._waiting is None:
            return None
        (_, self._model), self._waiting = self._waiting, None
        return self._model

    def answer(self, model: FLModel) -> None:
        """Send a model; what is received next is the next task's."""
        self._model = None
        self.sent.put(model)


_here = threading.local()


def _session() -> _Session:
    found = getattr(_here, "session", None)
    if found is None:
        raise LearnerError(
            "learner-script",
            "The client API was called in another thread than the script's own.",
            "Call flare.receive and flare.send where the script runs.",
        )
    session: _Session = found
    return session


def init(*args: Any, **options: Any) -> None:
    """Begin; the script is known already."""
    _session()


def receive(timeout: float | None = None, *args: Any) -> FLModel | None:
    """Wait for the next model; None once the run is over."""
    return _session().take()


def send(model: FLModel, clear_cache: bool = True, *args: Any) -> None:
    """Send a model, or metrics."""
    if not isinstance(model, FLModel):
        raise TypeError(f"an FLModel is sent, not {type(model).__name__}")
    _session().answer(model)


def is_running(*args: Any) -> bool:
    """Wait for the next task; return False once the run is over."""
    return _session().has_task()


def is_train(*args: Any) -> bool:
    """Return whether the task is to train."""
    return _session().task == "train"


def is_evaluate(*args: Any) -> bool:
    """Return whether the task is to evaluate."""
    return _session().task == "evaluate"


def is_submit_model(*args: Any) -> bool:
    """Return False: a client's own model is made by training once more."""
    return False


def get_task_name(*args: Any) -> str:
    """Return the task's kind."""
    return _session().task


def get_site_name(*args: Any) -> str:
    """Return the client's name."""
    return _session().site


def get_job_id(*args: Any) -> str:
    """Return the run's number, as text."""
    return "1"


def get_config() -> dict[str, Any]:
    """Return what the script's executor was told."""
    exchange = dict(_session().exchange)
    return {"site_name": get_site_name(), "job_id": get_job_id(), "TASK_EXCHANGE": exchange}


def train(function: Callable[..., Any] | None = None, **unused: Any) -> Any:
    """Decorate a function whose first argument is the received model: what it returns is sent."""

    def run(trains: Callable[..., Any], options: dict[str, Any]) -> Any:
        session, made = _session(), trains(**options)
        if not isinstance(made, FLModel):
            raise TypeError(f"{trains.__name__} returned {type(made).__name__}, and no FLModel")
        if session.metrics is not None:
            made.metrics, session.metrics = session.metrics, None
        send(made)
        return made

    return _with_model(run, function)


def evaluate(function: Callable[..., Any] | None = None, **unused: Any) -> Any:
    """Decorate a function of the received model: its metrics go with what is trained next."""

    def run(measures: Callable[..., Any], options: dict[str, Any]) -> Any:
        session, said = _session(), measures(**options)
        if said is None:
            raise TypeError(f"{measures.__name__} returned no metrics")
        session.metrics = said
        return said

    return _with_model(run, function)


def _with_model(
    run: Callable[[Callable[..., Any], dict[str, Any]], Any], function: Callable[..., Any] | None
) -> Any:
    """Return a decorator, or the function if that is given, which gets the received model first.

    Only what it is called with by name is handed on, as FLARE does.
    """

    def decorate(inner: Callable[..., Any]) -> Callable[..., Any]:
        first = next(iter(inspect.signature(inner).parameters))

        @functools.wraps(inner)
        def wrapper(*args: Any, **options: Any) -> Any:
            return run(inner, {**options, first: receive()})

        return wrapper

    return decorate if function is None else decorate(function)


def system_info(*args: Any) -> dict[str, str]:
    """Return who this is."""
    return {"site_name": get_site_name(), "job_id": get_job_id(), "identity": get_site_name()}


def do_nothing(*args: Any, **options: Any) -> None:
    """Do nothing: metrics travel with the model, and a script ends with its run."""


def _metrics(sent: FLModel) -> dict[str, Any]:
    """Return what a script has measured; FLARE lets it send a number without a name too."""
    said: Any = sent.metrics
    if said is None or hasattr(said, "items"):
        return dict(said or {})
    return {"metric": float(said)}


class ScriptExecutor(Executor):
    """Hands tasks to a script that uses the client API."""

    def __init__(
        self,
        task_script_path: str,
        task_script_args: str = "",
        train_task_name: str = AppConstants.TASK_TRAIN,
        evaluate_task_name: str = AppConstants.TASK_VALIDATION,
        params_transfer_type: str = ParamsType.FULL,
        params_exchange_format: str = "numpy",
        execution_mode: str = "in_process",
        **options: Any,
    ) -> None:
        super().__init__()
        if execution_mode != "in_process":
            raise LearnerError(
                "learner-capability",
                f"The app runs its script with execution_mode {execution_mode!r}.",
                'Hansa runs scripts in its own worker: write "in_process" in model.py.',
            )
        self._as_tensors = params_exchange_format == "pytorch"
        self._script, self._words = task_script_path, shlex.split(task_script_args)
        self._tasks = {train_task_name: "train", evaluate_task_name: "evaluate"}
        self._exchange = {
            "exchange_format": params_exchange_format,
            "transfer_type": str(params_transfer_type),
            "train_task_name": train_task_name,
            "eval_task_name": evaluate_task_name,
        }
        self._as_difference = params_transfer_type == ParamsType.DIFF
        self._open: _Session | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Let the script go to its end when the run ends."""
        if event_type == EventType.END_RUN and self._open is not None:
            self._open.give(None)
            self._open.thread.join(_LOOK_S * 10)

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Have the script do a task."""
        if task_name not in self._tasks:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        received = from_shareable(shareable).data
        kept = {name: array.copy() for name, array in received.items()}
        model = self._model(received, shareable)
        session = self._running(fl_ctx)
        session.give((self._tasks[task_name], model))
        sent = self._answer(session, abort_signal)
        if sent is None:
            return make_reply(ReturnCode.TASK_ABORTED)
        if self._tasks[task_name] == "evaluate":
            return DXO(DataKind.METRICS, _metrics(sent)).to_shareable()
        return self._trained(sent, kept)

    def _model(self, received: dict[str, Any], shareable: Shareable) -> FLModel:
        params = dict(received)
        if self._as_tensors:
            torch = importlib.import_module("torch")
            params = {name: torch.as_tensor(array) for name, array in received.items()}
        return FLModel(
            params=params,
            current_round=shareable.get_header(AppConstants.CURRENT_ROUND),
            total_rounds=shareable.get_header(AppConstants.NUM_ROUNDS),
        )

    def _running(self, fl_ctx: FLContext) -> _Session:
        if self._open is None or not self._open.thread.is_alive():
            app = Path(fl_ctx.get_workspace().get_app_dir())
            places = (app / "custom" / self._script, app / self._script)
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                raise LearnerError(
                    "learner-script",
                    f"There is no script {self._script} in custom/.",
                    "Correct task_script_path in model.py.",
                )
            site = fl_ctx.get_identity_name()
            self._open = _Session(path, self._words, site, self._exchange)
            self._open.thread.start()
            while self._open.thread.is_alive() and not self._open.idle.wait(_LOOK_S):
                pass  # what it does before its loop belongs to its first task
        return self._open

    def _answer(self, session: _Session, abort_signal: Signal) -> FLModel | None:
        """Wait for what the script sends; None where the task was aborted.

        Raises:
          BaseException: whatever the script raises.
        """
        while not abort_signal.triggered:
            try:
                sent = session.sent.get(timeout=_LOOK_S)
                while session.thread.is_alive() and not session.idle.wait(_LOOK_S):
                    pass  # what it does after sending belongs to this task too
                return sent
            except queue.Empty:
                if session.thread.is_alive() or not session.sent.empty():
                    continue
            if session.raised is not None:
                raise session.raised
            raise LearnerError(
                "learner-script",
                f"{self._script} ended without sending a model.",
                "Let it loop: while flare.is_running(): model = flare.receive() ... flare.send",
            )
        return None

    def _trained(self, sent: FLModel, kept: dict[str, Any]) -> Shareable:
        if not isinstance(sent.params, dict):
            raise LearnerError(
                "learner-script",
                f"{self._script} sent no parameters for a training task.",
                "Send FLModel(params={...}) with arrays by name.",
            )
        params = {
            name: value.detach().cpu().numpy() if hasattr(value, "detach") else value
            for name, value in sent.params.items()
        }
        kind = DataKind.WEIGHTS if sent.params_type == ParamsType.FULL else DataKind.WEIGHT_DIFF
        if self._as_difference and kind == DataKind.WEIGHTS:
            kind = DataKind.WEIGHT_DIFF
            params = {name: value - kept[name] for name, value in params.items()}
        meta = dict(sent.meta)
        if said := _metrics(sent):
            meta[MetaKey.INITIAL_METRICS] = said
        return DXO(kind, params, meta).to_shareable()


class TorchScriptExecutor(ScriptExecutor):
    """The same with tensors of PyTorch."""

    def __init__(self, task_script_path: str, **options: Any) -> None:
        super().__init__(task_script_path, **{"params_exchange_format": "pytorch", **options})
