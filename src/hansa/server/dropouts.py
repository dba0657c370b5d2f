"""Whose part in an exchange does not count, and why."""

from __future__ import annotations

from hansa.rounds.round import ClientStatus, RoundState
from hansa.text import few
from hansa.workflows import Problem

_NAMED = 5  # clients that are told one by one


class Dropouts:
    """The clients of one exchange that have dropped out.

    Args:
      number: of the round.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._found: dict[str, Problem] = {}
        self.withheld: dict[str, str] = {}  # who waits for an owner's word, and what for

    def note(self, client: str, kind: str, *, code: str, reason: str) -> None:
        """Note that a client has failed, or that what it sent was refused."""
        self._found[client] = Problem(self._number, client, kind, code, reason)

    def told(self, state: RoundState) -> list[Problem]:
        """Return who has dropped out, by name.

        Args:
          state: of the round; who was left out when it closed is not there for nothing, unless
            it was merely spare.
        """
        goal, found = state.terms.goal, dict(self._found)
        enough = goal is not None and len(state.digests) >= goal
        for client, status in state.clients.items():
            if status is ClientStatus.LEFT_OUT and not enough and client not in found:
                found[client] = self._left_out(client, state.why)
        return [found[client] for client in sorted(found)]

    def held_up(self, state: RoundState) -> str:
        """Say whom an open round waits for who cannot answer as things stand; empty if nobody."""
        lost = sorted(c for c, status in state.clients.items() if status is ClientStatus.LOST)
        asked = [client for client in lost if client in self.withheld]
        away = [client for client in lost if client not in self.withheld]
        parts = [f"{few(asked, _NAMED)} must approve it"] if asked else []
        parts += [f"{few(away, _NAMED)} is not heard of"] if away else []
        return f"round {self._number} waits: {'; '.join(parts)}" if parts else ""

    def _left_out(self, client: str, why: str) -> Problem:
        if (reason := self.withheld.get(client)) is not None:
            return Problem(self._number, client, "failed", "site-cancelled", reason)
        told = f"it had not answered when the round closed: {why}"
        return Problem(self._number, client, "failed", "client-silent", told)
