"""Notices a member whose key two agents use at once, as from a copied folder.

Each start of an agent has a name of its own, which its polls bear.  A restart gives a new name and
the old one is not heard again, or once or twice where something on the way has held a poll back.
Only an agent that is alive beside another comes back again and again after the other was heard.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from hansa.limits import INSTANCE_QUIET_S, INSTANCE_RETURNS, INSTANCES_KEPT


class _Heard(NamedTuple):
    """The starts of one member's agents."""

    last: str  # heard last
    returns: dict[str, int]  # by start: how often it came back after another
    since: float | None = None  # when one came back last, once there are two


class Instances:
    """The starts of agents that were heard of since the server started; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: dict[str, _Heard | str] = {}  # one start alone, most often, is just its name

    def heard(self, member: str, instance: str, at: float) -> bool:
        """Note a poll; return whether it shows, for the first time, that there are two agents.

        Args:
          member: whose key has signed it.
          instance: the agent's name of its start; empty if it says none.
          at: seconds of a clock that never goes back.
        """
        with self._lock:
            known = self._heard.get(member)
            if not instance or instance == (known.last if isinstance(known, _Heard) else known):
                return False
            if known is None:
                self._heard[member] = instance
                return False
            if isinstance(known, str):
                known = _Heard(known, {known: 0})
            elif not self._lasts(known, at) and known.since is not None:
                known = _Heard(known.last, {known.last: 0})  # it was over long ago
            returns = known.returns
            if instance in returns:
                returns[instance] += 1
            else:  # a start: what was held back before it says nothing of what comes now
                returns = dict.fromkeys((*returns, instance), 0)
            while len(returns) > INSTANCES_KEPT:
                del returns[next(iter(returns))]
            there_are_two = max(returns.values()) >= INSTANCE_RETURNS
            back = returns[instance] > 0
            since = at if there_are_two and back else known.since
            self._heard[member] = _Heard(instance, returns, since)
            return there_are_two and known.since is None

    def doubled(self, member: str, at: float) -> bool:
        """Tell whether two agents have used a member's key lately."""
        with self._lock:
            known = self._heard.get(member)
            return isinstance(known, _Heard) and self._lasts(known, at)

    def _lasts(self, known: _Heard, at: float) -> bool:
        return known.since is not None and at - known.since < INSTANCE_QUIET_S
