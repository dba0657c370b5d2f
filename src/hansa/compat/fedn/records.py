"""What there is at a federation, as lists of FEDn's entries."""

from __future__ import annotations

from typing import Any

from hansa.compat.fedn import shapes
from hansa.compat.fedn.desk import Desk
from hansa.compat.fedn.shapes import Entry
from hansa.errors import RequestRefused
from hansa.identity import Membership
from hansa.protocol.messages import ModelFacts, RunFacts
from hansa.remote import asking
from hansa.remote.connecting import connected
from hansa.remote.trail import server_trail
from hansa.runs.trail import Trail


class Records:
    """Asks the server, and what is kept here.

    Args:
      membership: of the person who asks.
      desk: what that person has set.
    """

    def __init__(self, membership: Membership, desk: Desk) -> None:
        self._membership, self._desk = membership, desk

    def clients(self) -> list[Entry]:
        """Return the sites as clients."""
        combiner = self._membership.federation
        with connected(self._membership) as connection:
            try:
                members = [m for m in asking.members(connection) if m["kind"] == "site"]
            except RequestRefused as refusal:
                if refusal.said != "identity-role":
                    raise
                # Only viewers and admins may see all members; runs name the sites they asked.
                seen = {s.site: s.online for r in asking.all_facts(connection) for s in r.sites}
                members = [
                    {"name": name, "state": "active" if online else "silent"}
                    for name, online in sorted(seen.items())
                ]
        return [shapes.client_entry(m, combiner) for m in members if m["state"] != "revoked"]

    def combiners(self) -> list[Entry]:
        """Return the server as the one combiner."""
        host, _, port = self._membership.url.partition("://")[2].partition(":")
        name = self._membership.federation
        return [{"id": name, "name": name, "address": host, "fqdn": host,
                 "port": int(port or 443), "status": "online"}]  # fmt: skip

    def packages(self) -> list[Entry]:
        """Return the packages that were set from here."""
        return [
            {"id": note.id, "package_id": note.id, "name": note.name, "file_name": note.file_name,
             "helper": note.helper, "description": note.description, "committed_at": note.at,
             "active": note.id == self._desk.state.package}
            for note in self._desk.state.packages.values()
        ]  # fmt: skip

    def seeds(self) -> list[Entry]:
        """Return the seed models that were set from here."""
        return [
            {"id": note.id, "model": note.id, "model_id": note.id, "name": note.file_name,
             "parent_model": None, "session_id": None, "committed_at": note.at}
            for note in self._desk.state.seeds.values()
        ]  # fmt: skip

    def trail(self) -> Trail:
        """Return the trail of all runs."""
        with connected(self._membership) as connection:
            return server_trail(connection)

    def model(self, trail: Trail, model: ModelFacts) -> Entry:
        """Return a model of the trail in FEDn's shape."""
        session = self._desk.session_of(model.run)
        return shapes.model_entry(model, trail.parent(model), session)

    def runs(self) -> list[RunFacts]:
        """Return the runs of the server."""
        with connected(self._membership) as connection:
            return asking.all_facts(connection)

    def sessions(self) -> list[Entry]:
        """Return the sessions: what continues a run belongs to its session."""
        found: dict[str, list[RunFacts]] = {}
        for run in self.runs():
            found.setdefault(self._desk.session_of(run.run), []).append(run)
        return [shapes.session_entry(session, runs) for session, runs in found.items()]

    def events(self, session: str | None) -> list[tuple[str, str, list[dict[str, Any]]]]:
        """Return the events of every run, or of a session's, with run and session."""
        with connected(self._membership) as connection:
            runs = [run.run for run in asking.all_facts(connection)]
            found = []
            for run in runs:
                of = self._desk.session_of(run)
                if session is None or session in (of, run):
                    found.append((run, of, asking.all_events(connection, run)))
        return found

    def rounds(self) -> list[Entry]:
        """Return all committed rounds."""
        federation = self._membership.federation
        return [
            entry
            for run, session, events in self.events(None)
            for entry in shapes.round_entries(run, session, events, federation)
        ]

    def statuses(self, session: str | None) -> list[Entry]:
        """Return what happened, in all sessions or in one."""
        return [
            entry
            for run, of, events in self.events(session)
            for entry in shapes.status_entries(run, of, events)
        ]

    def predictions(self) -> list[Entry]:
        """Return what clients have predicted, in all runs that asked for it."""
        origins = {model.run: model.origin for model in self.trail().models if model.origin}
        return [
            entry
            for run, of, events in self.events(None)
            for entry in shapes.prediction_entries(run, origins.get(run, ""), of, events)
        ]

    def validations(self, session: str | None) -> list[Entry]:
        """Return what clients measured, in all sessions or in one."""
        return [
            entry
            for run, of, events in self.events(session)
            for entry in shapes.validation_entries(run, of, events)
        ]
