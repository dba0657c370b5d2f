"""Where a run stands, from its server's events: which round, who has answered, who has not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hansa.limits import CONSOLE_KEPT

Event = dict[str, Any]

_SAID = {"accepted": "update counted", "lost": "not heard of", "failed": "failed",
         "refused": "refused"}  # fmt: skip


class Progress:
    """What is known of a run; bounded, however long the run is."""

    def __init__(self) -> None:
        self.read = 0  # events so far
        self.round = 0
        self.phase = ""  # of the open exchange; "" between two of them
        self.since = ""  # when it was opened
        self.committed = 0  # the last round
        self.parts: dict[str, tuple[str, str]] = {}  # site -> what it does, since when
        self.rows: list[dict[str, Any]] = []  # metrics of the last rounds
        self.problems: list[Event] = []  # the last ones
        self.ended: Event | None = None

    def take(self, events: Sequence[Event]) -> None:
        """Take further events into account, in their order."""
        for event in events:
            self.read += 1
            self._one(event)

    def silent(self) -> list[str]:
        """Return the sites of the open exchange that have not answered."""
        return (
            sorted(s for s, (what, _) in self.parts.items() if what in _OPEN) if self.phase else []
        )

    def _one(self, event: Event) -> None:
        at = event.get("at", "")
        match event["kind"]:
            case "opened":
                self.round, self.phase, self.since = event["round"], event["phase"], at
                what = _ING.get(event["phase"], "at work")
                self.parts = {site: (what, at) for site in event["cohort"]}
            case "result":
                what = _SAID.get(event["state"], _ING.get(event["phase"], "at work"))
                if event["state"] == "accepted" and event["phase"] == "evaluate":
                    what = "evaluation counted"
                self.parts[event["client"]] = (what, at)
            case "closed":
                self.phase = ""
            case "committed":
                self.committed, self.phase = event["round"], ""
                if event["round"]:
                    self.rows = [*self.rows, event["row"]][-CONSOLE_KEPT:]
            case "problem":
                self.problems = [*self.problems, event][-CONSOLE_KEPT:]
            case "ended":
                self.ended, self.phase = event, ""


_ING = {"train": "training", "evaluate": "evaluating"}
_OPEN = {*_ING.values(), "at work", "not heard of"}
