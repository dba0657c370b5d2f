"""A run that cannot go on for now: whoever looks at it reads why, and others get its place."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from hansa.clock import monotonic
from hansa.errors import HansaError, ServerError
from hansa.limits import MESSAGE_CHARS_MAX, PLACE_KEPT_S
from hansa.server.journal import Journal
from hansa.server.places import Places

log = logging.getLogger("hansa.server")


class Stuck:
    """What has been told of a run that is tried again and again.

    Args:
      run: its name.
      journal: gets to know why it waits.
      places: one of which it may have.
    """

    def __init__(self, run: str, journal: Journal, places: Places) -> None:
        self._run, self._journal, self._places = run, journal, places
        self._since: float | None = None
        self._logged = ""
        self._told: tuple[str, bool] | None = None

    def at(self, error: Exception) -> None:
        """Note what keeps the run from going on; the same is told once."""
        # The journal may be on the very disk that fails: then it is told the next time.
        with contextlib.suppress(OSError, ServerError):
            self._look()
        self._since = monotonic() if self._since is None else self._since
        reason = _reason(error)
        if reason != self._logged:
            self._logged = reason
            log.error("run %s waits: %s", self._run, error)
        kept = self._places.has(self._run) and monotonic() - self._since < PLACE_KEPT_S
        if not kept:
            self._places.leave(self._run)  # others have waited long enough for it
        with contextlib.suppress(OSError, ServerError):
            self._tell(reason, kept=kept)

    def _look(self) -> None:
        """See whether the run has gone on since it was last told of."""
        row = self._journal.run(self._run)
        if self._told is not None and row is not None and row.reason != self._told[0]:
            self._since, self._logged, self._told = None, "", None

    def _tell(self, reason: str, *, kept: bool) -> None:
        if (reason, kept) != self._told:
            fact = {"kind": "waiting", "reason": reason} | ({"kept": True} if kept else {})
            self._journal.record(self._run, fact, state="waiting", reason=reason)
            self._told = (reason, kept)


def _reason(error: Exception) -> str:
    """Return why a run cannot go on, without this machine's folders; people elsewhere read it."""
    if isinstance(error, HansaError):
        said = str(error)
    elif isinstance(error, OSError):
        name = Path(str(error.filename)).name if error.filename else ""
        said = f"{error.strerror or type(error).__name__}" + (f" ({name})" if name else "")
    else:
        said = type(error).__name__
    return f"its server cannot go on with it, and tries again: {said}"[:MESSAGE_CHARS_MAX]
