import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from hansa.errors import CODES, HansaError, IdentityError, RequestRefused, ServerError
from hansa.identity import (
    ROLES,
    Prover,
    Sessions,
    check_certificate,
    create_authority,
    enrolment_text,
    new_key,
    to_text,
)
from hansa.limits import MEMBER_CACHE_S, RENEWAL_DAYS, SESSION_S
from hansa.protocol.messages import Enrolment, SessionRequest
from hansa.server import auth, members
from hansa.server.auth import Gate, Principal
from hansa.server.refusals import STATUS, answer, status_of
from hansa.server.sources import Guesses, Rates, source_of
from hansa.server.tokens import create_token, revoke_token
from hansa.store.database import open_database

AT = 1_800_000_000.0
DIGEST = "cd" * 32
EVERYBODY = (*ROLES, "local")


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Server:
    """The parts that admit a request, with clocks that a test sets."""

    def __init__(self, folder, *, loopback=False) -> None:
        self.folder = folder
        self.clock, self.wall = Clock(100.0), Clock(AT)
        self.authority = create_authority(folder, federation="Heart", at=AT)
        self.db = open_database(folder / "hansa.db")
        self.sessions = Sessions(self.clock)
        self.rates = Rates(self.clock)
        self.gate = Gate(
            self.db,
            self.authority,
            self.sessions,
            clock=self.clock,
            rates=self.rates,
            loopback=loopback,
        )

    def join(self, name="clinic", role="site"):
        key = new_key()
        kind = role if role in ("site", "combiner") else "person"
        token = members.create_invite(self.db, name, kind=kind, role=role, by="x", at=self.wall())
        asked = Enrolment(
            token=token,
            public_key=to_text(key.public),
            proof=to_text(key.sign(enrolment_text(token))),
        )
        _, pem = members.redeem(
            self.db, self.authority, asked, at=self.wall(), source="x", guesses=Guesses()
        )
        return key, pem

    def open(self, pem):
        return asyncio.run(self.gate.open_session(SessionRequest(certificate=pem)))

    def prover(self, name="clinic", role="site") -> Prover:
        key, pem = self.join(name, role)
        return Prover(key, self.open(pem).session)

    def admit(self, request, roles=EVERYBODY, **named):
        return asyncio.run(self.gate.admit(request, roles, **named))


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = Server(tmp_path)
    monkeypatch.setattr(auth, "wall", server.wall)
    yield server
    server.db.close()


def request(method="GET", target="/v1/runs?after=1", *, headers=(), client=("192.0.2.1", 5)):
    path, _, query = target.partition("?")
    return Request(
        {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
            "client": client,
        }
    )


def signed(prover, method="GET", target="/v1/runs?after=1", digest=DIGEST):
    header = prover.header(method, target, digest)
    return request(method, target, headers=[("hansa-proof", header)])


def code(call, *arguments, **named) -> str:
    with pytest.raises(HansaError) as caught:
        call(*arguments, **named)
    return caught.value.code


def test_a_signed_request_is_its_members_with_the_digest_its_body_must_have(server):
    key, pem = server.join()
    opened = server.open(pem)
    assert opened.seconds == SESSION_S
    principal, digest = server.admit(signed(Prover(key, opened.session)), ("site",))
    assert principal == ("clinic", "site", "site", key.fingerprint)
    assert digest == DIGEST


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_it_is_named_for_and_nothing_else(server, role):
    prover = server.prover("somebody", role)
    for asked in ROLES:
        if asked == role:
            assert server.admit(signed(prover), (asked,))[0].role == role
        else:
            assert code(server.admit, signed(prover), (asked,)) == "identity-role"
    assert code(server.admit, signed(prover), ()) == "identity-role"
    assert code(server.admit, signed(prover), ("local",)) == "identity-role"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("hansa-proof", "")],
        [("hansa-proof", "x")],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer hansa_" + "A" * 43)],
        [("authorization", "Basic YTpi")],
        [("cookie", "session=1")],
        [("x-forwarded-for", "127.0.0.1")],
    ],
)
def test_a_request_without_a_proof_is_nobodys(server, headers):
    assert code(server.admit, request(headers=headers)) == "identity-proof"


def test_two_proofs_or_a_proof_and_a_token_are_none(server):
    prover = server.prover()
    target = "/v1/runs?after=1"
    one, two = (("hansa-proof", prover.header("GET", target, DIGEST)) for _ in range(2))
    token = create_token(server.db, "scraper", by="ada", at=AT)
    bearer = ("authorization", f"Bearer {token}")
    for headers in ([one, two], [one, one], [one, bearer], [bearer, bearer]):
        assert code(server.admit, request(headers=headers)) == "identity-proof"
    server.admit(request(headers=[one]))


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "/v1/runs?after=1"), ("GET", "/v1/runs?after=2"), ("GET", "/v1/runs"),
     ("GET", "/v1/runs%3Fafter=1"), ("GET", "/v1/members?after=1")],
)  # fmt: skip
def test_a_request_that_was_changed_on_its_way_is_refused(server, method, target):
    header = ("hansa-proof", server.prover().header("GET", "/v1/runs?after=1", DIGEST))
    assert code(server.admit, request(method, target, headers=[header])) == "identity-proof"


def test_what_is_signed_is_the_path_as_sent_not_as_decoded(server):
    prover = server.prover()
    header = ("hansa-proof", prover.header("GET", "/v1/a%20b", DIGEST))
    sent = request(headers=[header])
    sent.scope |= {"path": "/v1/a b", "raw_path": b"/v1/a%20b", "query_string": b""}
    server.admit(sent)


def test_a_replayed_request_is_refused(server):
    asked = signed(server.prover())
    server.admit(asked)
    assert code(server.admit, asked) == "identity-replayed"


def test_a_revocation_by_another_process_is_felt_when_the_cache_ends(server):
    prover = server.prover()
    server.admit(signed(prover))
    members.revoke(server.db, "clinic", by="ada")
    server.clock.now += MEMBER_CACHE_S - 0.01
    server.admit(signed(prover))
    server.clock.now += 0.01
    assert code(server.admit, signed(prover)) == "identity-member"
    assert MEMBER_CACHE_S <= 5


def test_a_revocation_by_this_process_is_felt_at_once(server):
    prover, other = server.prover(), server.prover("farm")
    principal, _ = server.admit(signed(prover))
    server.admit(signed(other))
    revoked = members.revoke(server.db, "clinic", by="ada")
    server.gate.forget(revoked.fingerprint)
    assert code(server.admit, signed(prover)) == "identity-session"
    assert code(asyncio.run, server.gate.still(principal)) == "identity-member"
    server.admit(signed(other))
    members.revoke(server.db, "farm", by="ada")
    server.gate.forget()
    assert code(server.admit, signed(other)) == "identity-member"


def test_a_member_that_waits_is_still_one_until_it_is_revoked(server):
    principal, _ = server.admit(signed(server.prover()))
    asyncio.run(server.gate.still(principal))
    members.revoke(server.db, "clinic", by="ada")
    server.clock.now += MEMBER_CACHE_S
    assert code(asyncio.run, server.gate.still(principal)) == "identity-member"


def test_what_was_read_before_a_revocation_is_not_kept_after_it(server, monkeypatch):
    """The database is asked, a revocation comes, and only then is the answer put away."""
    prover = server.prover()
    read = members.member_by_fingerprint

    def slow(db, fingerprint):
        found = read(db, fingerprint)
        members.revoke(db, "clinic", by="ada")
        server.gate.forget()
        return found

    monkeypatch.setattr(members, "member_by_fingerprint", slow)
    server.admit(signed(prover))  # was under way when the member was revoked
    monkeypatch.setattr(members, "member_by_fingerprint", read)
    assert code(server.admit, signed(prover)) == "identity-member"


def test_the_members_that_are_remembered_are_bounded(server, monkeypatch):
    monkeypatch.setattr(auth, "MEMBER_CACHE_MAX", 2)
    for number in range(4):
        server.admit(signed(server.prover(f"site-{number}")))
    assert len(server.gate._cache) == 2


def test_a_certificate_that_does_not_hold_opens_no_session(server, tmp_path):
    _, pem = server.join()
    (tmp_path / "other").mkdir()
    other = create_authority(tmp_path / "other", federation="Heart", at=AT)
    forged = other.issue_member("clinic", "site", new_key().public, at=AT)
    stranger = server.authority.issue_member("nobody", "site", new_key().public, at=AT)
    former = server.authority.issue_member("clinic", "site", new_key().public, at=AT)
    assert code(server.open, forged) == "identity-certificate"
    assert code(server.open, "") == "identity-certificate"
    assert code(server.open, stranger) == "identity-member"
    assert code(server.open, former) == "identity-certificate"
    members.revoke(server.db, "clinic", by="ada")
    assert code(server.open, pem) == "identity-member"
    assert len(server.sessions) == 0


def test_what_a_member_may_do_is_the_databases_word_not_the_certificates(server):
    key, _ = server.join("ana", "viewer")
    grand = server.authority.issue_member("ana", "admin", key.public, at=AT)
    prover = Prover(key, server.open(grand).session)
    assert code(server.admit, signed(prover), ("admin",)) == "identity-role"


def test_a_session_ends_with_its_certificate(server):
    key, pem = server.join()
    server.wall.now = AT + 24 * 3600 - 30
    opened = server.open(pem)
    assert opened.seconds == 30
    server.clock.now += 30
    assert code(server.admit, signed(Prover(key, opened.session))) == "identity-session"


def test_whoever_opens_a_session_hears_whether_its_certificate_is_to_be_renewed(server):
    _, pem = server.join()
    server.wall.now = AT + 11.9 * 3600
    assert not server.open(pem).renew
    server.wall.now = AT + 12 * 3600
    assert server.open(pem).renew


def test_an_expired_certificate_is_good_for_its_own_renewal_and_nothing_else(server):
    key, pem = server.join()
    server.wall.now = AT + 24 * 3600
    prover = Prover(key, server.open(pem).session)
    assert code(server.admit, signed(prover)) == "identity-expired"
    principal, _ = server.admit(signed(prover, "POST", "/v1/certificates"), renewing=True)
    _, renewed = asyncio.run(server.gate.renew(principal))
    certified = check_certificate(renewed, server.authority.pem, at=server.wall.now)
    assert certified.public == key.public
    # The session of the expired one has ended, so that the next is opened with the new one.
    assert code(server.admit, signed(prover)) == "identity-session"
    server.admit(signed(Prover(key, server.open(renewed).session)))


def test_renewal_of_a_certificate_that_holds_ends_no_session(server):
    prover = server.prover()
    principal, _ = server.admit(signed(prover, "POST", "/v1/certificates"), renewing=True)
    asyncio.run(server.gate.renew(principal))
    server.admit(signed(prover))


def test_an_expired_certificate_can_be_renewed_for_ninety_days(server):
    _, pem = server.join()
    last = AT + 24 * 3600 + RENEWAL_DAYS * 86_400
    server.wall.now = last - 1
    server.open(pem)
    server.wall.now = last
    assert code(server.open, pem) == "identity-expired"
    server.wall.now = last - 1
    members.revoke(server.db, "clinic", by="ada")
    assert code(server.open, pem) == "identity-member"


def bearer(token, method="GET"):
    return request(method, headers=[("authorization", f"Bearer {token}")])


def test_a_bearer_token_may_look_and_nothing_else(server):
    token = create_token(server.db, "scraper", by="ada", at=AT)
    principal, digest = server.admit(bearer(token), ("viewer",))
    assert principal[:3] == ("scraper", "token", "viewer") and digest is None
    assert token not in repr(principal)
    server.admit(bearer(token, "HEAD"), ("viewer",))
    for method in ("POST", "PUT", "DELETE", "PATCH", "get"):
        assert code(server.admit, bearer(token, method), EVERYBODY) == "identity-proof"
    assert code(server.admit, bearer(token), ("admin", "submitter", "site")) == "identity-role"
    asyncio.run(server.gate.still(principal))
    revoke_token(server.db, "scraper", by="ada")
    assert code(server.admit, bearer(token)) == "identity-proof"
    assert code(asyncio.run, server.gate.still(principal)) == "identity-member"


def test_one_who_guesses_tokens_is_slowed_down(server):
    codes = [code(server.admit, bearer(f"hansa_{n:043}")) for n in range(120)]
    assert codes[:100] == ["identity-proof"] * 100 and codes[-1] == "too-many-requests"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_needs_no_proof_where_that_is_said(tmp_path, host):
    server = Server(tmp_path, loopback=True)
    here = request(client=(host, 5))
    assert server.admit(here, ("local",))[0] == Principal("local", "local", "local", "")
    assert code(server.admit, here, ("viewer",)) == "identity-proof"
    assert code(server.admit, request(client=("192.0.2.1", 5)), ("local",)) == "identity-proof"
    assert code(server.admit, request(client=None), ("local",)) == "identity-proof"
    for other in ("::2", "::192.0.2.1", "::ffff:192.0.2.1", "128.0.0.1", "localhost"):
        assert code(server.admit, request(client=(other, 5)), ("local",)) == "identity-proof"
    forged = request(headers=[("x-forwarded-for", "127.0.0.1")])
    assert code(server.admit, forged, ("local",)) == "identity-proof"
    server.db.close()


def test_behind_a_proxy_on_this_machine_nobody_is_local(server):
    assert code(server.admit, request(client=("127.0.0.1", 5)), ("local",)) == "identity-proof"


@given(
    st.text(st.characters(max_codepoint=255), max_size=300),
    st.sampled_from(["hansa-proof", "authorization"]),
)
def test_no_header_whatever_lets_anybody_in_or_breaks_the_gate(tmp_path_factory, value, name):
    gate = Gate(_NoDatabase(), None, Sessions(), rates=Rates(Clock(0.0)))
    asked = request(headers=[(name, value)])
    with pytest.raises(IdentityError) as caught:
        asyncio.run(gate.admit(asked, EVERYBODY))
    assert caught.value.code == "identity-proof"
    assert len(value) < 8 or value not in str(caught.value)


class _NoDatabase:
    def read(self, fn):
        raise AssertionError("nobody was proven, so nothing is looked up")


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_address_stands_for_one_customer(host, source):
    assert source_of(request(client=(host, 5))) == source


def test_an_address_may_ask_so_often_and_another_is_not_slowed_by_it():
    clock = Clock(0.0)
    rates = Rates(clock, rate=2.0, burst=3)
    for _ in range(3):
        rates.take("a")
    assert code(rates.take, "a") == "too-many-requests"
    rates.take("b")
    clock.now = 0.49
    assert code(rates.take, "a") == "too-many-requests"
    clock.now = 0.5
    rates.take("a")
    assert code(rates.take, "a") == "too-many-requests"
    clock.now = 1_000.0
    for _ in range(3):  # not a thousand
        rates.take("a")
    assert code(rates.take, "a") == "too-many-requests"


def test_the_addresses_that_are_remembered_are_bounded():
    rates, guesses = Rates(Clock(0.0), sources=5), Guesses(Clock(0.0), sources=5)
    for number in range(50):
        rates.take(str(number))
        guesses.wrong(str(number))
    assert len(rates._table) == len(guesses._table) == 5


# ---------------------------------------------------------------- refusals


def test_a_refusal_is_json_with_code_message_and_hint():
    error = IdentityError("identity-role", "Happened.", "Hint.")
    response = answer(error)
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/json"
    said = json.loads(response.body)
    assert said == {"error": {"code": "identity-role", "message": "Happened.", "hint": "Hint."}}


@pytest.mark.parametrize(
    ("code", "status", "wait"),
    [("invite-locked", 429, "60"), ("too-many-requests", 429, "1"), ("server-disk", 503, "2"),
     ("identity-session", 401, None), ("server-disk-full", 507, None), ("defect", 500, None)],
)  # fmt: skip
def test_refusals_say_when_to_ask_again(code, status, wait):
    response = answer(ServerError(code, "", ""))
    assert response.status_code == status
    assert response.headers.get("retry-after") == wait
    assert ("www-authenticate" in response.headers) == (status == 401)


def test_a_handlers_own_status_and_code_are_kept():
    error = RequestRefused("of-a-newer-release", "Happened.", "Hint.", status=418)
    assert status_of(error) == 418
    assert json.loads(answer(error).body)["error"]["code"] == "of-a-newer-release"


def test_all_codes_of_the_table_exist_and_those_of_identity_have_a_status():
    assert STATUS.keys() <= CODES.keys()
    of_members = {"identity-key", "identity-membership", "identity-tls"}  # never a server's answer
    for code in CODES:
        if code.startswith(("identity-", "invite-", "member-")) and code not in of_members:
            assert 400 <= STATUS[code] < 500, code
