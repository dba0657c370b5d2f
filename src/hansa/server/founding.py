"""Making a server: its folder, its authority, its first admin."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from hansa.clock import wall
from hansa.errors import ServerError
from hansa.identity import (
    Membership,
    create_authority,
    load_authority,
    load_membership,
    membership_folder,
    new_key,
    own_key,
    save_key,
    save_membership,
    to_text,
)
from hansa.server import members
from hansa.server.settings import SETTINGS_FILE, ServerSettings, operated_by, settings_text
from hansa.store.database import Database, open_database
from hansa.store.files import write_durably


class Founded(NamedTuple):
    """A new server."""

    folder: Path
    settings: ServerSettings
    fingerprint: str  # of the CA, to be compared by phone
    admin: Membership


def found(folder: Path, settings: ServerSettings, *, admin: str = "admin") -> Founded:
    """Make a server's folder and the first admin, whose membership is kept on this machine.

    What an interrupted call has left is used again, so the same call completes it.

    Args:
      folder: must not hold a server.
      settings: go into server.toml, which is written last.
      admin: name of the first admin.

    Raises:
      ServerError: the folder holds a server.
      IdentityError: member-invalid, the admin's name is none.  Nothing is made.
      OSError: as the system reports it.
    """
    if (folder / SETTINGS_FILE).exists():
        raise ServerError(
            "server-exists",
            f"{folder.resolve()} holds a server already. Nothing was changed.",
            f"Start it with: {operated_by(folder)} start --folder {folder}, "
            "or choose another folder.",
        )
    _check_home(folder, settings.url)
    members.check_name(admin)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not (folder / "ca.pem").exists():
        create_authority(folder, federation=settings.name)
    authority = load_authority(folder)
    authority.issue_tls(folder, tls_hosts(settings))
    if not (folder / "receipt-key.pem").exists():
        save_key(folder / "receipt-key.pem", new_key())
    database = open_database(folder / "hansa.db")
    try:
        membership = _admit(database, folder, settings, admin=admin)
    finally:
        database.close()
    write_durably(folder / SETTINGS_FILE, [settings_text(settings).encode()])
    return Founded(folder, settings, authority.fingerprint, membership)


def tls_hosts(settings: ServerSettings) -> list[str]:
    """Return the names that the TLS certificate is for: the public one, and this machine's."""
    public = _as_certified(urlsplit(settings.url).hostname or "localhost")
    hosts, listening = [public, "localhost", "127.0.0.1", "::1"], _as_certified(settings.host)
    hosts += [listening] if listening not in ("0.0.0.0", "::") else []
    return list(dict.fromkeys(hosts))


def _as_certified(host: str) -> str:
    """Return a host as it is read back from a certificate, where an address has one spelling."""
    try:
        return str(ipaddress.ip_address(ipaddress.ip_address(host).packed))  # without a zone
    except ValueError:
        return host


def _check_home(folder: Path, url: str) -> None:
    """See that this person is no member of another server at this address, before one is made."""
    home = membership_folder(url)
    if not (home / "member.json").exists():
        return
    authority = folder / "ca.pem"  # an interrupted call may have left its own membership
    if authority.exists() and load_membership(home).authority_pem == authority.read_text("ascii"):
        return
    raise ServerError(
        "server-exists",
        f"{home} is a membership of another server at {url}. Nothing was changed.",
        "Remove that folder if the server is gone, or choose another --url.",
    )


def _admit(database: Database, folder: Path, settings: ServerSettings, *, admin: str) -> Membership:
    """Make the first admin a member, with a key in this person's own home."""
    authority = load_authority(folder)
    home = membership_folder(settings.url)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = own_key(home / "key.pem")
    certificate = members.found_admin(database, authority, admin, key.public, at=wall())
    receipt_public = _receipt_public(folder)
    membership = Membership(
        home, settings.url, admin, "admin", authority.pem, receipt_public, settings.name
    )
    save_membership(membership, certificate)
    return membership


def _receipt_public(folder: Path) -> str:
    from hansa.identity import load_key

    return to_text(load_key(folder / "receipt-key.pem").public)
