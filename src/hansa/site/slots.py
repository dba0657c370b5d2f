"""The slots of a site, such as its graphics cards: which of them each run has.

The server lends them in its queue of runs; the site lends them once more, by number, so that two
runs never share one whatever a server says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from hansa.clock import monotonic
from hansa.errors import SiteError

Lent = Mapping[str, tuple[int, ...]]
"""Numbers of slots, from 0, by the name of the resource."""


class SlotDesk:
    """Lends a site's slots to its runs; thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lent: dict[str, Lent] = {}

    def take(
        self,
        run: str,
        asks: Mapping[str, int],
        has: Mapping[str, int],
        *,
        idle: Callable[[str], bool],
        over: Callable[[], bool],
        patience_s: float,
    ) -> Lent:
        """Return the slots of a run, and lend them if it has none; wait while others use them.

        Args:
          run: name.
          asks: how many of each it needs.
          has: how many of each the site has.
          idle: takes a run that has slots; ends its process and returns True if it does nothing.
          over: nobody wants them any more.
          patience_s: seconds to wait.

        Raises:
          SiteError: site-busy, there are not enough, or not in time.
        """
        until = monotonic() + patience_s
        with self._changed:
            while True:
                if run in self._lent:
                    return self._lent[run]
                free = self._free(asks, has)
                if free is not None or over():
                    return self._lent.setdefault(run, free) if free is not None else {}
                other = next((r for r in self._lent if idle(r)), None)
                if other is not None:
                    del self._lent[other]
                    continue
                if (left := until - monotonic()) <= 0 or lacking(asks, has):
                    raise SiteError(
                        "site-busy",
                        f"The run needs {in_words(asks)}; this site has {in_words(has)}, and lends "
                        f"it to {', '.join(sorted(self._lent)) or 'nobody'}.",
                        "The server asks again in another round.",
                    )
                self._changed.wait(left)

    def give_back(self, run: str) -> None:
        """A run needs its slots no more."""
        with self._changed:
            self._lent.pop(run, None)
            self._changed.notify_all()

    def stir(self) -> None:
        """Let those that wait look again: a run does nothing now, or a task was cancelled."""
        with self._changed:
            self._changed.notify_all()

    def _free(self, asks: Mapping[str, int], has: Mapping[str, int]) -> Lent | None:
        found = {}
        for what, count in asks.items():
            used = {n for lent in self._lent.values() for n in lent.get(what, ())}
            numbers = [n for n in range(has.get(what, 0)) if n not in used][:count]
            if len(numbers) < count:
                return None
            found[what] = tuple(numbers)
        return found


def asked_for(plan: Mapping[str, Any]) -> dict[str, int]:
    """Return what a plan asks of each site; nothing if it is no such table."""
    asks = plan.get("resources")
    return {str(k): int(v) for k, v in asks.items()} if isinstance(asks, dict) else {}


def lacking(asks: Mapping[str, int], has: Mapping[str, int]) -> str:
    """Say what a site can never give a run; empty if it has enough.

    >>> lacking({"gpu": 2}, {"gpu": 1})
    'The plan asks for 2 gpu, and this site has 1 gpu.'
    """
    if all(has.get(what, 0) >= count for what, count in asks.items()):
        return ""
    return f"The plan asks for {in_words(asks)}, and this site has {in_words(has)}."


def in_words(slots: Mapping[str, int]) -> str:
    """Return slots in words."""
    return ", ".join(f"{count} {what}" for what, count in sorted(slots.items())) or "none"


def slot_environment(lent: Lent) -> dict[str, str]:
    """Return the variables that tell a process its slots: HANSA_SLOTS_GPU, and CUDA's own.

    Where the owner has named graphics cards for the agent, the numbers count among those.
    """
    variables = {
        f"HANSA_SLOTS_{what.upper().replace('-', '_')}": ",".join(map(str, numbers))
        for what, numbers in lent.items()
    }
    if "gpu" in lent:
        named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        cards = [named[n] if n < len(named) else str(n) for n in lent["gpu"]]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(cards)
    return variables
