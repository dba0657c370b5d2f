"""Ed25519 keys: made where they are used, and never sent anywhere.

A member is known by its public key; the fingerprint is the short form for people and tables.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hansa.errors import IdentityError
from hansa.store.files import sync_folder

_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")  # before the 32 bytes; RFC 8410, 7
_BEGIN, _END = b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----"

FINGERPRINT_CHARS = 32
"""Hexadecimal characters of a fingerprint: 128 bits, so that no second key can be made for one."""


class MemberKey:
    """A private key; it shows its public half alone, also in tracebacks and logs."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public: bytes = private.public_key().public_bytes_raw()
        self.fingerprint: str = key_fingerprint(self.public)

    def __repr__(self) -> str:
        return f"MemberKey({self.fingerprint})"

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature over `data`."""
        return self._private.sign(data)

    def pem(self) -> bytes:
        """Return the private key as PEM (PKCS 8): a secret, only ever for `save_key`."""
        body = base64.b64encode(_PKCS8 + self._private.private_bytes_raw())
        return b"\n".join([_BEGIN, body, _END, b""])


def new_key() -> MemberKey:
    """Make a key from the system's random numbers."""
    return MemberKey(Ed25519PrivateKey.generate())


def key_fingerprint(public: bytes) -> str:
    """Return the first 128 bits of SHA-256 over a public key, as 32 hexadecimal characters."""
    return hashlib.sha256(public).hexdigest()[:FINGERPRINT_CHARS]


def save_key(path: str | os.PathLike[str], key: MemberKey) -> None:
    """Write a key that only this user can read; an existing file is never replaced.

    Raises:
      IdentityError: identity-key, there is a file of this name.
      OSError: as the system reports it.
    """
    write_secret(Path(path), key.pem())


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file with mode 0600 and synchronise it; after an error there is none.

    Raises:
      IdentityError: identity-key, there is a file of this name.
      OSError: as the system reports it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise IdentityError(
            "identity-key",
            f"{path} exists; a key is never overwritten, and nothing was changed.",
            "Use another folder, or move the file away if its key is no longer needed.",
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def load_key(path: str | os.PathLike[str]) -> MemberKey:
    """Read a key that `save_key` has written.

    Raises:
      IdentityError: identity-key, there is none, or it is no Ed25519 key.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise IdentityError(
            "identity-key",
            f"Cannot read the key {path}: {error.strerror}.",
            "A key is made when a member joins: hansa join INVITE.",
        ) from error
    private = _private(content)
    if private is None:
        raise IdentityError(
            "identity-key",
            f"{path} holds no Ed25519 key that can be read ({len(content)} bytes).",
            "Restore it from a backup; if there is none, move it away and join again.",
        )
    return MemberKey(private)


def _private(pem: bytes) -> Ed25519PrivateKey | None:
    """Return the key of what `MemberKey.pem` has made; None for any other text.

    No error is raised whose text could quote the file; and the reader of all formats takes longer
    to import than a command needs to ask a server.
    """
    try:
        begin, *body, end = pem.strip().splitlines()
        der = base64.b64decode(b"".join(body), validate=True)
    except ValueError:
        return None
    if (begin, der[:-32], end) != (_BEGIN, _PKCS8, _END):
        return None
    return Ed25519PrivateKey.from_private_bytes(der[-32:])


def own_key(path: str | os.PathLike[str]) -> MemberKey:
    """Return the key of this file; make it if there is none.

    So a member that never saw the answer to its enrolment repeats it with the same key.

    Raises:
      IdentityError: identity-key, the file is there and holds no key.
      OSError: a new key cannot be written.
    """
    if not Path(path).exists():
        save_key(path, new_key())
    return load_key(path)


def verify(public: bytes, signature: bytes, data: bytes) -> None:
    """Return if the signature over the data was made with this public key's other half.

    Args:
      public: 32 bytes.
      signature: 64 bytes.
      data: what was signed.

    Raises:
      IdentityError: identity-signature, in every other case.
    """
    try:
        _public_key(public).verify(signature, data)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError(
            "identity-signature",
            "A signature does not fit the text and the key it is said to be of.",
            "What was signed has been changed on its way, or another key has signed it.",
        ) from None


@functools.lru_cache(maxsize=1024)
def _public_key(public: bytes) -> Ed25519PublicKey:
    """Return a key to verify with; making one takes as long as a fifth of a verification."""
    return Ed25519PublicKey.from_public_bytes(public)


def to_text(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_text(text: str) -> bytes:
    """Return the bytes of base64url without padding; each text has one spelling.

    Raises:
      IdentityError: identity-signature, the text is anything else.
    """
    try:
        data = base64.b64decode(
            text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
        )
    except (ValueError, binascii.Error):
        data = None
    if data is None or to_text(data) != text:
        raise IdentityError(
            "identity-signature",
            f"A key or signature of {len(text)} characters is not base64url without padding.",
            "Send it as Hansa writes it, whole and without line breaks.",
        )
    return data
