"""What is told of an exception of the user's code: its traceback, and the line that raised."""

from __future__ import annotations

import traceback
from pathlib import Path

from hansa.limits import FAILURE_CHARS_MAX


def sound(text: str) -> str:
    """Return text that can be written anywhere; file names bring lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def trace_of(error: BaseException) -> str:
    """Return the end of a traceback."""
    return sound("".join(traceback.format_exception(error))[-FAILURE_CHARS_MAX:])


def line_of(error: BaseException, folder: Path) -> str:
    """Return the line of a folder's files that raised, as in "net.py, line 3"; "" if it is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
