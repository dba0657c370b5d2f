"""The names by which a command's arguments ask for its files."""

from __future__ import annotations

import re
from collections.abc import Sequence

PLACES = {
    "train": ("model_in", "settings", "data", "update_out", "result_out"),
    "validate": ("model_in", "settings", "data", "result_out"),
    "init": ("settings", "model_out"),
    "predict": ("model_in", "settings", "data", "predictions_out"),
}
"""The files of each kind of command, as its arguments name them."""

_NAMED_TASK = ("model_in", "settings", "data", "update_out", "result_out", "state")


def places_of(task: str) -> tuple[str, ...]:
    """Return the files of a command by what it does; others than those above are named tasks."""
    return PLACES.get(task, _NAMED_TASK)


def unknown_places(task: str, command: Sequence[str]) -> list[str]:
    """Return names in braces that look like a file and are none of this kind of command.

    >>> unknown_places("validate", ["python", "v.py", "{model_in}", "{update_out}", "{print $1}"])
    ['{update_out}']
    """
    found = re.findall(r"\{(\w+_(?:in|out)|data\w*|settings\w*|state\w*)\}", " ".join(command))
    return [f"{{{name}}}" for name in found if name not in places_of(task)]
