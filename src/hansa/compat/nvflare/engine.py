"""One client as its components see it: the engine, what is built from a configuration, events."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hansa.compat.nvflare.components import FLContext, Signal, Workspace
from hansa.compat.nvflare.names import EventType, FLContextKey, ReservedKey
from hansa.compat.nvflare.shim import place_of
from hansa.errors import LearnerError

RUN = 1
"""Number of the run, in folders and contexts; each Hansa run has folders of its own."""
_DESCRIPTION = {"path", "class_path", "name", "args", "config_type"}
_FATAL = (EventType.FATAL_SYSTEM_ERROR, EventType.FATAL_TASK_ERROR)


class Engine:
    """What `fl_ctx.get_engine()` gives.

    Args:
      site: the client's name.
      root: folder of the client's runs.
      app: folder of the app.
    """

    def __init__(self, site: str, root: Path, app: Path) -> None:
        self.site, self.panic = site, ""
        self.abort_signal = Signal()
        self._workspace = Workspace(root, site, app)
        self._named: dict[str, Any] = {}
        self._all: list[Any] = []
        self._sticky: dict[str, dict[str, Any]] = {}

    def add(self, component: Any, name: str | None = None) -> Any:
        """Let a component hear events, and be found by a name."""
        self._all.append(component)
        if name is not None:
            self._named[name] = component
        return component

    def get_workspace(self) -> Workspace:
        """Return the client's folders."""
        return self._workspace

    def get_component(self, component_id: str) -> Any:
        """Return a component by its id, or None."""
        return self._named.get(component_id)

    def get_all_components(self) -> dict[str, Any]:
        """Return components by id."""
        return dict(self._named)

    def new_context(self) -> FLContext:
        """Return a context with what stays."""
        ctx = FLContext()
        ctx.props.update({key: dict(prop) for key, prop in self._sticky.items()})
        fixed = {
            ReservedKey.ENGINE: self,
            FLContextKey.WORKSPACE_OBJECT: self._workspace,
            FLContextKey.WORKSPACE_ROOT: self._workspace.get_root_dir(),
            FLContextKey.APP_ROOT: self._workspace.get_app_dir(),
            ReservedKey.RUN_ABORT_SIGNAL: self.abort_signal,
        }
        for key, value in fixed.items():
            ctx.set_prop(key, value, sticky=False)
        ctx.set_prop(ReservedKey.RUN_NUM, RUN, private=False, sticky=False)
        ctx.set_prop(ReservedKey.IDENTITY_NAME, self.site, private=False, sticky=False)
        ctx.set_prop(FLContextKey.CLIENT_NAME, self.site, private=False, sticky=False)
        return ctx

    def keep(self, ctx: FLContext) -> None:
        """Keep a context's sticky properties for later ones."""
        self._sticky |= ctx.sticky()

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Let every component hear an event; what one raises is in the log, as in FLARE.

        At the start of a run it is not: what could not be prepared cannot train.
        """
        if event_type in _FATAL:
            self.panic = self.panic or str(fl_ctx.get_prop(FLContextKey.EVENT_DATA, "no reason"))
        for component in self._all:
            if not hasattr(component, "handle_event"):
                continue
            try:
                component.handle_event(event_type, fl_ctx)
            except Exception:
                if event_type == EventType.START_RUN:
                    raise
                log = logging.getLogger(type(component).__name__)
                log.exception("%s raised in %s", type(component).__name__, event_type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise LearnerError(
            "learner-capability",
            f"The app asks FLARE's engine for {name!r}, which Hansa does not stand in for.",
            "See docs/howto/coming-from-nvflare.md for what there is.",
        )


def build(described: Mapping[str, Any], file: str) -> Any:
    """Make a component from its description.

    Args:
      described: "path" (or "name" of a well-known one) and "args"; arguments may be descriptions.
      file: of the project, in which that stands.

    Raises:
      LearnerError: there is no such class, or it lacks what FLARE asks of it.
    """
    path = str(described.get("path") or described.get("class_path") or "")
    path = path or place_of(str(described.get("name", ""))) or str(described.get("name", ""))
    module, _, name = path.rpartition(".")
    if not module:
        raise LearnerError(
            "learner-incomplete",
            f"The app names a component {path!r}, which is no module with a class.",
            f'Write it as "module.Class" in {file}.',
        )
    kind = getattr(importlib.import_module(module), name, None)
    if kind is None:
        raise LearnerError(
            "learner-incomplete",
            f"{module} has no {name!r}, which the app names.",
            f"Correct the path in {file}.",
        )
    if lacks := sorted(getattr(kind, "__abstractmethods__", ())):
        raise LearnerError(
            "learner-incomplete",
            f"{path} of the app has no {' and no '.join(lacks)}, which FLARE calls.",
            f"Write {'it' if len(lacks) == 1 else 'them'} in the class {name}.",
        )
    arguments = described.get("args", {}).items()
    return kind(**{key: _argument(value, file) for key, value in arguments})


def _argument(value: Any, file: str) -> Any:
    if isinstance(value, list):
        return [_argument(item, file) for item in value]
    if isinstance(value, dict):
        named = value.get("path") or value.get("class_path")
        if named and value.keys() <= _DESCRIPTION and "." in str(named):
            return build(value, file)
        return {key: _argument(item, file) for key, item in value.items()}
    return value
