"""A run of a rehearsal that can never begin: its sites have refused it, and nobody will approve."""

from __future__ import annotations

from typing import Any

from hansa.errors import RunError
from hansa.project import Project


class Refusals:
    """Which sites refuse a run.

    Args:
      sites: how many there are.
      project: what runs; its plan says how many it needs.
    """

    def __init__(self, sites: int, project: Project) -> None:
        plan, needs = project.plan, project.method.aggregator.needs
        self._sites, self._needed = sites, max(plan.cohort.minimum, needs, 1)
        self.by_site: dict[str, str] = {}
        self.over = False

    def leave_too_few(self, event: dict[str, Any]) -> bool:
        """Take an event into account; tell, once, that it leaves too few sites for the run."""
        if event["kind"] != "standing" or self.over:
            return False
        self.by_site.pop(event["site"], None)
        if event["state"] != "refused":
            return False
        self.by_site[event["site"]] = str(event.get("reason") or "it gives no reason")
        self.over = self._sites - len(self.by_site) < self._needed
        return self.over

    def error(self, run: str) -> RunError:
        """Return what happened, with each reason once."""
        sites: dict[str, list[str]] = {}
        for site, reason in self.by_site.items():
            sites.setdefault(reason, []).append(site)
        told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in sites.items())
        return RunError(
            "run-too-few",
            f"{len(self.by_site)} of {self._sites} sites refuse {run}, which needs "
            f"{self._needed}. {told} It was ended.",
            "Correct that and rehearse again.",
        )
