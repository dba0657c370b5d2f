"""Invitations: one line that says where the server is, how to know it, and lets one member in."""

from __future__ import annotations

import hashlib
import os
import re
from typing import NamedTuple
from urllib.parse import urlsplit

from hansa.errors import IdentityError
from hansa.identity.keys import to_text
from hansa.limits import INVITE_CHARS_MAX

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\]")
_SECRET = re.compile(r"([A-Za-z0-9_-]{22})\.([0-9a-f]{32})")


class Invite(NamedTuple):
    """An invitation, taken apart."""

    url: str  # https://HOST:PORT
    token: str  # a secret: redeems once
    fingerprint: str  # of the federation's authority

    def line(self) -> str:
        """Return the line to hand to the new member."""
        return f"{self.url}#{self.token}.{self.fingerprint}"

    def __repr__(self) -> str:
        return f"Invite({self.url}, fingerprint {self.fingerprint})"


def parse_invite(text: str) -> Invite:
    """Take an invitation apart.

    Raises:
      IdentityError: invite-malformed, the text is anything but one whole invitation.
    """
    text = text.strip()
    address, _, secret = text.partition("#")
    url = _server_url(address) if len(text) <= INVITE_CHARS_MAX else None
    parts = _SECRET.fullmatch(secret)
    if url is None or parts is None:
        raise IdentityError(
            "invite-malformed",
            f"This is not an invitation ({len(text)} characters); nothing was sent anywhere.",
            "Paste the whole line, in quotes: 'https://HOST:PORT#TOKEN.FINGERPRINT'.",
        )
    return Invite(url, parts[1], parts[2])


def _server_url(address: str) -> str | None:
    """Return https://HOST:PORT of an address that says nothing more."""
    try:
        parts = urlsplit(address)
        port = 443 if parts.port is None else parts.port
    except ValueError:
        return None
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    plain = parts.path in ("", "/") and not parts.query and "@" not in parts.netloc
    if parts.scheme != "https" or not plain or not _HOST.fullmatch(host) or not port:
        return None
    return f"https://{host}:{port}"


def new_token() -> str:
    """Make a one-time token: 128 random bits as 22 characters."""
    return to_text(os.urandom(16))


def token_hash(token: str) -> str:
    """Return SHA-256 of a token in hexadecimal, which is all that a server keeps of it.

    A plain hash will do: a token is random, so there is no dictionary to try.
    """
    return hashlib.sha256(token.encode()).hexdigest()
