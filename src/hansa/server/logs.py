"""What a running server says: one line an event on standard error, plain or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from typing import Any

from hansa.clock import date_of
from hansa.text import ERROR_CHARS, clean

SERVER_LOG = "hansa.server"

GRANIAN_LOG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {},
    "handlers": {},
    "filters": {"said": {"()": "hansa.server.logs.OnlyNews"}},
    "loggers": {
        "_granian": {"handlers": [], "level": "WARNING", "propagate": True, "filters": ["said"]},
        "granian.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
    },
}
"""Has the HTTP server log where we do, and nothing to standard output."""


class OnlyNews(logging.Filter):
    """Drops what the HTTP server says at each start, whatever happens."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line says something."""
        return "Embedded server is experimental" not in record.getMessage()


class Line(logging.Formatter):
    """One line a record, with what a stranger has sent made harmless."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own, or in a field."""
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        facts = {
            "at": date_of(record.created).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("_"),
            "message": clean(record.getMessage(), ERROR_CHARS),
        }
        if self._as_json:
            return json.dumps({**facts, "traceback": trace} if trace else facts)
        line = f"{facts['at']} {facts['level']:<7} {facts['message']}"
        return "\n".join([line, *map(_harmless, trace.rstrip().splitlines())]) if trace else line


def _harmless(line: str) -> str:
    """Return a line of a traceback, which may quote a stranger, with its indentation."""
    text = line.lstrip(" ")
    return " " * (len(line) - len(text)) + clean(text, ERROR_CHARS)


def log_to_stderr(*, as_json: bool = False) -> None:
    """Send the log of this process to standard error: ours from INFO on, others' warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line(as_json=as_json))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(SERVER_LOG).setLevel(logging.INFO)
