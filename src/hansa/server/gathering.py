"""What a run waits for before a round: enough sites that are ready and there, a place, and slots.

One loop looks at all of it, so whatever changes, the run looks again; the journal is told why it
waits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from hansa.clock import monotonic, seconds_of
from hansa.limits import PLACE_KEPT_S, PRIORITY_STEP_S
from hansa.plan import Plan
from hansa.plan.criteria import Where, chosen, fits
from hansa.protocol.messages import Standing
from hansa.server.hub import Hub, Presence
from hansa.server.journal import Journal, RunRow
from hansa.server.places import Places, Slots, Wish
from hansa.text import few

_NAMED = 3  # of those that are chosen by name and not there
_LOOK_AGAIN_S = 60.0  # whatever changes is told; this only bounds a mistake of ours


class Needs(NamedTuple):
    """What a run cannot be at work without."""

    rank: float  # seconds; the lowest is the next
    minimum: int
    mandatory: tuple[str, ...]
    asks: Slots
    where: Where  # what sites must say of themselves

    @classmethod
    def of(cls, row: RunRow, plan: Plan, least: int) -> Needs:
        """Return the needs of a run.

        Args:
          row: as it was submitted; a step of priority counts like so much time of waiting.
          plan: its plan.
          least: updates that its aggregator needs.
        """
        waited = PRIORITY_STEP_S * row.submission.priority
        cohort = plan.cohort
        minimum = max(cohort.minimum, least, len(cohort.mandatory), 1)
        rank = seconds_of(row.created_at) - waited
        return cls(rank, minimum, cohort.mandatory, dict(plan.resources), cohort.where)


class Gathering:
    """One run's waiting.

    Args:
      row: the run.
      needs: of it.
      hub: where sites are reached.
      journal: gets to know why it waits.
      places: shared with the other runs.
      gather_s: seconds in which sites say whether they take part.
    """

    def __init__(
        self,
        row: RunRow,
        needs: Needs,
        *,
        hub: Hub,
        journal: Journal,
        places: Places,
        gather_s: float,
    ) -> None:
        self._run, self._needs = row.run, needs
        self._hub, self._journal, self._places = hub, journal, places
        self._gather_s = gather_s
        self._since = (0, 0.0)  # the round that sites were last waited for, and since when
        self._told: tuple[str, bool] | None = (row.reason, False)
        self._kept_since: float | None = None  # a place without enough sites to use it
        self.said: Mapping[str, Standing] = {}  # when the roster was made

    def again(self, clients: list[str], check_going: Callable[[], None]) -> list[str]:
        """Return the sites of a round that was open before, once the run has its place with them.

        It has one still, unless it could not go on for so long that it was lent to others.
        """
        mark = -1
        while not self._places.has(self._run):
            check_going()
            if not self._places.claim(self._wish_again(clients)):
                self._note_waiting(self._places.why(self._run, exactly=False))
                mark = self._hub.stirred(self._run, mark, _LOOK_AGAIN_S)
        self._note_running()
        return clients

    def _wish_again(self, clients: Collection[str]) -> Wish:
        """Return the wish to go on with all clients of a round; they could lend what it asks."""
        there, asks = self._hub.clients(), self._needs.asks
        lends = {c: there[c].said.slots if c in there else {} for c in clients}
        sites = {
            c: {what: max(count, has.get(what, 0)) for what, count in asks.items()}
            for c, has in lends.items()
        }
        return Wish(self._run, self._needs.rank, sites, len(sites), tuple(sites), asks)

    def roster(self, number: int, check_going: Callable[[], None]) -> list[str]:
        """Wait until a round can be opened; return its sites.

        Args:
          number: of the round.
          check_going: called whenever it looks; what it raises ends the wait.
        """
        if self._since[0] != number:
            self._since = (number, monotonic())
        mark = -1
        while True:
            check_going()
            there = self._hub.clients()
            said = self.said = self.standings()
            left = self._patience(number, there)
            wish = self._wish(there)
            enough = self._is_enough(wish.sites)
            if left <= 0:
                if enough and (found := self._places.claim(wish)):
                    self._note_running()
                    return found
                kept = self._places.has(self._run) and self._is_enough(
                    {s for s in said if _is_ready(said, s)}
                )
                left = self._keep_place() if kept else 0.0
                if left <= 0 and (kept or not enough):
                    self._places.leave(self._run)  # others have waited long enough for it
                if left <= 0 and kept:
                    continue
                why = self._places.why(self._run, exactly=False) if enough else ""
                self._note_waiting(why or _why(wish, there, said, self._needs.where), kept=kept)
            mark = self._hub.stirred(self._run, mark, left if left > 0 else _LOOK_AGAIN_S)

    def standings(self) -> Mapping[str, Standing]:
        """Return what sites have said last."""
        return self._journal.standings(self._run)

    def is_short(self) -> bool:
        """Return whether no round could begin with the sites that are ready now."""
        said = self.standings()
        return not self._is_enough({site for site in said if _is_ready(said, site)})

    def _is_enough(self, sites: Collection[str]) -> bool:
        needs = self._needs
        return len(sites) >= needs.minimum and set(sites) >= {*needs.mandatory}

    def _keep_place(self) -> float:
        """Return for how many more seconds the run keeps a place that it cannot use."""
        at = monotonic()
        if self._kept_since is None:
            self._kept_since = at
        return self._kept_since + PLACE_KEPT_S - at

    def _wish(self, there: Mapping[str, Presence]) -> Wish:
        ready = {s: p for s, p in there.items() if p.online and _is_ready(self.said, s)}
        asks = self._needs.asks
        able = {
            site: presence.said.slots
            for site, presence in sorted(ready.items())
            if all(presence.said.slots.get(what, 0) >= count for what, count in asks.items())
            and self._is_wanted(site, presence)
        }
        return Wish(
            self._run, self._needs.rank, able, self._needs.minimum, self._needs.mandatory, asks
        )

    def _patience(self, number: int, there: Mapping[str, Presence]) -> float:
        """Return how many seconds sites are still given to say their word, or to come back."""
        said = self.said
        fitting = {s for s, p in there.items() if p.online and self._is_wanted(s, p)}
        silent = fitting - said.keys() if number == 1 else set()
        left = self._gather_s - (monotonic() - self._since[1])
        # After a restart, those who took part before are given time to come back.
        if back_s := self._hub.coming_back_s():
            silent |= {s for s in said if _is_ready(said, s) and s not in there}
            left = back_s
        return max(0.0, left) if silent else 0.0

    def _is_wanted(self, site: str, presence: Presence) -> bool:
        return fits(site, presence.said.attributes, self._needs.where)

    def _note_waiting(self, reason: str, *, kept: bool = False) -> None:
        if (reason, kept) != self._told:
            self._told = (reason, kept)
            fact = {"kind": "waiting", "reason": reason} | ({"kept": True} if kept else {})
            self._journal.record(self._run, fact, state="waiting", reason=reason)

    def _note_running(self) -> None:
        self._kept_since = None
        if self._told is not None:
            self._told = None
            self._journal.record(self._run, state="running", reason="")


def _is_ready(said: Mapping[str, Standing], site: str) -> bool:
    return site in said and said[site].state == "ready"


def _why(
    wish: Wish, there: Mapping[str, Presence], said: Mapping[str, Standing], where: Where
) -> str:
    """Say in one sentence why a run has not begun."""
    present = {s for s, p in there.items() if p.online}
    others = {s for s in present if not fits(s, there[s].said.attributes, where)}
    ready = {s for s in said if _is_ready(said, s)}
    asked = [s for s, w in said.items() if w.state == "waiting"]
    refused = [s for s, w in said.items() if w.state == "refused"]
    short = (ready & present) - others - wish.sites.keys()
    needed = [s for s in wish.mandatory if s not in wish.sites]
    absent = sorted((chosen(where) or set()) - present - ready)
    parts = [f"{len(wish.sites)} of {wish.minimum} sites that it needs are ready"]
    parts += [f"it cannot do without {_names(needed)}"] if needed else []
    parts += [f"{_names(asked)} must approve it"] if asked else []
    parts += [f"{_names(refused)} refused it"] if refused else []
    parts += [f"{_names(ready - present)} is not heard of"] if ready - present else []
    parts += [f"{_names(short)} has too little of {_names(wish.asks)} to lend"] if short else []
    parts += [f"{few(absent, _NAMED)} is not connected"] if absent else []
    parts += ["no site is connected"] if not present else []
    parts += [f"{len(others)} of those connected do not fit cohort.where"] if others else []
    return "; ".join(parts)


def _names(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
