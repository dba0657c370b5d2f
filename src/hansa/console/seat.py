"""Where the admin sits: who it is, the connection, the workspace, and what of it is this machine's.

Verbs take a seat and a command, and yield their answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hansa.clock import date_of, wall
from hansa.console.progress import Progress
from hansa.console.workspace import Workspace
from hansa.errors import ConsoleError, HansaError, RunError
from hansa.identity import Membership, load_membership
from hansa.limits import CONSOLE_EVENT_PAGES
from hansa.protocol.connection import Connection
from hansa.protocol.messages import ENDED, RunFacts
from hansa.remote import asking
from hansa.remote.connecting import connected
from hansa.runs import RunFolder

Importer = Callable[[Path, Path], Sequence[tuple[str, str]]]
"""Takes an app and the folder to make; returns what was read, by name."""


class Seat:
    """An admin's place at a federation.

    Args:
      membership: who sits here, and at which server.
      workspace: what is remembered.
      server_folder: of the server, where it is on this machine and the admin's to end.
      sites_folder: holds folders of sites that are the admin's own.
      importer: makes a project of NVIDIA FLARE's app; None where such apps are not taken.
    """

    def __init__(
        self,
        membership: Membership,
        workspace: Workspace,
        *,
        server_folder: Path | None = None,
        sites_folder: Path | None = None,
        importer: Importer | None = None,
    ) -> None:
        self.membership, self.workspace = membership, workspace
        self.server_folder, self.sites_folder = server_folder, sites_folder
        self.importer = importer
        self.known_runs: list[str] = []  # names seen in answers, for completion
        self.known_sites: list[str] = []
        self._progress: dict[str, Progress] = {}
        self._open = contextlib.ExitStack()
        self._connection: Connection | None = None

    @property
    def url(self) -> str:
        """Address of the server."""
        return self.membership.url

    @property
    def connection(self) -> Connection:
        """The one connection, made when it is first needed.

        Raises:
          HansaError: as `connected`.
        """
        if self._connection is None:
            self._connection = self._open.enter_context(connected(self.membership))
        return self._connection

    def close(self) -> None:
        """Let go of the connection."""
        self._connection = None
        self._open.close()

    def members(self) -> list[dict[str, Any]] | None:
        """Return the members, or None where one's role is not told."""
        if self.membership.role not in ("viewer", "admin"):
            return None
        return asking.members(self.connection)

    def sites(self) -> list[dict[str, Any]] | None:
        """Return the sites that are members, or None where one's role is not told."""
        members = self.members()
        if members is None:
            return None
        found = [m for m in members if m["kind"] == "site" and m["state"] != "revoked"]
        self.known_sites = [site["name"] for site in found]
        return found

    def facts(self, run: str) -> RunFacts:
        """Return a run's facts as they are now."""
        return asking.details(self.connection, run).facts

    def current_run(self) -> str | None:
        """Return the name at the server of the current run number's run, if it was started."""
        folder = self.workspace.run(self.workspace.number) if self.workspace.number else None
        name: str | None = (folder.remote or {}).get("run") if folder is not None else None
        return name

    def started_run(self) -> str:
        """Return the name of the current run number's run.

        Raises:
          ConsoleError: console-order, none was started.
        """
        run = self.current_run()
        if run is None:
            number = self.workspace.number
            what = f"Run number {number} was not started" if number else "No run number was set"
            raise ConsoleError(
                "console-order",
                f"{what}, so there is no run to speak of. Nothing was done.",
                "Start it with start_app all; runs of others are listed by list_jobs.",
            )
        return run

    def own_run(self, run: str) -> tuple[int, RunFolder]:
        """Return the number and folder of a run that was started from this workspace.

        Raises:
          ConsoleError: console-refused, it was not.
          RequestRefused: run-not-found, the server has none either.
        """
        found = self.workspace.find(run)
        if found is None:
            facts = self.facts(run)
            raise ConsoleError(
                "console-refused",
                f"{facts.run} of {facts.submitter} was not started from {self.workspace.folder}, "
                "or its run number was deleted; its project is not here. Nothing was done.",
                f"Its submitter can: in the folder where it was started, hansa run --resume; its "
                f"record is told by get_job_meta {facts.run} and get_job_log {facts.run}.",
            )
        return found

    def is_going(self, folder: RunFolder) -> bool:
        """Return whether a run has not ended at its server."""
        run = (folder.remote or {}).get("run")
        return run is not None and self.facts(run).state not in ENDED

    def progress(self, run: str, *, wait_s: float = 0.0) -> Progress:
        """Return where a run stands; what was read before is not read again.

        Args:
          run: its name at the server.
          wait_s: for the next event, if there is none yet.
        """
        known = self._progress.setdefault(run, Progress())
        for _ in range(CONSOLE_EVENT_PAGES):
            page = asking.events(self.connection, run, after=known.read, wait_s=wait_s)
            known.take(page.events)
            if not page.events or wait_s:
                break
        return known

    def bring_events(self, folder: RunFolder) -> None:
        """Bring a run's new events into its folder here."""
        run = (folder.remote or {}).get("run")
        if run is None:
            return
        with folder.locked():
            folder.reload()
            for _ in range(CONSOLE_EVENT_PAGES):
                after = len(folder.log.events)
                page = asking.events(self.connection, run, after=after)
                if page.next != after + len(page.events):
                    raise RunError(
                        "run-changed",
                        f"The server knows {page.next} events of {run}, and {after} were read "
                        "before: it was set back to an older state. Nothing was changed here.",
                        "Look at the run at its server: get_job_log, list_jobs.",
                    )
                if not page.events:
                    break
                folder.mirror(page.events)


def heard(sites: list[dict[str, Any]]) -> dict[str, str]:
    """Return when sites were last heard of, as dates; those that never were are left out."""
    at = wall()
    return {
        site["name"]: date_of(at - site["heard_s"]).isoformat()
        for site in sites
        if site.get("heard_s") is not None
    }


def own_sites(folder: Path | None) -> dict[str, Path]:
    """Return the sites whose folders are below one of this machine, by name."""
    if folder is None:
        return {}
    found = {}
    for path in sorted(folder.glob("*/member.json")):
        try:
            membership = load_membership(path.parent)
        except HansaError:
            continue
        if membership.role == "site":
            found[membership.name] = path.parent
    return found
