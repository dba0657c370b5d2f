import os
import stat
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import IdentityError
from hansa.identity import (
    check_receipt,
    from_text,
    key_fingerprint,
    load_key,
    new_key,
    own_key,
    receipt_text,
    save_key,
    sign_receipt,
    to_text,
    verify,
)

FIELDS = ("mnist-1", 3, "train", "clinic", "blake3:" + "a" * 64, 400, "2026-11-22T04:41:26+00:00")


def test_a_key_that_is_saved_and_read_again_signs_alike_and_another_library_agrees(tmp_path):
    key = new_key()
    save_key(tmp_path / "key.pem", key)
    read = load_key(tmp_path / "key.pem")
    assert read.public == key.public and read.fingerprint == key.fingerprint
    Ed25519PublicKey.from_public_bytes(key.public).verify(read.sign(b"text"), b"text")
    verify(key.public, read.sign(b"text"), b"text")


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_only_its_owner_can_read_a_key_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        save_key(tmp_path / "key.pem", new_key())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path):
    first = new_key()
    save_key(tmp_path / "key.pem", first)
    with pytest.raises(IdentityError) as caught:
        save_key(tmp_path / "key.pem", new_key())
    assert caught.value.code == "identity-key"
    assert load_key(tmp_path / "key.pem").public == first.public


def test_a_key_that_cannot_be_written_whole_is_not_there(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_key(tmp_path / "key.pem", new_key())
    assert not list(tmp_path.iterdir())


def test_a_members_own_key_is_made_once(tmp_path):
    assert own_key(tmp_path / "key.pem").public == own_key(tmp_path / "key.pem").public


def test_a_file_that_holds_no_key_says_so_without_its_contents(tmp_path):
    path = tmp_path / "key.pem"
    pem = new_key().pem()
    for content in (b"", b"canary", pem[: len(pem) // 2], pem.replace(b"PRIVATE", b"PUBLIC")):
        path.write_bytes(content)
        with pytest.raises(IdentityError) as caught:
            load_key(path)
        assert caught.value.code == "identity-key"
        told = "".join(traceback.format_exception(caught.value))
        assert "canary" not in told and "MC4CAQ" not in told
    with pytest.raises(IdentityError, match="Cannot read"):
        load_key(tmp_path / "none.pem")


def test_neither_a_key_nor_an_error_about_it_shows_the_private_half():
    key = new_key()
    secret = key._private.private_bytes_raw()
    assert secret.hex() not in repr(key) and to_text(secret) not in str(key)


@pytest.mark.parametrize("position", range(64))
def test_a_signature_with_one_other_bit_does_not_hold(position):
    key = new_key()
    signature = bytearray(key.sign(b"text"))
    signature[position] ^= 1
    with pytest.raises(IdentityError) as caught:
        verify(key.public, bytes(signature), b"text")
    assert caught.value.code == "identity-signature"


def test_a_signature_of_another_key_or_text_or_of_wrong_length_does_not_hold():
    key = new_key()
    signature = key.sign(b"text")
    for public, signed, data in (
        (new_key().public, signature, b"text"),
        (key.public, signature, b"texu"),
        (key.public, signature[:-1], b"text"),
        (key.public, b"", b"text"),
        (key.public[:-1], signature, b"text"),
        (b"", signature, b"text"),
        (b"\xff" * 32, signature, b"text"),
    ):
        with pytest.raises(IdentityError, match="identity-signature"):
            verify(public, signed, data)


@given(st.binary(max_size=100))
def test_bytes_come_back_from_their_text(data):
    assert from_text(to_text(data)) == data


@given(st.text(max_size=50))
def test_each_text_is_the_one_spelling_of_its_bytes_or_is_refused(text):
    try:
        data = from_text(text)
    except IdentityError:
        return
    assert to_text(data) == text


def test_other_spellings_of_the_same_bytes_are_refused():
    assert from_text("AA") == b"\0"
    for text in ("AB", "AA==", "AA\n", " AA", "A", "A+", "A/", "AÄ"):
        with pytest.raises(IdentityError):
            from_text(text)


def test_fingerprints_are_128_bits_of_sha256():
    # The digest of 32 zero bytes, as any other tool computes it.
    assert key_fingerprint(bytes(32)) == "66687aadf862bd776c8fc18b8e9f8e20"


def test_a_receipt_holds_for_its_own_fields_alone():
    key = new_key()
    signature = sign_receipt(key, *FIELDS)
    check_receipt(key.public, signature, *FIELDS)
    for position in range(len(FIELDS)):
        changed = list(FIELDS)
        changed[position] = 4 if isinstance(FIELDS[position], int) else "other"
        with pytest.raises(IdentityError):
            check_receipt(key.public, signature, *changed)
    with pytest.raises(IdentityError):
        check_receipt(new_key().public, signature, *FIELDS)
    with pytest.raises(IdentityError):
        check_receipt(key.public, "no signature", *FIELDS)


def test_fields_cannot_run_into_each_other():
    rest = ("b", "c", "d", 2, "e")
    texts = {
        receipt_text(run, n, *rest) for run, n in [("a", 1), ("a", 11), ("a1", 1), ('a",1', 1)]
    }
    assert len(texts) == 4
