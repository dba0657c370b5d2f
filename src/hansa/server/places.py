"""Which runs are at work: so many at a time, and at each site no more than its slots allow.

A run that needs a place, and slots of its sites, looks and takes in one step under one lock, so two
runs never share a slot.  Those that wait go in the order of their rank.  One that waits for a slot
is passed by those alone that would not take that slot, so nobody waits for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from hansa.text import few

_NAMED = 3  # of those that are in the way

Slots = Mapping[str, int]
"""How many of each named resource, such as {"gpu": 2}."""


class Wish(NamedTuple):
    """What a run needs in order to be at work."""

    run: str
    rank: float  # the lowest is the next; of equals, who came first
    sites: Mapping[str, Slots]  # who could take part, with all that each has to lend
    minimum: int = 1  # sites without which it cannot work
    mandatory: tuple[str, ...] = ()  # those among them that it cannot do without
    asks: Slots = {}  # noqa: RUF012 - of each site; read only


class Places:
    """Lends places and slots, and keeps the queue of those that wait; thread-safe.

    Args:
      number: of runs at work at the same time.
      changed: called when others may find now what they wait for.
    """

    def __init__(self, number: int, changed: Callable[[], None] = lambda: None) -> None:
        self._number, self._changed = number, changed
        self._lock = threading.Lock()
        self._lent: dict[str, tuple[frozenset[str], Slots]] = {}  # by run
        self._queue: dict[str, Wish] = {}

    def claim(self, wish: Wish) -> list[str]:
        """Look whether a run can have what it needs, and take it.

        What it has stays its until it leaves, also while it has too little to be at work.

        Args:
          wish: of a run that is at work, or would be; the newest one counts.

        Returns:
          the sites that the run has, sorted; none if it must wait, in the queue from now on.
        """
        with self._lock:
            self._queue[wish.run] = wish
            granted = self._granted().get(wish.run)
            if granted is None:
                return []
            del self._queue[wish.run]
            before, _ = self._lent.get(wish.run, (granted, wish.asks))
            self._lent[wish.run] = (granted, wish.asks)
        if before - granted:
            self._changed()
        return sorted(granted)

    def hold(self, run: str, sites: Iterable[str], asks: Slots) -> None:
        """Give a run back what it had before the server was started again."""
        with self._lock:
            self._lent[run] = (frozenset(sites), asks)

    def has(self, run: str) -> bool:
        """Return whether a run has a place."""
        with self._lock:
            return run in self._lent

    def leave(self, run: str) -> None:
        """A run needs nothing any more, or nothing for now."""
        with self._lock:
            had = self._lent.pop(run, None), self._queue.pop(run, None)
        if any(had):
            self._changed()

    def why(self, run: str, *, exactly: bool = True) -> str:
        """Say what a run in the queue waits for; empty if it is not in it.

        Args:
          run: its name.
          exactly: with what changes while it waits: who has it, and how many are before it.
        """
        with self._lock:
            wish = self._queue.get(run)
            if wish is None:
                return ""
            ahead = [w.run for w in self._in_order()].index(run)
            full = run not in self._lent and len(self._lent) >= self._number
            scarce = self._scarce(wish)
            users = sorted(r for r, (_, asks) in self._lent.items() if r != run and (full or asks))
        if not exactly:
            if scarce and not full:
                wanted = [f"{what} at {site}" for site, what in scarce]
                return f"other runs use {few(wanted, _NAMED)}"
            return "other runs are at work" if full else "it is not its turn"
        said = "it is not its turn"
        if full:
            said = f"other runs are at work: {few(users, _NAMED)}, of {self._number} at a time"
        elif scarce:
            asked = ", ".join(f"{count} {what}" for what, count in sorted(wish.asks.items()))
            said = f"it needs {asked} at each site, and {_lending(scarce)}, to {few(users, _NAMED)}"
        before = f"; {ahead} {'run is' if ahead == 1 else 'runs are'} before it"
        return said + before if ahead else said

    def _granted(self) -> dict[str, frozenset[str]]:
        """Return who of the queue can be at work now, and with which sites."""
        places, taken = self._number - len(self._lent), self._taken()
        found: dict[str, frozenset[str]] = {}
        for wish in self._in_order():
            at_work = wish.run in self._lent
            if not at_work and places <= 0:
                continue
            own = self._lent[wish.run][0] if at_work else frozenset()
            fits = frozenset(
                site
                for site, has in wish.sites.items()
                if site in own
                or all(
                    taken.get((site, what), 0) + count <= has.get(what, 0)
                    for what, count in wish.asks.items()
                )
            )
            if len(fits) >= wish.minimum and fits.issuperset(wish.mandatory):
                found[wish.run] = fits
                places -= not at_work
            # Those behind it may not take what it waits for, nor what it is about to take.
            for site in found.get(wish.run, wish.sites.keys()) - own:
                _add(taken, site, wish.asks)
        return found

    def _in_order(self) -> list[Wish]:
        return sorted(self._queue.values(), key=lambda wish: wish.rank)

    def _taken(self) -> dict[tuple[str, str], int]:
        """Return how many slots are lent, by site and resource."""
        taken: dict[tuple[str, str], int] = {}
        for sites, asks in self._lent.values():
            for site in sites if asks else ():
                _add(taken, site, asks)
        return taken

    def _scarce(self, wish: Wish) -> dict[tuple[str, str], tuple[int, int]]:
        """Return of which slots there are too few: how many are lent, of how many."""
        taken = self._taken()
        return {
            (site, what): (taken.get((site, what), 0), has.get(what, 0))
            for site, has in sorted(wish.sites.items())
            for what, count in sorted(wish.asks.items())
            if taken.get((site, what), 0) + count > has.get(what, 0)
        }


def _add(taken: dict[tuple[str, str], int], site: str, asks: Slots) -> None:
    for what, count in asks.items():
        taken[site, what] = taken.get((site, what), 0) + count


def _lending(scarce: Mapping[tuple[str, str], tuple[int, int]]) -> str:
    return few(
        [f"{site} lends {lent} of its {of} {what}" for (site, what), (lent, of) in scarce.items()],
        _NAMED,
    )
