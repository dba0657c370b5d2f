"""Runs: their folders, event logs and what is made of them."""

from hansa.runs.events import Event, EventLog
from hansa.runs.folder import RunFolder, all_runs, find_run

__all__ = ["Event", "EventLog", "RunFolder", "all_runs", "find_run"]
