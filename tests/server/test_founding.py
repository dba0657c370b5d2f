import stat

import pytest
from cryptography import x509

from hansa.errors import HansaError
from hansa.identity import (
    authority_fingerprint,
    check_certificate,
    find_membership,
    membership_folder,
)
from hansa.server.founding import found, tls_hosts
from hansa.server.members import members
from hansa.server.opening import opened
from hansa.server.settings import ServerSettings, load_settings

SETTINGS = ServerSettings(name="Heart", url="https://hansa.example:9443", port=9443)


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("HANSA_HOME", str(tmp_path / "home"))


def test_a_new_server_has_an_authority_an_admin_and_settings(tmp_path):
    founded = found(tmp_path / "server", SETTINGS, admin="eva")
    assert load_settings(tmp_path / "server") == SETTINGS
    admin = find_membership(SETTINGS.url)
    assert (admin.name, admin.role, admin.federation) == ("eva", "admin", "Heart")
    assert authority_fingerprint(admin.authority_pem) == founded.fingerprint
    known = check_certificate(admin.certificate(), admin.authority_pem, at=None)
    assert known.public == admin.key().public
    with opened(tmp_path / "server") as server:
        assert [(m["name"], m["role"]) for m in members(server.database)] == [("eva", "admin")]


def test_keys_are_readable_by_this_user_alone(tmp_path):
    founded = found(tmp_path / "server", SETTINGS)
    keys = [*founded.folder.glob("*-key.pem"), founded.admin.folder / "key.pem"]
    assert len(keys) == 4
    for path in keys:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(founded.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((founded.folder / "hansa.db").stat().st_mode) == 0o600


def test_a_second_server_is_not_made_over_the_first(tmp_path):
    found(tmp_path / "server", SETTINGS)
    before = {p.name: p.read_bytes() for p in (tmp_path / "server").glob("*.pem")}
    with pytest.raises(HansaError, match="server-exists"):
        found(tmp_path / "server", SETTINGS)
    assert {p.name: p.read_bytes() for p in (tmp_path / "server").glob("*.pem")} == before


def test_a_membership_of_another_server_at_this_address_is_not_overwritten(tmp_path):
    first = found(tmp_path / "one", SETTINGS)
    with pytest.raises(HansaError, match="server-exists"):
        found(tmp_path / "two", SETTINGS)
    assert find_membership(SETTINGS.url).authority_pem == first.admin.authority_pem
    assert not (tmp_path / "two").exists()


def test_only_what_is_written_last_is_missing_and_the_admin_is_there(tmp_path):
    founded = found(tmp_path / "server", SETTINGS)
    (founded.folder / "server.toml").unlink()
    again = found(tmp_path / "server", SETTINGS)
    assert again.fingerprint == founded.fingerprint
    assert again.admin.key().public == founded.admin.key().public
    assert (founded.folder / "server.toml").exists()


@pytest.mark.parametrize("lost", [(), ("tls.pem",), ("hansa.db", "receipt-key.pem")])
def test_what_an_interrupted_founding_has_left_is_completed(tmp_path, lost):
    founded = found(tmp_path / "server", SETTINGS)
    (founded.folder / "server.toml").unlink()  # it is written last
    (founded.admin.folder / "member.json").unlink()
    for name in lost:
        (founded.folder / name).unlink()
    again = found(tmp_path / "server", SETTINGS)
    assert again.fingerprint == founded.fingerprint
    assert again.admin.key().public == founded.admin.key().public


def test_the_tls_certificate_is_for_the_public_name_and_this_machine(tmp_path):
    found(tmp_path / "server", SETTINGS)
    leaf = x509.load_pem_x509_certificates((tmp_path / "server" / "tls.pem").read_bytes())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "hansa.example" in names.get_values_for_type(x509.DNSName)
    assert "127.0.0.1" in map(str, names.get_values_for_type(x509.IPAddress))
    for host in ("192.0.2.4", "hansa.internal"):
        assert host in tls_hosts(ServerSettings(url=SETTINGS.url, host=host))


def test_a_name_that_no_member_can_have_founds_nothing(tmp_path):
    with pytest.raises(HansaError, match="member-invalid"):
        found(tmp_path / "server", SETTINGS, admin="Eva Maria")
    assert not (tmp_path / "server").exists() and not membership_folder(SETTINGS.url).exists()
