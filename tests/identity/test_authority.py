import contextlib
import datetime
import os
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import IdentityError
from hansa.identity import (
    authority_fingerprint,
    check_authority,
    check_certificate,
    create_authority,
    load_authority,
    new_key,
    renewal_due,
)

AT = 1_800_000_000.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def authority(folder):
    return create_authority(folder, federation="Heart", at=AT)


@pytest.fixture(scope="module")
def key():
    return new_key()


@pytest.fixture(scope="module")
def pem(authority, key):
    return authority.issue_member("clinic", "site", key.public, at=AT)


def refused(pem, authority, *, at=None) -> str:
    with pytest.raises(IdentityError) as caught:
        check_certificate(pem, authority.pem, at=at)
    return caught.value.code


def certificate_by(folder, change=lambda builder: builder, *, key=None, usage=None, digest=None):
    """Return a certificate that the authority's key has signed but Hansa would not make."""
    issuer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    issuer_key = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), None)
    at = datetime.datetime.fromtimestamp(AT, datetime.UTC)
    names = [
        x509.NameAttribute(NameOID.COMMON_NAME, "clinic"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "site"),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(issuer.subject)
        .public_key((key or Ed25519PrivateKey.generate()).public_key())
        .serial_number(7)
        .not_valid_before(at)
        .not_valid_after(at + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    usage = [ExtendedKeyUsageOID.CLIENT_AUTH] if usage is None else usage
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=True)
    signed = change(builder).sign(issuer_key, digest or hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def test_a_certificate_says_what_was_certified(authority, key, pem):
    member = check_certificate(pem, authority.pem, at=AT)
    assert (member.name, member.role, member.public) == ("clinic", "site", key.public)
    assert member.not_before < AT and member.not_after == AT + 24 * 3600
    assert check_certificate(pem, authority.pem, at=None) == member
    assert len(pem) < 1_000


def test_an_authority_comes_back_from_its_folder_and_is_never_made_over(folder, authority):
    again = load_authority(folder)
    assert again.pem == authority.pem and again.fingerprint == authority.fingerprint
    assert again.federation == "Heart"
    with pytest.raises(IdentityError, match="identity-key"):
        create_authority(folder, federation="Other")
    assert load_authority(folder).pem == authority.pem


def test_an_authority_whose_key_is_lost_is_not_made_over(tmp_path):
    pem = create_authority(tmp_path, federation="Heart").pem
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(IdentityError, match="identity-key"):
        create_authority(tmp_path, federation="Heart")
    assert (tmp_path / "ca.pem").read_text() == pem


def test_making_an_authority_that_was_cut_short_can_be_repeated(tmp_path, monkeypatch):
    from hansa.identity import authority as module

    def full(path, chunks):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(module, "write_durably", full)
        with pytest.raises(OSError, match="No space"):
            create_authority(tmp_path, federation="Heart")
    made = create_authority(tmp_path, federation="Heart")
    assert load_authority(tmp_path).fingerprint == made.fingerprint


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_only_the_server_can_read_its_private_keys(folder, authority):
    authority.issue_tls(folder, ["localhost"])
    for name in ("ca-key.pem", "tls-key.pem"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_an_authority_signs_members_and_no_other_authorities(authority):
    certificate = x509.load_pem_x509_certificate(authority.pem.encode())
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and not usage.digital_signature


def test_fingerprints_are_those_that_other_tools_show(authority):
    shown = x509.load_pem_x509_certificate(authority.pem.encode()).fingerprint(hashes.SHA256())
    assert authority.fingerprint == authority_fingerprint(authority.pem) == shown.hex()[:32]


def test_an_invitations_authority_is_told_from_another(authority, tmp_path):
    check_authority(authority.pem, authority.fingerprint)
    other = create_authority(tmp_path, federation="Heart")
    for fingerprint in (other.fingerprint, authority.fingerprint[:-1], "", "ä"):
        with pytest.raises(IdentityError) as caught:
            check_authority(authority.pem, fingerprint)
        assert caught.value.code == "identity-tls"
    with pytest.raises(IdentityError, match="identity-certificate"):
        authority_fingerprint("no certificate")


def test_a_certificate_of_another_authority_is_refused_even_if_it_has_the_same_name(
    authority, key, tmp_path
):
    other = create_authority(tmp_path, federation="Heart", at=AT)
    forged = other.issue_member("clinic", "site", key.public, at=AT)
    assert refused(forged, authority, at=AT) == "identity-certificate"
    assert refused(authority.pem, authority) == "identity-certificate"


def test_time_is_kept_to_the_second_at_both_ends(authority, pem):
    member = check_certificate(pem, authority.pem, at=None)
    check_certificate(pem, authority.pem, at=member.not_before)
    check_certificate(pem, authority.pem, at=member.not_after - 1)
    assert refused(pem, authority, at=member.not_before - 1) == "identity-certificate"
    assert refused(pem, authority, at=member.not_after) == "identity-expired"


def test_renewal_is_due_when_half_of_the_time_is_over(authority, pem):
    member = check_certificate(pem, authority.pem, at=None)
    assert not renewal_due(member, at=AT + 11.9 * 3600)
    assert renewal_due(member, at=AT + 12 * 3600)


def test_certificates_of_servers_and_members_do_not_serve_as_each_other(authority, folder, pem):
    authority.issue_tls(folder, ["clinic"], at=AT)
    chain = (folder / "tls.pem").read_text()
    leaf = chain[: chain.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n"
    assert refused(leaf, authority) == "identity-certificate"
    member = x509.load_pem_x509_certificate(pem.encode()).extensions
    usage = member.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(usage.value) == [ExtendedKeyUsageOID.CLIENT_AUTH] and usage.critical


def test_what_hansa_would_not_make_is_refused_although_the_authority_signed_it(authority, folder):
    check_certificate(certificate_by(folder), authority.pem, at=AT)  # the rest differs in one part
    both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    name = NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME

    def subject(*values):
        parts = [x509.NameAttribute(oid, value) for oid, value in zip(name, values, strict=False)]
        return lambda builder: _with_subject(builder, x509.Name(parts))

    wrong = [
        certificate_by(folder, _as_authority),
        certificate_by(folder, key=ec.generate_private_key(ec.SECP256R1())),
        certificate_by(folder, usage=both),
        certificate_by(folder, usage=[]),
        certificate_by(folder, usage=[ExtendedKeyUsageOID.SERVER_AUTH]),
        certificate_by(folder, subject("clinic", "king")),
        certificate_by(folder, subject("clinic")),
    ]
    for pem in wrong:
        assert refused(pem, authority) == "identity-certificate"


def _as_authority(builder):
    builder._extensions = [e for e in builder._extensions if e.oid != x509.BasicConstraints.oid]
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)


def _with_subject(builder, subject):
    builder._subject_name = None
    return builder.subject_name(subject)


def test_a_members_certificate_cannot_issue_another(authority, key, folder):
    member_key = Ed25519PrivateKey.generate()
    middle = x509.load_pem_x509_certificate(certificate_by(folder, key=member_key).encode())
    at = datetime.datetime.fromtimestamp(AT, datetime.UTC)
    forged = (
        x509.CertificateBuilder()
        .subject_name(middle.subject)
        .issuer_name(middle.subject)
        .public_key(Ed25519PrivateKey.generate().public_key())
        .serial_number(8)
        .not_valid_before(at)
        .not_valid_after(at + datetime.timedelta(hours=1))
        .sign(member_key, None)
    )
    pem = forged.public_bytes(serialization.Encoding.PEM).decode()
    assert refused(pem, authority) == "identity-certificate"


def test_garbage_and_more_than_one_certificate_are_refused(authority, pem):
    garbage = ["", "x", pem + pem, pem + "text", "text" + pem, pem[:-30], pem + " " * 4_000,
               "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "ä" + pem]  # fmt: skip
    for text in garbage:
        assert refused(text, authority) == "identity-certificate"
    # A line's end may become another on its way through a mail.
    check_certificate(pem.replace("\n", "\r\n"), authority.pem, at=AT)


@settings(max_examples=150)
@given(st.data())
def test_a_certificate_with_another_character_never_passes_as_another_member(authority, pem, data):
    position = data.draw(st.integers(0, len(pem) - 1))
    other = data.draw(st.characters(codec="utf-8"))
    changed = pem[:position] + other + pem[position + 1 :]
    try:
        member = check_certificate(changed, authority.pem, at=AT)
    except IdentityError:
        return
    assert member == check_certificate(pem, authority.pem, at=AT)


def test_a_renewed_tls_certificate_keeps_its_key_so_that_both_always_fit(folder, authority):
    authority.issue_tls(folder, ["localhost", "127.0.0.1", "::1"])
    key, first = (folder / "tls-key.pem").read_bytes(), (folder / "tls.pem").read_bytes()
    authority.issue_tls(folder, ["localhost", "127.0.0.1", "::1"])
    assert (folder / "tls-key.pem").read_bytes() == key
    assert (folder / "tls.pem").read_bytes() != first
    certificates = x509.load_pem_x509_certificates((folder / "tls.pem").read_bytes())
    assert len(certificates) == 2 and certificates[1].subject == certificates[0].issuer
    names = certificates[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_openssl_takes_the_servers_certificate_for_its_names_and_no_others(tmp_path, host):
    authority = create_authority(tmp_path, federation="Heart")
    authority.issue_tls(tmp_path, ["localhost", "127.0.0.1", "::1"])
    handshake(tmp_path, authority, host)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, authority, "elsewhere")


def handshake(folder, authority, host) -> None:
    """Shake hands in memory, with every check that OpenSSL has."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "tls.pem", folder / "tls-key.pem")
    client = ssl.create_default_context(cadata=authority.pem)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=host),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[0].version() == "TLSv1.3"


def test_a_damaged_folder_of_an_authority_is_told(tmp_path, folder, authority):
    with pytest.raises(IdentityError, match="identity-key"):
        load_authority(tmp_path)
    create_authority(tmp_path, federation="Other")
    (tmp_path / "ca.pem").write_text(authority.pem)
    with pytest.raises(IdentityError, match="not of the key beside it"):
        load_authority(tmp_path)
    (tmp_path / "ca.pem").write_bytes(b"\xff")
    with pytest.raises(IdentityError, match="identity-key"):
        load_authority(tmp_path)
