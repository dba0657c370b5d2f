"""Joining: what is kept, what is sent, and what a false server cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hansa.errors import IdentityError, RequestRefused, ServerError
from hansa.identity import (
    Authority,
    Invite,
    create_authority,
    enrolment_text,
    from_text,
    load_key,
    load_membership,
    new_key,
    verify,
)
from hansa.protocol.enrolment import enrol
from hansa.protocol.messages import Enrolled, Enrolment

URL = "https://hansa.test:8443"


class Desk:
    """Answers one enrolment, as an honest server or another one."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.asked: list[Enrolment] = []
        self.closed = 0
        self.lost = 0  # answers that never arrive
        self.refusal: RequestRefused | None = None
        self.key: Any = None  # certified instead of the one that was shown

    def call(self, method: str, path: str, message: Enrolment, *, kind: Any) -> Enrolled:
        assert (method, path, kind) == ("POST", "/v1/enrolments", Enrolled)
        self.asked.append(message)
        if self.refusal:
            raise self.refusal
        if self.lost:
            self.lost -= 1
            raise ServerError("server-unreachable", "The answer is lost.", "Try again.")
        public = self.key.public if self.key else from_text(message.public_key)
        return Enrolled(
            name="ward-3",
            role="site",
            certificate=self.authority.issue_member("ward-3", "site", public),
            authority=self.authority.pem,
            receipt_key="abc",
            federation="league",
        )

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    (tmp_path / "ca").mkdir()
    desk = Desk(create_authority(tmp_path / "ca", federation="league"))

    def read_authority(url: str, fingerprint: str) -> str:
        assert fingerprint == desk.authority.fingerprint
        return desk.authority.pem

    monkeypatch.setattr("hansa.protocol.enrolment.read_authority", read_authority)
    monkeypatch.setattr("hansa.protocol.enrolment.Connection", lambda *a, **k: desk)
    return desk


def invite(desk: Desk) -> Invite:
    return Invite(URL, "t" * 22, desk.authority.fingerprint)


def test_the_key_is_made_here_and_its_proof_is_over_the_token(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "ward" / "3"
    membership = enrol(invite(desk), folder)
    key = load_key(folder / "key.pem")
    (asked,) = desk.asked
    assert from_text(asked.public_key) == key.public
    verify(key.public, from_text(asked.proof), enrolment_text("t" * 22))
    assert load_membership(folder) == membership
    assert (membership.name, membership.role, membership.url) == ("ward-3", "site", URL)
    assert (folder / "key.pem").stat().st_mode & 0o077 == 0
    assert desk.closed == 1


def test_what_one_would_be_is_sent_along(desk: Desk, tmp_path: Path) -> None:
    enrol(invite(desk), tmp_path / "ward", kind="site")
    enrol(invite(desk), tmp_path / "ada", kind="person")
    assert [asked.kind for asked in desk.asked] == ["site", "person"]


def test_when_the_answer_is_lost_the_same_key_is_shown_again(desk: Desk, tmp_path: Path) -> None:
    desk.lost = 1
    with pytest.raises(ServerError):
        enrol(invite(desk), tmp_path / "ward")
    enrol(invite(desk), tmp_path / "ward")
    assert desk.asked[0] == desk.asked[1]


@pytest.mark.parametrize(
    ("said", "there", "left"),
    [
        ("invite-refused", False, False),
        ("invite-refused", True, True),  # it may be what an answer that was lost has certified
        ("server-refused", False, True),  # of a proxy, which may not know what the server did
    ],
)
def test_one_who_was_refused_leaves_no_key_that_nobody_has_taken(
    desk: Desk, tmp_path: Path, said: str, there: bool, left: bool
) -> None:
    folder = tmp_path / "ward"
    if there:
        desk.lost = 1
        with pytest.raises(ServerError):
            enrol(invite(desk), folder)
    desk.refusal = RequestRefused(said, "No.", "Ask.", status=403)
    with pytest.raises(RequestRefused):
        enrol(invite(desk), folder)
    assert folder.exists() == left and (folder / "key.pem").exists() == left


def test_a_folder_that_has_joined_is_left_as_it_is(desk: Desk, tmp_path: Path) -> None:
    enrol(invite(desk), tmp_path / "ward")
    before = {p: p.read_bytes() for p in (tmp_path / "ward").iterdir()}
    with pytest.raises(IdentityError) as error:
        enrol(invite(desk), tmp_path / "ward")
    assert error.value.code == "member-exists" and "can still be used" in error.value.happened
    assert f"move {tmp_path / 'ward'} away first" in error.value.hint
    joined = load_membership(tmp_path / "ward")
    assert f"{joined.name!r}, with the role site," in error.value.happened
    assert {p: p.read_bytes() for p in (tmp_path / "ward").iterdir()} == before
    assert len(desk.asked) == 1


def test_a_certificate_for_another_key_is_not_kept(desk: Desk, tmp_path: Path) -> None:
    desk.key = new_key()
    with pytest.raises(IdentityError) as error:
        enrol(invite(desk), tmp_path / "ward")
    assert error.value.code == "identity-certificate"
    assert not (tmp_path / "ward" / "member.json").exists()


def test_a_certificate_of_another_authority_is_not_kept(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = invite(desk)
    known, desk.authority = desk.authority, create_authority(tmp_path / "other", federation="x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hansa.protocol.enrolment.read_authority", lambda *_: known.pem)
        with pytest.raises(IdentityError) as error:
            enrol(first, tmp_path / "ward")
    assert error.value.code == "identity-certificate"
    assert not (tmp_path / "ward" / "member.json").exists()
