"""The event log of a run: one JSON object a line, appended and synchronised, never rewritten.

It is the truth about a run.  A crash can only tear its last line, which then never happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hansa.clock import now
from hansa.errors import RunError
from hansa.store.files import append_durably

Event = dict[str, Any]


class EventLog:
    """Appends events to a file and knows those that are there.

    Args:
      path: of the file; made when the first event is appended.

    Raises:
      RunError: a line that is not the last one is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.events, self._whole = _read(path)

    def append(self, kind: str, **facts: Any) -> Event:
        """Write one event; when this returns, it survives a crash.

        Raises:
          RunError: another process has written to the log meanwhile.
        """
        return self.extend([{"kind": kind, **facts}])[0]

    def extend(self, events: Sequence[Event]) -> list[Event]:
        """Write several events at once; all of them survive a crash, or the first few."""
        stamped = [{"kind": event["kind"], "at": now(), **event} for event in events]
        lines = b"".join(msgspec.json.encode(event) + b"\n" for event in stamped)
        with open(self._path, "a+b") as file:
            file.seek(self._whole)
            if b"\n" in file.read():
                raise RunError(
                    "run-busy",
                    f"Another process has written to {self._path}; nothing was added.",
                    "Let it finish, or start a second run of the plan with: hansa run --new",
                )
            # What a crash has torn is cut off before anything is written behind it.
            file.truncate(self._whole)
            append_durably(file, lines, self._whole)
        self._whole += len(lines)
        self.events += stamped
        return stamped

    def last(self, kind: str) -> Event | None:
        """Return the last event of a kind."""
        return next((e for e in reversed(self.events) if e["kind"] == kind), None)


def _read(path: Path) -> tuple[list[Event], int]:
    """Return the events and how many bytes they take."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    events: list[Event] = []
    whole = 0
    for line in content.splitlines(keepends=True):
        try:
            event = msgspec.json.decode(line, type=Event) if line.endswith(b"\n") else None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            event = None
        if event is None or "kind" not in event:
            break
        events.append(event)
        whole += len(line)
    if b"\n" in content[whole:].rstrip(b"\n"):
        raise RunError(
            "run-damaged",
            f"{path} is damaged after {whole} bytes, in the middle of the log.",
            "Restore the run folder from a backup, or start anew with: hansa run --new",
        )
    return events, whole


def whole(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a round's row with all that is read of one, where a workflow leaves some out.

    >>> whole({"round": 3, "seconds": 1.5})["clients"]
    {'asked': 0, 'accepted': 0, 'failed': 0, 'refused': 0}
    """
    clients = dict.fromkeys(("asked", "accepted", "failed", "refused"), 0)
    nothing: dict[str, Any] = {
        "clients": clients,
        "bytes": {"down": 0, "up": 0},
        "train": {},
        "seconds": 0.0,
    }
    made = {**row, **{key: value for key, value in nothing.items() if row.get(key) is None}}
    counts = {key: {**nothing[key], **made[key]} for key in ("clients", "bytes")}
    return made | counts
