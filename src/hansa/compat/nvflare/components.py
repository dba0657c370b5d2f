"""What FLARE's components derive from, and what they find around them at a client."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from hansa.clock import wall
from hansa.compat.nvflare.exchange import ModelLearnable, Shareable, make_reply
from hansa.compat.nvflare.names import (
    AppConstants,
    EventScope,
    EventType,
    FLContextKey,
    ReservedKey,
    ReturnCode,
    ValidateType,
)


class Signal:
    """Says that a task shall end."""

    def __init__(self) -> None:
        self.value: Any = None
        self.trigger_time: float | None = None
        self.triggered = False

    def trigger(self, value: Any) -> None:
        """Say so."""
        self.value, self.trigger_time, self.triggered = value, wall(), True

    def reset(self, value: Any = None) -> None:
        """Take it back."""
        self.value, self.trigger_time, self.triggered = value, None, False


class FLContext:
    """Properties that components share; each is private or public, sticky or not."""

    def __init__(self) -> None:
        self.props: dict[str, dict[str, Any]] = {}
        self.model: Any = None

    def set_prop(self, key: str, value: Any, private: bool = True, sticky: bool = True) -> bool:
        """Set a property; return False where it is there with other attributes."""
        if not isinstance(key, str):
            raise ValueError(f"a property's key is text, not {type(key).__name__}")
        there = self.props.get(key)
        if there is not None and (there["private"], there["sticky"]) != (private, sticky):
            logging.getLogger("FLContext").warning("%s has other attributes already", key)
            return False
        self.props[key] = {"value": value, "private": private, "sticky": sticky}
        return True

    def get_prop(self, key: str, default: Any = None) -> Any:
        """Return a property."""
        return self.props[key]["value"] if key in self.props else default

    def get_prop_detail(self, key: str) -> Any:
        """Return a property with its attributes, or None."""
        return dict(self.props[key]) if key in self.props else None

    def remove_prop(self, key: str) -> None:
        """Remove a property, unless it is the system's."""
        if isinstance(key, str) and not key.startswith("__"):
            self.props.pop(key, None)

    def public_key_exists(self, key: str) -> bool:
        """Return whether there is a public property."""
        return key in self.props and not self.props[key]["private"]

    def get_all_public_props(self) -> dict[str, Any]:
        """Return public properties."""
        return {k: p["value"] for k, p in self.props.items() if not p["private"]}

    def set_public_props(self, metadata: dict[str, Any]) -> None:
        """Replace the public properties."""
        self.props = {k: p for k, p in self.props.items() if p["private"]}
        for key, value in metadata.items():
            self.set_prop(key, value, private=False)

    def get_engine(self) -> Any:
        """Return the engine of the client."""
        return self.get_prop(ReservedKey.ENGINE)

    def get_run_number(self) -> Any:
        """Return the number of the run."""
        return self.get_prop(ReservedKey.RUN_NUM)

    get_job_id = get_run_number

    def get_workspace(self) -> Any:
        """Return the workspace of the client."""
        return self.get_prop(FLContextKey.WORKSPACE_OBJECT)

    def get_identity_name(self, default: str = "") -> Any:
        """Return the name of the client."""
        return self.get_prop(ReservedKey.IDENTITY_NAME, default)

    def get_run_abort_signal(self) -> Any:
        """Return the signal that the run shall end."""
        return self.get_prop(ReservedKey.RUN_ABORT_SIGNAL)

    def set_peer_context(self, ctx: FLContext) -> None:
        """Set the other side's public properties."""
        self.set_prop(ReservedKey.PEER_CTX, ctx, private=True, sticky=False)

    def get_peer_context(self) -> Any:
        """Return the other side's public properties."""
        return self.get_prop(ReservedKey.PEER_CTX)

    def sticky(self) -> dict[str, dict[str, Any]]:
        """Return what stays for later contexts."""
        return {key: prop for key, prop in self.props.items() if prop["sticky"]}

    def sync_sticky(self) -> None:
        """Keep sticky properties for later contexts."""
        if self.get_engine() is not None:
            self.get_engine().keep(self)

    def __enter__(self) -> FLContext:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sync_sticky()


class Workspace:
    """The folders of a client; they live as long as the process that runs it."""

    def __init__(self, root: Path, site: str, app: Path) -> None:
        self._root, self._site, self._app = root, site, app
        self.name = site

    def get_root_dir(self) -> str:
        """Return the folder above all runs."""
        return str(self._root)

    def get_run_dir(self, run_num: Any = 1) -> str:
        """Return the folder of a run; it is there."""
        folder = self._root / f"run_{run_num}"
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def get_app_dir(self, run_num: Any = 1) -> str:
        """Return the folder of the app's code."""
        return str(self._app)

    def get_app_custom_dir(self, run_num: Any = 1) -> str:
        """Return the folder of the app's own modules."""
        return str(self._app / "custom")

    def get_app_config_dir(self, run_num: Any = 1) -> str:
        """Return the folder of the app's configuration."""
        return str(self._app / "config")


class FLComponent:
    """Hears events, fires them, and writes to the log."""

    def __init__(self) -> None:
        self._name = type(self).__name__
        self.name = self._name
        self.logger = logging.getLogger(self._name)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Hear an event; user code does."""

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Let all components of this client hear an event."""
        if not isinstance(event_type, str) or not event_type:
            raise TypeError(f"an event's type is text, not {event_type!r}")
        fl_ctx.set_prop(FLContextKey.EVENT_ORIGIN, type(self).__name__, sticky=False)
        fl_ctx.set_prop(FLContextKey.EVENT_SCOPE, EventScope.LOCAL, sticky=False)
        if fl_ctx.get_engine() is not None:
            fl_ctx.get_engine().fire_event(event_type, fl_ctx)

    def fire_fed_event(
        self, event_type: str, event_data: Shareable, fl_ctx: FLContext, targets: Any = None
    ) -> None:
        """Let this client's components hear an event; it does not travel to other sites."""
        fl_ctx.set_prop(FLContextKey.EVENT_DATA, event_data, sticky=False)
        self.fire_event(event_type, fl_ctx)

    def system_panic(self, reason: str, fl_ctx: FLContext) -> None:
        """Say that the task cannot be done, and why."""
        fl_ctx.set_prop(FLContextKey.EVENT_DATA, reason, sticky=False)
        self.fire_event(EventType.FATAL_SYSTEM_ERROR, fl_ctx)

    def task_panic(self, reason: str, fl_ctx: FLContext) -> None:
        """Say that the task cannot be done, and why."""
        fl_ctx.set_prop(FLContextKey.EVENT_DATA, reason, sticky=False)
        self.fire_event(EventType.FATAL_TASK_ERROR, fl_ctx)

    def _log(self, level: int, fl_ctx: FLContext, msg: str, *, exc_info: bool = False) -> None:
        said = fl_ctx.get_identity_name() if isinstance(fl_ctx, FLContext) else ""
        logger = getattr(self, "logger", None) or logging.getLogger(type(self).__name__)
        logger.log(level, "[%s] %s", said, msg, exc_info=exc_info)

    def log_debug(self, fl_ctx: FLContext, msg: str, fire_event: bool = False) -> None:
        """Write to the log."""
        self._log(logging.DEBUG, fl_ctx, msg)

    def log_info(self, fl_ctx: FLContext, msg: str, fire_event: bool = False) -> None:
        """Write to the log."""
        self._log(logging.INFO, fl_ctx, msg)

    def log_warning(self, fl_ctx: FLContext, msg: str, fire_event: bool = True) -> None:
        """Write to the log."""
        self._log(logging.WARNING, fl_ctx, msg)

    def log_error(self, fl_ctx: FLContext, msg: str, fire_event: bool = True) -> None:
        """Write to the log."""
        self._log(logging.ERROR, fl_ctx, msg)

    def log_critical(self, fl_ctx: FLContext, msg: str, fire_event: bool = True) -> None:
        """Write to the log."""
        self._log(logging.CRITICAL, fl_ctx, msg)

    def log_exception(self, fl_ctx: FLContext, msg: str, fire_event: bool = False) -> None:
        """Write to the log, with the traceback."""
        self._log(logging.ERROR, fl_ctx, msg, exc_info=True)


class Executor(FLComponent):
    """Does tasks at a client."""

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Do a task; user code does."""
        return make_reply(ReturnCode.TASK_UNSUPPORTED)


class Filter(FLComponent):
    """Changes what comes to an executor, or what leaves it."""

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return what goes on; user code does."""
        return shareable


class LearnablePersistor(FLComponent):
    """Loads and saves what is learnt."""

    def load(self, fl_ctx: FLContext) -> Any:
        """Return what learning starts from."""
        return None


class ModelPersistor(LearnablePersistor, ABC):
    """Loads the model that a run starts from; Hansa saves models itself."""

    def load(self, fl_ctx: FLContext) -> Any:
        """Return the model that a run starts from."""
        return self.load_model(fl_ctx)

    @abstractmethod
    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """Return the model that a run starts from; user code does."""


class Learner(FLComponent):
    """Trains and validates; a LearnerExecutor calls it."""

    def initialize(self, parts: dict[str, Any], fl_ctx: FLContext) -> None:
        """Prepare, once; user code does."""

    def train(self, data: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Train; user code does."""
        return make_reply(ReturnCode.TASK_UNSUPPORTED)

    def get_model_for_validation(self, model_name: str, fl_ctx: FLContext) -> Shareable:
        """Return the client's own model; user code does."""
        return make_reply(ReturnCode.TASK_UNSUPPORTED)

    def validate(self, data: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Validate; user code does."""
        return make_reply(ReturnCode.TASK_UNSUPPORTED)

    def abort(self, fl_ctx: FLContext) -> None:
        """End the task; user code does."""

    def finalize(self, fl_ctx: FLContext) -> None:
        """End; user code does."""


class LearnerExecutor(Executor):
    """Hands tasks to the learner that is a component of this id."""

    def __init__(
        self,
        learner_id: str,
        train_task: str = AppConstants.TASK_TRAIN,
        submit_model_task: str = AppConstants.TASK_SUBMIT_MODEL,
        validate_task: str = AppConstants.TASK_VALIDATION,
    ) -> None:
        super().__init__()
        self._learner_id = learner_id
        self._tasks = {train_task: "train", validate_task: "validate", submit_model_task: "submit"}
        self.learner: Any = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Prepare, abort and end the learner when it is time."""
        if event_type == EventType.START_RUN:
            engine = fl_ctx.get_engine()
            self.learner = engine.get_component(self._learner_id)
            if not isinstance(self.learner, Learner):
                raise TypeError(f"the component {self._learner_id!r} is no Learner")
            self.learner.initialize(engine.get_all_components(), fl_ctx)
        elif self.learner is not None and event_type == EventType.ABORT_TASK:
            self.learner.abort(fl_ctx)
        elif self.learner is not None and event_type == EventType.END_RUN:
            self.learner.finalize(fl_ctx)

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Have the learner train, validate, or give its model."""
        match self._tasks.get(task_name):
            case "train":
                return self._done(self.learner.train(shareable, fl_ctx, abort_signal))
            case "validate":
                shareable.set_header(AppConstants.VALIDATE_TYPE, ValidateType.MODEL_VALIDATE)
                return self._done(self.learner.validate(shareable, fl_ctx, abort_signal))
            case "submit":
                name = shareable.get_header(AppConstants.SUBMIT_MODEL_NAME)
                return self._done(self.learner.get_model_for_validation(name, fl_ctx))
        return make_reply(ReturnCode.TASK_UNKNOWN)

    def _done(self, result: Any) -> Shareable:
        return result if isinstance(result, Shareable) else make_reply(ReturnCode.EMPTY_RESULT)
