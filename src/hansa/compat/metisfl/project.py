"""The project that a driver submits: a plan, and two lines that hand over to the learner.

A learner's process imports it only if it is, to the byte, what this module writes.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hansa.compat.metisfl.present import Settings

MODULE = "hansa_hand_over.py"
"""A name that no module of the user has: it is imported in the process of the user."""

_BEFORE = '''"""Trains in the processes of MetisFL learners; written by hansa.compat.metisfl."""

from hansa.compat.metisfl.present import functions

data, init, train, evaluate = functions('''
_AFTER = ")\n"


def module_text(settings: Settings) -> str:
    """Return the project's only module."""
    return f"{_BEFORE}{msgspec.json.encode(settings).decode()!r}{_AFTER}"


def is_ours(code: Mapping[str, bytes]) -> bool:
    """Tell whether a project holds nothing but what `module_text` writes.

    Args:
      code: contents of its Python files by path.
    """
    if set(code) != {MODULE}:
        return False
    try:
        text = code[MODULE].decode()
        said = ast.literal_eval(text.removeprefix(_BEFORE).removesuffix(_AFTER))
        return module_text(msgspec.json.decode(said, type=Settings)) == text
    except (ValueError, TypeError, SyntaxError, RecursionError, msgspec.MsgspecError):
        return False


def write_project(folder: Path, plan: str, settings: Settings) -> None:
    """Write a project anew."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODULE).write_text(module_text(settings), encoding="utf-8")
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
