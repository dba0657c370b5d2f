"""Where a member keeps what it has of a federation: one folder each, a site's own or a person's.

key.pem          the member's key: never leaves this folder
certificate.pem  short, renewed
authority.pem    the only authority that its server is verified against
submitters.pem   behind a combiner: the authority of those who submit runs
member.json      the rest; written last, so a folder without it is no membership
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from hansa.errors import IdentityError
from hansa.identity.keys import MemberKey, load_key
from hansa.store.files import write_durably

SUBMITTERS_FILE = "submitters.pem"


class Membership(NamedTuple):
    """One member of one federation, as it knows itself."""

    folder: Path
    url: str  # of the server: https://HOST:PORT
    name: str
    role: str
    authority_pem: str
    receipt_key: str  # public key that the server signs receipts with, base64url
    federation: str = ""  # its name, for people
    submitters_pem: str = ""  # the authority of submitters, where it is another: behind a combiner

    @property
    def trusted_pem(self) -> str:
        """Return the authority that certifies submitters."""
        return self.submitters_pem or self.authority_pem

    def key(self) -> MemberKey:
        """Read the member's key."""
        return load_key(self.folder / "key.pem")

    def certificate(self) -> str:
        """Read the certificate as it is now; it is renewed while processes run.

        Raises:
          IdentityError: identity-membership, there is none.
        """
        return _read(self.folder / "certificate.pem")


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What member.json holds."""

    url: str
    name: str
    role: str
    receipt_key: str
    federation: str = ""
    submitters: bool = False  # another authority than the server's certifies them


def hansa_home() -> Path:
    """Return the folder of a person's settings: `HANSA_HOME`, or `~/.config/hansa`."""
    named = os.environ.get("HANSA_HOME")
    return Path(named).expanduser() if named else Path.home() / ".config" / "hansa"


def membership_folder(url: str) -> Path:
    """Return where a person's membership of the federation at this address is kept."""
    place = urlsplit(url)
    host = (place.hostname or "").replace(":", "_").lower()
    return hansa_home() / "federations" / f"{host}-{place.port or 443}"


def save_membership(membership: Membership, certificate: str) -> None:
    """Write a membership durably; its key must be in the folder already.

    Raises:
      OSError: as the system reports it.
    """
    folder = membership.folder
    facts = _Facts(
        url=membership.url,
        name=membership.name,
        role=membership.role,
        receipt_key=membership.receipt_key,
        federation=membership.federation,
        submitters=bool(membership.submitters_pem),
    )
    write_durably(folder / "authority.pem", [membership.authority_pem.encode()])
    write_durably(folder / "certificate.pem", [certificate.encode()])
    if membership.submitters_pem:
        write_durably(folder / SUBMITTERS_FILE, [membership.submitters_pem.encode()])
    text = msgspec.json.format(msgspec.json.encode(facts), indent=2)
    write_durably(folder / "member.json", [text, b"\n"])


def save_certificate(folder: Path, certificate: str) -> None:
    """Replace a membership's certificate by a renewed one.

    Raises:
      OSError: as the system reports it.
    """
    write_durably(folder / "certificate.pem", [certificate.encode()])


def load_membership(folder: Path) -> Membership:
    """Read a membership from its folder, a site's or a person's.

    Raises:
      IdentityError: identity-membership, there is none, or it is damaged.
    """
    path = folder / "member.json"
    text = _read(path)
    try:
        facts = msgspec.json.decode(text, type=_Facts)
    except msgspec.MsgspecError as error:
        raise IdentityError(
            "identity-membership",
            f"{path} is damaged: {error}.",
            "Restore the folder from a backup, or join again in another folder.",
        ) from None
    return Membership(
        folder,
        facts.url,
        facts.name,
        facts.role,
        _read(folder / "authority.pem"),
        facts.receipt_key,
        facts.federation,
        _read(folder / SUBMITTERS_FILE) if facts.submitters else "",
    )


def find_membership(url: str | None) -> Membership:
    """Return a person's membership of a federation.

    Args:
      url: address of its server, or its folder's name; None: the only one there is.

    Raises:
      IdentityError: identity-membership, there is none, it is not clear which one is meant, or
        that is no address.
    """
    memberships = hansa_home() / "federations"
    folders = sorted(p.parent for p in memberships.glob("*/member.json"))
    if url is not None:
        address = url if "://" in url else f"https://{url}"
        if not _is_address(address):
            raise _no_address(url, folders)
        folder = membership_folder(address)
        if folders and not (folder / "member.json").exists():
            raise _elsewhere(url, folders)
        if folders:
            return load_membership(folder)
    if len(folders) == 1:
        return load_membership(folders[0])
    if not folders:
        raise _missing(f"there is no membership of a federation below {memberships}")
    raise IdentityError(
        "identity-membership",
        f"There are {len(folders)} federations: {_addresses(folders)}.",
        "Say which one is meant, by its address, as in: --on ADDRESS",
    )


_HOST = re.compile(r"[\w.-]*\w[\w.-]*|[0-9a-f.]*:[0-9a-f:.]*")


def _is_address(url: str) -> bool:
    """Tell whether this is https://HOST or https://HOST:PORT, and nothing behind it."""
    try:
        place = urlsplit(url)
        host = _HOST.fullmatch(place.hostname or "")
        port = place.port != 0 and not place.netloc.endswith(":")
    except ValueError:  # a port that is no number or too large, half a bracket
        return False
    more = place.path.strip("/") or place.query or place.fragment or "@" in place.netloc
    return bool(host and port and place.scheme == "https" and not more)


def _no_address(text: str, folders: list[Path]) -> IdentityError:
    known = f" You are a member at: {_addresses(folders)}." if folders else ""
    return IdentityError(
        "identity-membership",
        f"{text!r} is not the address of a server. Nothing was sent.{known}",
        "Write HOST, HOST:PORT or https://HOST:PORT, as in the invitation.",
    )


def _elsewhere(url: str, folders: list[Path]) -> IdentityError:
    return IdentityError(
        "identity-membership",
        f"You are not known to be a member at {url}; you are one at: {_addresses(folders)}.",
        "Name one of those, or join with the operator's invitation: hansa join INVITE",
    )


def _addresses(folders: list[Path]) -> str:
    """Return where the memberships in these folders are, by host and port."""
    return ", ".join(":".join(folder.name.rsplit("-", 1)) for folder in folders)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _missing(f"there is no {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _missing(f"{path} cannot be read: {error}") from None


def _missing(what: str) -> IdentityError:
    return IdentityError(
        "identity-membership",
        f"You are not known to be a member: {what}.",
        "Join with the invitation of the federation's operator: hansa join INVITE",
    )
