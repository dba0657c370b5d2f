"""The only module that reads a clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def monotonic() -> float:
    """Return seconds on a clock that never goes back."""
    return time.monotonic()


def wall() -> float:
    """Return seconds since 1970 in UTC; the clock may be set, and then jumps either way."""
    return time.time()


def now() -> str:
    """Return the date and time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def iso(seconds: float) -> str:
    """Return a wall time in UTC, to the millisecond, in ISO 8601.

    >>> iso(1.5)
    '1970-01-01T00:00:01.500+00:00'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def date_of(seconds: float) -> datetime:
    """Return a wall time as a date in UTC, without its fraction of a second."""
    return datetime.fromtimestamp(int(seconds), UTC)


def in_days(seconds: float) -> str:
    """Return a length of time in days, as commands take it.

    >>> in_days(999 * 86_400.0)
    '999d'
    """
    return f"{seconds / 86_400:g}d"


def seconds_of(text: str) -> float:
    """Return the wall time of an ISO 8601 date or date and time; without a zone it is UTC.

    Raises:
      ValueError: it is neither.

    >>> seconds_of("1970-01-02"), seconds_of("1970-01-01T01:00:00+01:00")
    (86400.0, 0.0)
    """
    date = datetime.fromisoformat(text)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
