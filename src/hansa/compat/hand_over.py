"""A run's code that hands over to what a process was started with, and is nothing else.

    from hansa.compat.SYSTEM.present import functions

    data, init, train, evaluate = functions('{...}')

A process of the user's imports such a module only if it is, to the byte, what is written here.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

MODULE = "hansa_hand_over.py"
"""A name that no module of the user has: it is imported in the process of the user."""

_AFTER = ")\n"


class HandOver(NamedTuple):
    """What the runs of one system hand over with."""

    before: str  # the module up to the settings
    settings: type[msgspec.Struct]  # what the module is told
    whose: str  # process it is, in words
    submit: str  # how a run is submitted that such a process takes

    def text(self, settings: msgspec.Struct) -> str:
        """Return the project's only module."""
        return f"{self.before}{msgspec.json.encode(settings).decode()!r}{_AFTER}"

    def is_ours(self, code: Mapping[str, bytes]) -> bool:
        """Tell whether a project holds nothing but what `text` writes.

        Args:
          code: contents of its Python files by path.
        """
        if set(code) != {MODULE}:
            return False
        try:
            text = code[MODULE].decode()
            said = ast.literal_eval(text.removeprefix(self.before).removesuffix(_AFTER))
            return self.text(msgspec.json.decode(said, type=self.settings)) == text
        except (ValueError, TypeError, SyntaxError, RecursionError, msgspec.MsgspecError):
            return False

    def runs_only(self, plan: Mapping[str, Any]) -> bool:
        """Tell whether a plan has nothing run but that module: a plan can name commands, too."""
        learner = plan.get("learner")
        if not isinstance(learner, Mapping):
            return False
        return learner.get("kind") == "function" and learner.get("module") == MODULE

    def write(self, folder: Path, plan: str, settings: msgspec.Struct) -> None:
        """Write a project anew."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODULE).write_text(self.text(settings), encoding="utf-8")
        (folder / "plan.toml").write_text(plan, encoding="utf-8")
