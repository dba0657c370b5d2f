"""A server's folder as its operator's commands see it, while the server runs or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hansa.errors import IdentityError, ServerError
from hansa.identity import Role
from hansa.server import members
from hansa.server.settings import SETTINGS_FILE, UPWARD, ServerSettings, load_settings
from hansa.store.database import Database, open_database

if TYPE_CHECKING:
    from hansa.identity import Authority
    from hansa.server.state import ServerState

OPERATOR = "operator"
"""Who does what is done at the server's own command line, in the audit trail."""

BACKUP_BEGUN = "server.backup-begun"
"""The action that the audit trail has before keys are copied, whatever becomes of the backup."""

BACKED_UP = "server.backup"
"""The action that it has of each backup that is whole; the doctor looks for the last one."""

DATABASE_FILE = "hansa.db"

SECRET = ("ca-key.pem", "tls-key.pem", "receipt-key.pem")
"""Files of a server's folder that only its user may read."""


class Opened(NamedTuple):
    """A server's folder that has been opened."""

    folder: Path
    settings: ServerSettings
    database: Database

    @property
    def authority(self) -> Authority:
        """The federation's authority, read anew each time: few commands want it.

        Raises:
          IdentityError: identity-key, it cannot be read.
        """
        from hansa.identity import load_authority

        return load_authority(self.folder)


@contextlib.contextmanager
def opened(folder: Path, *, whole: bool = True) -> Iterator[Opened]:
    """Give a server's settings, authority and database; another process may be serving from it.

    Args:
      folder: of the server.
      whole: its authority must be readable too; who only looks at members does not need it.

    Raises:
      ServerError: server-settings, there is no server; server-database, its database is missing,
        damaged or of a newer release.
      IdentityError: identity-key, its authority cannot be read.
    """
    settings = load_settings(folder)
    check_database(folder)
    if whole:
        from hansa.identity import load_authority

        load_authority(folder)
    # The server looks through it when it starts; here that would only keep the server waiting.
    database = open_database(folder / DATABASE_FILE, check=False)
    try:
        yield Opened(folder, settings, database)
    finally:
        database.close()


def refuse_combiner(folder: Path) -> None:
    """Refuse to serve a combiner's folder as a server of its own.

    Raises:
      ServerError: server-settings.
    """
    if (folder / UPWARD).exists():
        raise ServerError(
            "server-settings",
            f"{folder.resolve()} is a combiner's: its runs belong to the server above it.",
            "Start it with: hansa combiner start",
        )


def check_combiner(folder: Path) -> None:
    """Refuse what is of combiners in any other folder.

    Raises:
      ServerError: server-settings.
    """
    if not (folder / SETTINGS_FILE).exists():
        raise ServerError(
            "server-settings",
            f"There is no combiner in {folder.resolve()}.",
            "Make one with: hansa combiner init --join LINE, or name its folder with --folder.",
        )
    if not (folder / UPWARD).exists():
        raise ServerError(
            "server-settings",
            f"{folder.resolve()} is a server's folder, and no combiner's.",
            "Name the combiner's with --folder; a server starts with: hansa server start",
        )


def check_role(folder: Path, role: Role) -> None:
    """Refuse to invite to a combiner whom it has no use for.

    Raises:
      IdentityError: member-invalid.
    """
    if role in ("combiner", "submitter") and (folder / UPWARD).exists():
        raise IdentityError(
            "member-invalid",
            f"Nobody was invited: a combiner takes sites, and nobody with the role {role}; its "
            "runs come from the server above.",
            f"Invite the {role} there: hansa server invite NAME --role {role}",
        )


def check_database(folder: Path) -> None:
    """Refuse a server whose database is gone; an empty one in its place would know no members.

    Raises:
      ServerError: server-database.
    """
    if not (folder / DATABASE_FILE).is_file():
        raise ServerError(
            "server-database",
            f"There is no {DATABASE_FILE} in {folder.resolve()}; nothing was made in its place.",
            "Restore the folder from a backup: a backup is a server's folder that can be started.",
        )


def invitation(
    server: Opened | ServerState,
    name: str,
    *,
    role: Role,
    org: str,
    expires_s: float,
    at: float,
    by: str = OPERATOR,
) -> str:
    """Return the line that invites a member; it is told once and kept only as a hash.

    Raises:
      IdentityError: member-invalid or member-exists.
    """
    from hansa.identity import Invite

    check_role(server.folder, role)
    token = members.create_invite(
        server.database,
        name,
        kind=members.kind_of(role),
        role=role,
        org=org,
        expires_s=expires_s,
        by=by,
        at=at,
    )
    return Invite(server.settings.url, token, server.authority.fingerprint).line()
