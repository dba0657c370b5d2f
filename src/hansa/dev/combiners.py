"""The combiners of a rehearsal, and which sites stand behind which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from hansa.errors import PlanError


class Combiners(NamedTuple):
    """Between the server and sites."""

    behind: Mapping[str, Sequence[str]]  # sites by combiner; all others join the server itself
    ports: dict[str, int]  # of those that have begun

    @classmethod
    def of(cls, wanted: int | Mapping[str, Sequence[str]], sites: Sequence[str]) -> Self:
        """Return so many combiners with the sites dealt out in turn, or those that are named.

        Raises:
          PlanError: plan-impossible, there are more of them than sites.
        """
        if isinstance(wanted, Mapping):
            return cls(dict(wanted), {})
        if wanted > len(sites):
            raise PlanError(
                "plan-impossible",
                f"{wanted} combiners for {len(sites)} sites leave some without a site. Nothing was "
                "started.",
                f"Say --combiners {len(sites)} or fewer, or take more --sites.",
            )
        return cls({f"combiner-{n + 1}": list(sites[n::wanted]) for n in range(wanted)}, {})

    @property
    def names(self) -> list[str]:
        """Return the combiners' names."""
        return list(self.behind)

    def above(self, site: str) -> str | None:
        """Return the combiner that a site joins; None: the server itself."""
        return next((name for name, sites in self.behind.items() if site in sites), None)
