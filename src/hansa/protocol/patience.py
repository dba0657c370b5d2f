"""When to ask again: later each time, by chance, and no sooner than the server allows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from hansa.clock import monotonic
from hansa.errors import RequestRefused, ServerError

T = TypeVar("T")

PASSING = (408, 429, 500, 502, 503, 504, 507)
"""Answers that another try may turn into a yes."""


def is_passing(error: Exception) -> bool:
    """Tell whether the same request may succeed later: trouble of the network, or of the server."""
    if isinstance(error, RequestRefused):
        return error.status in PASSING
    return isinstance(error, ServerError) and error.code == "server-unreachable"


def with_patience(
    fn: Callable[[], T],
    *,
    until: float | None,
    first_s: float = 0.25,
    most_s: float = 15.0,
    pause: Callable[[float], object] | None = None,
    given_up: Callable[[], bool] = lambda: False,
) -> T:
    """Call a function until it succeeds, with pauses that grow and are drawn at random.

    The pause is uniform between 0 and half of the time waited so far, within `first_s` and
    `most_s`: many clients do not come back at the same instant, and a server that was away for a
    second is found again within another.

    Args:
      until: monotonic time after which no new try begins; None: for ever.
      pause: waits so many seconds, at most; an event's `wait` ends it early.
      given_up: asked after each pause; True ends the tries.

    Raises:
      HansaError: of the last try; at once if it is of a kind that does not pass.
    Source: Brooker 2015, "Exponential backoff and jitter" (full jitter).
    """
    wait = pause or threading.Event().wait
    bound, waited_s = first_s, 0.0
    while True:
        try:
            return fn()
        except (RequestRefused, ServerError) as error:
            if not is_passing(error):
                raise
            asked = error.retry_after_s if isinstance(error, RequestRefused) else 0.0
            wait_s = asked + bound * _chance()
            if until is not None and monotonic() + wait_s > until:
                raise
            wait(wait_s)
            if given_up():
                raise
            waited_s += wait_s
        bound = min(most_s, max(first_s, waited_s / 2))


def with_jitter(seconds: float) -> float:
    """Return between half and one and a half times some seconds, so that not all come at once."""
    return seconds * (0.5 + _chance())


def _chance() -> float:
    """Return a number from 0 to 1 that nobody needs to reproduce."""
    return int.from_bytes(os.urandom(4), "little") / 2**32
