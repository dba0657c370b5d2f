"""A server put together: its folder opened, and everything that the routes need in one place."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hansa.clock import monotonic, wall
from hansa.errors import RequestRefused, ServerError
from hansa.identity import Sessions, load_authority, load_key
from hansa.identity.roles import Role
from hansa.limits import (
    AUDIT_REFUSED_BURST,
    AUDIT_REFUSED_RATE,
    UPDATE_HEADER_BYTES_MAX,
    UPLOADS_PER_TASK_MAX,
)
from hansa.plan import schema
from hansa.protocol import messages
from hansa.protocol.messages import Standing
from hansa.server import members
from hansa.server.audit import write_audit
from hansa.server.auth import Gate
from hansa.server.blobs import Upload
from hansa.server.claims import UNSUBMITTED_FOLDER
from hansa.server.exchange import Desk
from hansa.server.federation import Pace
from hansa.server.hub import NOTHING, Hub
from hansa.server.instances import Instances
from hansa.server.journal import EndedError, Journal
from hansa.server.keeping import LINEAGES, Lineages
from hansa.server.opening import invitation
from hansa.server.presence import announced
from hansa.server.round_files import Messages, Stores, Updates
from hansa.server.runs import Runs
from hansa.server.settings import ServerSettings, load_settings
from hansa.server.sources import Rates
from hansa.server.submissions import FUNCTIONS_FOLDER, Serving
from hansa.server.unsubmitted import Unsubmitted
from hansa.server.upkeep import wanted_blobs
from hansa.store.blobs import BlobStore
from hansa.store.database import open_database
from hansa.store.spares import Spares
from hansa.typed import make_known


class ServerState:
    """Everything that a running server has.

    Args:
      folder: of the server, made by `hansa.server.founding.found`.
      settings: by default those of its server.toml.
    """

    def __init__(self, folder: Path, settings: ServerSettings | None = None) -> None:
        make_known(messages, schema)  # before any thread reads one
        self.folder = folder
        self.settings = settings or load_settings(folder)
        self.submitters_pem = ""  # of the authority of submitters, where it is another
        self.authority = load_authority(folder)
        self.receipt_key = load_key(folder / "receipt-key.pem")
        self.database = open_database(folder / "hansa.db")
        spares = Spares(folder / "spare")
        self.blobs = BlobStore(folder / "blobs", durable=True)  # a backup links to these
        self.messages = BlobStore(folder / "messages", durable=False, spares=spares)
        self.updates = Updates(folder / "updates", spares)
        self.sessions = Sessions()
        # Behind a proxy on this machine every request would seem to be from here.
        self._refused = Rates(rate=AUDIT_REFUSED_RATE, burst=AUDIT_REFUSED_BURST)
        self.gate = Gate(self.database, self.authority, self.sessions, loopback=self.settings.tls)
        self.hub = Hub(self.settings.heartbeat_s)
        self.instances = Instances()
        self.trail = threading.Lock()
        self.unsubmitted = Unsubmitted(
            folder / UNSUBMITTED_FOLDER,
            self.blobs,
            wanted=lambda: {found.digest for found in wanted_blobs(self.database)},
            refused=lambda who, blob: self.audit_refused(who, "upload", blob, "upload-too-much"),
        )
        self.journal = Journal(self.database, self.hub.wake_followers)
        self.stores = Stores(
            self.blobs,
            Messages(self.messages),
            self.updates,
            folder / "spill",
            spares,
            self.trail,
            Lineages(folder / LINEAGES, self.settings.redis, self.settings.name),
            self.unsubmitted,
        )
        chosen = self.settings
        self.serving = Serving(chosen.server_functions, chosen.server_functions_memory_mb, folder)
        self.runs = Runs(
            self.hub,
            Desk(self.journal, self.updates, self.receipt_key),
            stores=self.stores,
            pace=Pace(self.settings.gather_s, self.settings.deadline_s),
            at_once=self.settings.runs,
            serving=self.serving,
        )

    @property
    def readable(self) -> tuple[BlobStore, ...]:
        """Stores whose blobs members may fetch; updates are in none of them."""
        return self.messages, self.blobs

    def update_store(self, upload: Upload) -> BlobStore:
        """Return where a site's update is put.

        Raises:
          RequestRefused: nobody waits for it, it is larger than it can be, or too many were sent.
        """
        site, run, number = upload.owner, upload.run, upload.round
        most = self.runs.update_bytes(site, run, number)
        status = 409
        if not most:
            why = f"waits for no update of it for round {number} of {run[:80]!r}"
        elif upload.size > most + UPDATE_HEADER_BYTES_MAX:
            why, status = f"takes updates of {most} bytes", 413
        else:
            tasks = self.runs.tasks_in(run)
            store = self.updates.claim(run, number, site=site, digest=upload.digest, tasks=tasks)
            if store is not None:
                return store
            why = f"takes {UPLOADS_PER_TASK_MAX} different updates for one task"
        raise RequestRefused(
            "upload-unwanted",
            f"{site} would upload {upload.size} bytes, and the server {why}.",
            "Ask for work first: tasks say what is wanted.",
            status=status,
        )

    def audit(self, who: str, action: str, what: str, outcome: str) -> None:
        """Note who did what, and what came of it."""
        write_audit(self.database, who, action, object=what, outcome=outcome)

    def audit_refused(self, who: str, action: str, what: str, code: str) -> None:
        """Note that something of a member was refused; of very many not each."""
        try:
            self._refused.take(who)
        except ServerError:
            return
        self.audit(who, action, what, code)

    def invite(self, name: str, *, role: Role, org: str, expires_s: float, by: str) -> str:
        """Return the line that invites a member; it is told once and kept only as a hash.

        Raises:
          IdentityError: the name is taken.
        """
        return invitation(self, name, role=role, org=org, expires_s=expires_s, by=by, at=wall())

    def forget(self, name: str, fingerprint: str) -> None:
        """Let a revocation, which has been recorded, be felt: in polls, rounds and runs to come.

        Args:
          name: of the member.
          fingerprint: of the key that is no member's any more.
        """
        self.gate.forget(fingerprint)
        self.hub.forget(name)
        if name in members.active_names(self.database, [name]):
            return  # it has joined anew meanwhile
        gone = Standing(state="refused", reason=f"{name} is no member any more: it was revoked")
        for row in self.journal.runs(unfinished=True):
            if name in self.journal.standings(row.run):
                with contextlib.suppress(EndedError):
                    self.journal.stand(row.run, name, gone)

    def member_facts(self) -> list[dict[str, Any]]:
        """Return all members, and how many seconds ago sites were heard of."""
        there = self.hub.online()
        facts = []
        for row in members.members(self.database):
            presence = there.get(row["name"])
            state = "revoked" if row["revoked_at"] else "member"
            if row["kind"] != "person" and not row["revoked_at"]:
                state = "active" if presence and presence.online else "silent"
            heard_s = round(max(0.0, monotonic() - presence.heard), 1) if presence else None
            version = presence.version if presence else ""
            said = presence.said if presence else NOTHING
            live = {"state": state, "version": version, "heard_s": heard_s}
            live["twice"] = self.instances.doubled(row["name"], monotonic())
            said_now = {"attributes": dict(said.attributes), "resources": dict(said.slots)}
            facts.append({**row, **live, **said_now})
        return facts + self._behind(facts)

    def _behind(self, facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the clients behind each combiner, as far as it has told."""
        blank = {"kind": "site", "role": "site", "org": "", "joined_at": "", "fingerprint": ""}
        found = []
        for combiner in (row["name"] for row in facts if row["kind"] == "combiner"):
            there = self.hub.online()
            for name in sorted(self.hub.behind(combiner)):
                presence = there.get(name)
                online = presence is not None and presence.online
                state = {"state": "active" if online else "silent", "via": combiner}
                found.append({"name": name, **blank, "revoked_at": None, **state})
        return found

    def sweep(self) -> None:
        """Remove files that a crash has left and nothing refers to."""
        going = {row.run for row in self.journal.runs(unfinished=True)}
        self.stores.sweep(going, self.journal.open_updates())
        shutil.rmtree(self.folder / FUNCTIONS_FOLDER, ignore_errors=True)
        self.sweep_unsubmitted()

    def sweep_unsubmitted(self) -> None:
        """Remove packages and models whose submission was refused, or never came."""
        self.unsubmitted.sweep(self.trail)

    def close(self) -> None:
        """Let go of everything."""
        self.runs.leave()
        self.database.close()
        self.stores.spares.clear()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a server's folder: one process at a time; the system frees it when that dies.

    Raises:
      ServerError: another process serves from it.
    """
    import filelock

    try:
        with filelock.FileLock(folder / "lock", timeout=1.0), announced(folder):
            yield
    except filelock.Timeout:
        raise ServerError(
            "server-busy",
            f"Another process serves from {folder.resolve()}.",
            "Stop it first, or look at it with: hansa server sites",
        ) from None
