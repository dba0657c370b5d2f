import json
import re

import pytest

from hansa.errors import IdentityError
from hansa.identity import (
    Membership,
    find_membership,
    load_membership,
    membership_folder,
    new_key,
    save_certificate,
    save_key,
    save_membership,
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HANSA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def join(folder, url="https://fed.example.org:8443") -> Membership:
    folder.mkdir(parents=True)
    save_key(folder / "key.pem", new_key())
    membership = Membership(folder, url, "ana", "submitter", "AUTHORITY", "RECEIPTS", "Heart")
    save_membership(membership, "CERTIFICATE")
    return membership


def code(call, *arguments) -> str:
    with pytest.raises(IdentityError) as caught:
        call(*arguments)
    return caught.value.code


def test_a_membership_comes_back_from_its_folder(tmp_path):
    membership = join(tmp_path / "site")
    read = load_membership(tmp_path / "site")
    assert read == membership
    assert read.certificate() == "CERTIFICATE" and len(read.key().public) == 32
    assert {p.name for p in (tmp_path / "site").iterdir()} == {
        *("key.pem", "certificate.pem", "authority.pem", "member.json")
    }


def test_a_renewed_certificate_is_seen_by_those_who_hold_the_membership(tmp_path):
    membership = join(tmp_path / "site")
    save_certificate(tmp_path / "site", "RENEWED")
    assert membership.certificate() == "RENEWED"


def test_joining_that_was_cut_short_is_no_membership(tmp_path, monkeypatch):
    """member.json comes last: whatever was written before it does not count."""
    from hansa.identity import home as module

    written, write = [], module.write_durably

    def record(path, chunks):
        written.append(path.name)
        if path.name == "member.json":
            raise OSError(28, "No space left on device")
        write(path, chunks)

    monkeypatch.setattr(module, "write_durably", record)
    with pytest.raises(OSError, match="No space"):
        join(tmp_path / "site")
    assert sorted(written[:-1]) == ["authority.pem", "certificate.pem"]
    assert code(load_membership, tmp_path / "site") == "identity-membership"


def test_people_have_one_folder_for_each_federation(home):
    assert membership_folder("https://fed.example.org:8443").parent == home / "federations"
    names = {
        membership_folder(url).name
        for url in ("https://a:1", "https://a:2", "https://b:1", "https://[::1]:1", "https://a")
    }
    assert names == {"a-1", "a-2", "b-1", "__1-1", "a-443"}


def test_the_only_membership_is_found_without_its_address():
    assert code(find_membership, None) == "identity-membership"
    first = join(membership_folder("https://a:1"), "https://a:1")
    assert (
        find_membership(None) == find_membership("https://a:1") == find_membership("a:1") == first
    )
    join(membership_folder("https://b:1"), "https://b:1")
    with pytest.raises(IdentityError, match="a:1, b:1"):
        find_membership(None)
    assert find_membership("https://A:1").url == "https://a:1"
    with pytest.raises(IdentityError, match="at a:2; you are one at: a:1, b:1"):
        find_membership("a:2")


@pytest.mark.parametrize("url", ["https://c:1", "https://c:port", "https://[::1", ""])
def test_an_address_without_a_membership_is_told(url):
    assert code(find_membership, url) == "identity-membership"


@pytest.mark.parametrize(
    "text",
    [
        "ftp://a:1", "http://a:1", "https://", "https://a:1/path", "https://a:1?x", "anna@a:1",
        "a:", "a:port", "a:99999", "a:0", "/etc/a", "..", "a b", "*", "https://[::1", "",
    ],
)  # fmt: skip
def test_what_is_no_address_is_told_as_such_and_not_taken_for_a_host(text):
    join(membership_folder("https://a:1"), "https://a:1")
    with pytest.raises(IdentityError, match=r"is not the address of a server.*member at: a:1"):
        find_membership(text)


@pytest.mark.parametrize("text", ["b", "b_1:2", "https://b/", "https://[::1]:8443", "münchen.de"])
def test_an_address_of_another_server_is_one_though_nobody_joined_there(text):
    join(membership_folder("https://a:1"), "https://a:1")
    with pytest.raises(IdentityError, match=f"not known to be a member at {re.escape(text)};"):
        find_membership(text)


def test_without_hansa_home_the_folder_is_below_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("HANSA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert membership_folder("https://a:1") == tmp_path / ".config/hansa/federations/a-1"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1}', json.dumps({"url": "https://a"})])
def test_a_damaged_membership_is_told(tmp_path, text):
    join(tmp_path / "site")
    (tmp_path / "site" / "member.json").write_text(text)
    assert code(load_membership, tmp_path / "site") == "identity-membership"


def test_no_text_names_a_folder_outside_of_the_home(home):
    for url in ("https://../../x:1", "https://..:1", "https://a/../../b:2"):
        folder = membership_folder(url).resolve()
        assert folder.parent == (home / "federations").resolve()
