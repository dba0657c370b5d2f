"""Which clients stand behind which combiner: live facts, told anew with each of its polls.

A name belongs to one client.  A site that is a member of this server keeps its own; between two
combiners the one that has it keeps it for as long as that combiner is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection


class Through:
    """Clients by combiner, and back; the hub's lock guards it."""

    def __init__(self) -> None:
        self._behind: dict[str, set[str]] = {}
        self._via: dict[str, str] = {}

    def meet(self, combiner: str) -> None:
        """Know a combiner, also one without sites."""
        self._behind.setdefault(combiner, set())

    @property
    def combiners(self) -> Collection[str]:
        """All that have been heard of since the server started."""
        return self._behind.keys()

    @property
    def clients(self) -> int:
        """How many clients stand behind combiners."""
        return len(self._via)

    def behind(self, combiner: str) -> set[str]:
        """Return all clients that a combiner has named, and still has."""
        return set(self._behind.get(combiner, ()))

    def via(self, client: str) -> str | None:
        """Return the combiner that a client stands behind; None if it comes by itself."""
        return self._via.get(client)

    def reach(self, client: str) -> str:
        """Return who must be spoken to in order to reach a client."""
        return self._via.get(client, client)

    def claim(self, combiner: str, client: str, *, there: Callable[[str], bool]) -> bool:
        """Put a client behind a combiner; False if it stands behind another that is there."""
        other = self._via.get(client)
        if other == combiner:
            return True
        if other is not None and there(other):
            return False
        self.drop(client)
        self._behind[combiner].add(client)
        self._via[client] = combiner
        return True

    def drop(self, client: str) -> None:
        """A client comes by itself from now on."""
        other = self._via.pop(client, None)
        if other is not None:
            self._behind[other].discard(client)
