"""The federation's own certificate authority: one key that says who belongs to it.

It signs the server's TLS certificate and short certificates of members, and nothing else.
"""

from __future__ import annotations

import functools
import hmac
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hansa.clock import date_of, wall
from hansa.errors import IdentityError
from hansa.identity.keys import FINGERPRINT_CHARS, write_secret
from hansa.identity.roles import ROLES, Role
from hansa.limits import (
    AUTHORITY_DAYS,
    CERTIFICATE_CHARS_MAX,
    CERTIFICATE_HOURS,
    CLOCK_SKEW_S,
    TLS_DAYS,
)
from hansa.store.files import write_durably

DAY_S = 86_400.0

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension,
               x509.ExtensionNotFound, x509.InvalidVersion,
               x509.UnsupportedGeneralNameType)  # fmt: skip


class MemberCertificate(NamedTuple):
    """What the authority says of a member."""

    name: str
    role: Role
    public: bytes  # 32 bytes
    not_before: float  # wall seconds
    not_after: float  # wall seconds


class Authority:
    """The authority with its private key; only a server has one."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        self.pem: str = _pem(certificate)
        self.fingerprint: str = _fingerprint(certificate)
        self.federation: str = _only(certificate, NameOID.ORGANIZATION_NAME)

    def __repr__(self) -> str:
        return f"Authority({self.federation}, {self.fingerprint})"

    def issue_tls(
        self, folder: Path, hosts: Sequence[str], *, days: float = TLS_DAYS, at: float | None = None
    ) -> None:
        """Write `tls.pem`, the server's certificate and the authority's, and `tls-key.pem`.

        A key that is there is kept, so that certificate and key fit together at every instant.

        Args:
          folder: of the server.
          hosts: names and IP addresses by which members reach it; at least one.
          days: how long it holds.
          at: wall seconds of its making; now if None.

        Raises:
          IdentityError: identity-key, the key that is there cannot be used.
          OSError: as the system reports it.
        """
        at = wall() if at is None else at
        path = folder / "tls-key.pem"
        if not path.exists():
            write_secret(path, _private_pem(ec.generate_private_key(ec.SECP256R1())))
        names = x509.SubjectAlternativeName([_host_name(host) for host in hosts])
        certificate = (
            self._signed(_name(hosts[0][:64]), _load_ec_key(path).public_key())
            # Members look at their own clocks here, and these may be behind.
            .not_valid_before(date_of(at - DAY_S))
            .not_valid_after(date_of(at + days * DAY_S))
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        write_durably(folder / "tls.pem", [_pem(certificate).encode(), self.pem.encode()])

    def issue_member(self, name: str, role: Role, public: bytes, *, at: float | None = None) -> str:
        """Return a member's certificate as PEM.

        Args:
          name: of the member.
          role: what it may do.
          public: its key, 32 bytes.
          at: wall seconds of its making; now if None.
        """
        assert role in ROLES, role
        at = wall() if at is None else at
        certificate = (
            self._signed(_name(name, unit=role), Ed25519PublicKey.from_public_bytes(public))
            .not_valid_before(date_of(at - CLOCK_SKEW_S))
            .not_valid_after(date_of(at + CERTIFICATE_HOURS * 3600))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return _pem(certificate)

    def _signed(
        self, subject: x509.Name, key: Ed25519PublicKey | ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        """Return what all certificates have that are not the authority's own."""
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            _builder(subject, key)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(issuer, critical=False)
        )


def create_authority(folder: Path, *, federation: str, at: float | None = None) -> Authority:
    """Make an authority and write `ca.pem` and `ca-key.pem`, which only this user can read.

    A key alone was left by a crash of this function; nobody has seen it, and it is taken up.

    Args:
      folder: of the server; must exist.
      federation: its name, for people; up to 64 characters.
      at: wall seconds of its making; now if None.

    Raises:
      IdentityError: identity-key, there is an authority already; nothing was changed.
      OSError: as the system reports it.
    """
    at = wall() if at is None else at
    key_path, path = folder / "ca-key.pem", folder / "ca.pem"
    if path.exists():
        raise IdentityError(
            "identity-key",
            f"{path} exists; an authority is never made over, and nothing was changed.",
            "Use another folder.  If its key is lost, restore both files from a backup.",
        )
    if not key_path.exists():
        write_secret(key_path, _private_pem(ec.generate_private_key(ec.SECP256R1())))
    key = _load_ec_key(key_path)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Hansa authority {os.urandom(4).hex()}"),
        ]
    )
    certificate = (
        _builder(subject, key.public_key())
        .issuer_name(subject)
        .not_valid_before(date_of(at - DAY_S))
        .not_valid_after(date_of(at + AUTHORITY_DAYS * DAY_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_durably(path, [_pem(certificate).encode()])
    return Authority(certificate, key)


def load_authority(folder: Path) -> Authority:
    """Read the authority of a server's folder.

    Raises:
      IdentityError: identity-key, a file is missing or damaged, or they do not fit together.
    """
    key = _load_ec_key(folder / "ca-key.pem")
    try:
        certificate = _read_pem((folder / "ca.pem").read_text(encoding="ascii"))
        fits = certificate.public_key() == key.public_key()
    except (OSError, *_UNREADABLE):
        fits = False
    if not fits:
        raise IdentityError(
            "identity-key",
            f"{folder / 'ca.pem'} is missing or damaged, or is not of the key beside it.",
            "Restore both files from one backup of the server's folder.",
        )
    return Authority(certificate, key)


def authority_fingerprint(pem: str) -> str:
    """Return the first 128 bits of SHA-256 over a certificate's DER, as 32 hex characters.

    Raises:
      IdentityError: identity-certificate, this is no certificate.
    """
    return _fingerprint(_read_authority(pem))


def check_authority(pem: str, fingerprint: str) -> None:
    """Return if this is the authority that an invitation names.

    Raises:
      IdentityError: identity-tls, it is another one; identity-certificate, it is none.
    """
    found = authority_fingerprint(pem)
    if not hmac.compare_digest(found.encode(), fingerprint.encode()):
        raise IdentityError(
            "identity-tls",
            f"The server belongs to the authority {found}, the invitation names {fingerprint};"
            " the invitation was not sent.",
            "Ask the operator for a new invitation.  If it names the same authority as this one,"
            " somebody else answers at this address.",
        )


def check_certificate(pem: str, authority_pem: str, *, at: float | None) -> MemberCertificate:
    """Return what a member's certificate says, if the authority has signed it.

    Args:
      pem: one certificate and nothing else.
      authority_pem: the federation's.
      at: wall seconds at which it must hold; None: its time is not looked at.

    Raises:
      IdentityError: identity-expired, it no longer holds; identity-certificate, it is no
        certificate of a member of this federation, or does not hold yet.
    """
    if len(pem) > CERTIFICATE_CHARS_MAX:
        raise _not_a_member(f"has {len(pem)} characters, more than {CERTIFICATE_CHARS_MAX}")
    authority = _read_authority(authority_pem)
    try:
        certificate = _read_pem(pem)
        # Nothing of it is looked at before the signature.
        certificate.verify_directly_issued_by(authority)
        member = _member_of(certificate)
    except (InvalidSignature, *_UNREADABLE):
        member = None
    if member is None:
        raise _not_a_member("is damaged, of another federation, or not of a member")
    if at is not None and at < member.not_before:
        raise _not_a_member(f"of {member.name} holds only from {date_of(member.not_before)}")
    if at is not None and at >= member.not_after:
        raise IdentityError(
            "identity-expired",
            f"The certificate of {member.name} ended at {date_of(member.not_after)}.",
            "Renew it; a site's agent and the command line do so by themselves.",
        )
    return member


def renewal_due(member: MemberCertificate, *, at: float) -> bool:
    """Say whether a member should renew its certificate: half of its time is over."""
    return at >= (member.not_before + member.not_after) / 2


def _member_of(certificate: x509.Certificate) -> MemberCertificate | None:
    """Return what a certificate says; None if it is not one of a member."""
    extensions = certificate.extensions
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    key = certificate.public_key()
    role = _only(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)
    if list(usage) != [ExtendedKeyUsageOID.CLIENT_AUTH] or constraints.ca:
        return None
    if not isinstance(key, Ed25519PublicKey) or role not in ROLES:
        return None
    return MemberCertificate(
        _only(certificate, NameOID.COMMON_NAME),
        role,
        key.public_bytes_raw(),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _not_a_member(why: str) -> IdentityError:
    return IdentityError(
        "identity-certificate",
        f"A certificate was refused: it {why}.",
        "Use the certificate that this federation gave to the member, unchanged;"
        " if it is lost, ask the operator for a new invitation.",
    )


def _read_pem(pem: str) -> x509.Certificate:
    """Return the one certificate of a text; ValueError where there is anything else."""
    certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
    if _pem(certificate).split() != pem.split():
        raise ValueError("more than one certificate")
    return certificate


@functools.lru_cache(maxsize=8)  # a process knows one or a few; checking each request's is slow
def _read_authority(pem: str) -> x509.Certificate:
    try:
        return _read_pem(pem) if len(pem) <= CERTIFICATE_CHARS_MAX else _read_pem("")
    except _UNREADABLE:
        raise _not_a_member("is not the certificate of an authority") from None


def _load_ec_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(
            "identity-key",
            f"{path} is missing or holds no key that can be read.",
            "Restore the server's folder from a backup; a new one is made by: hansa server init",
        )
    return key


def _builder(
    subject: x509.Name, key: Ed25519PublicKey | ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str, *, unit: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if unit is not None:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name(parts)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _only(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    """Return the one value of a part of the subject; empty if there is none or several."""
    values = certificate.subject.get_attributes_for_oid(oid)
    value = values[0].value if len(values) == 1 else ""
    return value if isinstance(value, str) else ""


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()[:FINGERPRINT_CHARS]


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
