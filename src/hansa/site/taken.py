"""The rounds that an approval for so many counts: what has left, and what is under way.

The ledger is gone through once for each plan and code; from then on only what is new in it is
read, so a task costs the same after a year as on the first day.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from hansa.site.ledger import BEGINNING, Entry, Place
from hansa.site.policy import Approval
from hansa.site.requests import runs_of

InHand = tuple[str, int]
"""A run and a round of it."""

Read = Callable[[Place], Iterator[tuple[Entry, Place]]]
"""Gives the entries of a ledger behind a place in it, each with the place where it ends."""


class Taken:
    """What a site has let out in some runs.

    Each update is counted that differs from the others of its round, for each says something new;
    an honest server gets one a round.  A round in which the site evaluated alone counts as one.

    Args:
      runs: their names.
      since: results sent before this time, ISO 8601 in UTC, do not count.
    """

    def __init__(self, runs: Iterable[str], *, since: str) -> None:
        self.runs, self.since = frozenset(runs), since
        self._updates: dict[InHand, set[str]] = {}

    def add(self, entry: Entry) -> None:
        """Count an entry of the ledger, unless it is none of these."""
        counts = entry.kind in ("update", "metrics", "answer")
        if counts and entry.run in self.runs and entry.at >= self.since:
            found = self._updates.setdefault((entry.run, entry.round), set())
            if entry.kind == "update":
                found.add(entry.digest)

    def rounds(self, *, beside: InHand | None = None, begun: Collection[InHand] = ()) -> int:
        """Return how many rounds that makes.

        Args:
          beside: counts one less, because it has begun and may be finished.
          begun: count too, though nothing of them has left yet.
        """
        done = sum(max(1, len(found)) for found in self._updates.values())
        return done - (beside in self._updates) + len(set(begun) - self._updates.keys())


class Rounds:
    """The rounds of one plan and code at a site.

    Hold `lock` from asking whether a round may begin until it is begun: the runs of a plan have
    threads of their own, and two must not both take the last one.

    Args:
      folder: of the site.
      identity: digest of plan and code.
      read: reads the ledger.
    """

    def __init__(self, folder: Path, identity: str, read: Read) -> None:
        self.lock = threading.RLock()
        self._folder, self._identity, self._read = folder, identity, read
        self._in_hand: dict[str, int] = {}
        self._taken, self._place = Taken((), since=""), BEGINNING

    def done(self, word: Approval, *, task: InHand | None = None, others: bool = False) -> int:
        """Return the rounds that count towards an approval.

        Args:
          word: the owner's last on this plan and code.
          task: a round that is not counted, because it has begun and may be finished.
          others: whether rounds count that are only under way, in other runs than the task's.

        Raises:
          SiteError: site-damaged, the ledger.
        """
        with self.lock:
            runs = runs_of(self._folder, self._identity)
            if word.at != self._taken.since or not runs <= self._taken.runs:
                self._taken, self._place = Taken(runs, since=word.at), BEGINNING
            for entry, place in self._read(self._place):
                self._taken.add(entry)
                self._place = place
            run = None if task is None else task[0]
            begun = [there for there in self._in_hand.items() if others and there[0] != run]
            return self._taken.rounds(beside=task, begun=begun)

    def in_hand(self, run: str) -> InHand | None:
        """Return the round of a run that is under way."""
        number = self._in_hand.get(run)
        return None if number is None else (run, number)

    def begin(self, task: InHand) -> None:
        """Take a round up; a run has one in hand at a time."""
        with self.lock:
            self._in_hand.update([task])

    def end(self, run: str) -> None:
        """Nothing is done any more about the round that a run has in hand, if it has one."""
        with self.lock:
            self._in_hand.pop(run, None)
