import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from hansa.errors import HansaError, IdentityError
from hansa.failpoints import FAILPOINTS
from hansa.identity import (
    check_certificate,
    create_authority,
    enrolment_text,
    new_key,
    new_token,
    to_text,
)
from hansa.limits import ENROL_AGAIN_S, INVITE_GUESSES, INVITE_LOCK_S, INVITE_S, INVITE_S_MAX
from hansa.protocol.messages import Enrolment
from hansa.server import members
from hansa.server.audit import audit, write_audit
from hansa.server.sources import Guesses
from hansa.server.tokens import create_token, revoke_token, token_member, tokens
from hansa.store.database import open_database

AT = 1_800_000_000.0
HERE = "198.51.100.7"


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return create_authority(tmp_path_factory.mktemp("server"), federation="Heart", at=AT)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "hansa.db"


@pytest.fixture
def db(path):
    database = open_database(path)
    yield database
    database.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def guesses(clock):
    return Guesses(clock)


def invite(db, name="clinic", **named) -> str:
    wanted = {"kind": "site", "role": "site", "org": "", "by": "operator", "at": AT} | named
    return members.create_invite(db, name, **wanted)


def enrolment(token, key) -> Enrolment:
    return Enrolment(
        token=token,
        public_key=to_text(key.public),
        proof=to_text(key.sign(enrolment_text(token))),
    )


@pytest.mark.parametrize(
    ("kind", "role", "verb"),
    [
        ("site", "site", "hansa site join"),
        ("person", "submitter", "hansa join"),
        ("combiner", "combiner", "hansa combiner init --join"),
    ],
)
def test_an_invitation_of_the_other_kind_is_refused_and_not_used_up(
    db, authority, guesses, kind, role, verb
):
    token, key = invite(db, kind=kind, role=role), new_key()
    asked = enrolment(token, key)
    other = "person" if kind == "site" else "site"

    def redeem(kind):
        mine = msgspec.structs.replace(asked, kind=kind)
        return members.redeem(db, authority, mine, at=AT, source=HERE, guesses=guesses)

    for _ in range(20):  # more than wrong guesses may be
        with pytest.raises(HansaError) as caught:
            redeem(other)
        assert caught.value.code == "invite-refused"
        assert caught.value.hint.endswith(f": {verb}")
    last = audit(db)[-1]
    assert (last["action"], last["object"], last["outcome"]) == ("member.join", "clinic", "refused")
    assert redeem(kind)[0].kind == kind


def test_times_are_told_in_one_form(db, redeem):
    token = invite(db)
    with pytest.raises(HansaError) as caught:
        redeem(token, new_key(), at=AT + 1e6)
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    assert re.search(f"ended at {form}", caught.value.happened)
    assert re.search(f"until {form}", audit(db)[0]["detail"])


def test_what_holds_too_long_is_told_in_days(db):
    with pytest.raises(HansaError, match="cannot hold 999d; at most 30d"):
        invite(db, expires_s=999 * 86_400.0)


@pytest.fixture
def redeem(db, authority, guesses):
    def redeem(token, key, *, at=AT, source=HERE):
        return members.redeem(
            db, authority, enrolment(token, key), at=at, source=source, guesses=guesses
        )

    return redeem


def code(call, *arguments, **named) -> str:
    with pytest.raises(HansaError) as caught:
        call(*arguments, **named)
    return caught.value.code


def trail(db) -> list[tuple[str, str, str, str]]:
    return [(r["who"], r["action"], r["object"], r["outcome"]) for r in audit(db)]


def test_an_invited_site_is_let_in_under_the_name_it_was_invited_by(db, authority, redeem):
    key = new_key()
    member, certificate = redeem(invite(db, org="City Hospital"), key)
    assert member[:4] == ("clinic", "site", "site", "City Hospital")
    certified = check_certificate(certificate, authority.pem, at=AT)
    assert (certified.name, certified.role, certified.public) == ("clinic", "site", key.public)
    assert members.member_by_fingerprint(db, key.fingerprint) == member
    assert members.member_by_name(db, "clinic") == member and member.active
    assert trail(db) == [
        ("operator", "member.invite", "clinic", "done"),
        ("clinic", "member.join", "clinic", "done"),
    ]


def test_an_invitation_lets_one_key_in_and_no_second(db, redeem):
    token = invite(db)
    first = new_key()
    redeem(token, first)
    assert code(redeem, token, new_key()) == "invite-refused"
    assert members.member_by_name(db, "clinic").public == first.public
    assert trail(db)[-1] == ("stranger", "member.join", "clinic", "refused")


def test_the_same_key_gets_its_lost_answer_again_for_a_while(db, authority, redeem):
    token, key = invite(db), new_key()
    member, _ = redeem(token, key)
    again, certificate = redeem(token, key, at=AT + INVITE_S + 1)
    assert again == member
    assert check_certificate(certificate, authority.pem, at=AT + INVITE_S + 1).public == key.public
    last = AT + INVITE_S + ENROL_AGAIN_S
    redeem(token, key, at=last - 1)
    assert code(redeem, token, key, at=last) == "invite-refused"


def test_a_revoked_member_does_not_come_back_with_the_token_it_had(db, redeem):
    token, key = invite(db), new_key()
    redeem(token, key)
    members.revoke(db, "clinic", by="ada", at=AT)
    assert code(redeem, token, key) == "invite-refused"


def test_an_invitation_ends_after_fifteen_minutes_unless_said_otherwise(db, redeem):
    assert INVITE_S == 15 * 60
    token = invite(db)
    assert code(redeem, token, new_key(), at=AT + 900) == "invite-refused"
    redeem(token, new_key(), at=AT + 899.9)
    longer = invite(db, "farm", expires_s=7200.0)
    redeem(longer, new_key(), at=AT + 7199)


def test_after_ten_wrong_guesses_an_address_is_not_listened_to_for_a_minute(db, redeem, clock):
    token = invite(db)
    for _ in range(INVITE_GUESSES):
        assert code(redeem, new_token(), new_key()) == "invite-refused"
    # A right one from there neither: else the lock would tell right from wrong.
    assert code(redeem, token, new_key()) == "invite-locked"
    clock.now += INVITE_LOCK_S - 0.1
    assert code(redeem, token, new_key()) == "invite-locked"
    clock.now += 0.1
    redeem(token, new_key())
    assert trail(db).count(("stranger", "member.lock", HERE, "refused")) == 1


def test_who_tries_a_used_invitation_on_and_on_is_locked_out_as_one_who_guesses(db, redeem):
    token = invite(db)
    redeem(token, new_key())
    for _ in range(INVITE_GUESSES):
        assert code(redeem, token, new_key()) == "invite-refused"
    lines = len(trail(db))
    assert trail(db).count(("stranger", "member.lock", HERE, "refused")) == 1
    assert code(redeem, token, new_key()) == "invite-locked"
    assert len(trail(db)) == lines


def test_the_minute_of_a_lock_begins_with_the_guess_that_closed_it(db, redeem, clock):
    for _ in range(INVITE_GUESSES):
        clock.now += 5
        code(redeem, new_token(), new_key())
    clock.now += INVITE_LOCK_S - 1
    assert code(redeem, new_token(), new_key()) == "invite-locked"
    clock.now += 1
    assert code(redeem, new_token(), new_key()) == "invite-refused"


def test_one_who_guesses_locks_nobody_else_out(db, redeem):
    token = invite(db)
    for _ in range(2 * INVITE_GUESSES):
        assert code(redeem, new_token(), new_key(), source="203.0.113.9").startswith("invite-")
    redeem(token, new_key(), source=HERE)


def test_nine_wrong_guesses_do_not_lock_and_are_forgotten_after_a_minute(db, redeem, clock):
    token = invite(db)
    for _ in range(2):
        for _ in range(INVITE_GUESSES - 1):
            assert code(redeem, new_token(), new_key()) == "invite-refused"
        clock.now += INVITE_LOCK_S
    redeem(token, new_key())


def test_what_is_refused_while_locked_fills_no_disk(db, redeem):
    for _ in range(INVITE_GUESSES):
        code(redeem, new_token(), new_key())
    before = len(trail(db))
    for _ in range(20):
        assert code(redeem, new_token(), new_key()) == "invite-locked"
    assert len(trail(db)) == before


@pytest.mark.parametrize(
    "spoil",
    [
        {"proof": to_text(bytes(64))},
        {"proof": "no signature"},
        {"proof": ""},
        {"public_key": to_text(bytes(31))},
        {"public_key": to_text(new_key().public)},
        {"public_key": "ä"},
    ],
)
def test_one_who_does_not_hold_the_key_is_not_let_in(db, authority, guesses, redeem, spoil):
    token, key = invite(db), new_key()
    made = enrolment(token, key)
    wrong = Enrolment(**{f: getattr(made, f) for f in made.__struct_fields__} | spoil)
    with pytest.raises(IdentityError, match="identity-signature"):
        members.redeem(db, authority, wrong, at=AT, source=HERE, guesses=guesses)
    assert members.members(db) == []
    redeem(token, key)  # the invitation is not used up


def test_a_proof_for_one_token_does_not_redeem_another(db, authority, guesses):
    first, second, key = invite(db, "a"), invite(db, "b"), new_key()
    mixed = Enrolment(
        token=second,
        public_key=to_text(key.public),
        proof=to_text(key.sign(enrolment_text(first))),
    )
    with pytest.raises(IdentityError, match="identity-signature"):
        members.redeem(db, authority, mixed, at=AT, source=HERE, guesses=guesses)


def test_of_two_who_redeem_at_once_exactly_one_is_let_in(db, authority):
    for round_ in range(10):
        token = invite(db, f"site-{round_}")
        keys = [new_key() for _ in range(4)]
        barrier = threading.Barrier(len(keys))

        def attempt(key, token=token, barrier=barrier):
            barrier.wait()
            try:
                return members.redeem(
                    db, authority, enrolment(token, key), at=AT, source=HERE, guesses=Guesses()
                )[0].fingerprint
            except IdentityError as error:
                return error.code

        with ThreadPoolExecutor(len(keys)) as pool:
            outcomes = list(pool.map(attempt, keys))
        winners = [o for o in outcomes if o != "invite-refused"]
        assert len(winners) == 1
        assert members.member_by_name(db, f"site-{round_}").fingerprint == winners[0]


def test_two_invitations_of_a_name_let_one_member_in(db, redeem):
    first, second = invite(db), invite(db)
    redeem(first, new_key())
    assert code(redeem, second, new_key()) == "member-exists"
    assert code(invite, db) == "member-exists"


def test_a_key_belongs_to_one_name(db, redeem):
    key = new_key()
    redeem(invite(db), key)
    assert code(redeem, invite(db, "farm"), key) == "member-exists"
    assert members.member_by_name(db, "farm") is None


def test_a_member_that_lost_its_key_comes_back_under_its_name_with_another(db, redeem):
    lost, new = new_key(), new_key()
    redeem(invite(db), lost)
    members.revoke(db, "clinic", by="ada", at=AT)
    member, _ = redeem(invite(db, org="New Hospital"), new)
    assert member.active and member.public == new.public and member.org == "New Hospital"
    assert members.member_by_fingerprint(db, lost.fingerprint) is None


def test_revoking_ends_the_membership_and_invitations_that_are_open(db, redeem):
    redeem(invite(db), new_key())
    token = invite(db, "farm")
    assert code(members.revoke, db, "farm", by="ada") == "member-missing"
    redeem(token, new_key())
    members.revoke(db, "clinic", by="ada", at=AT)
    again = invite(db)
    revoked = members.revoke(db, "clinic", by="ada", at=AT + 60)
    assert revoked.revoked_at == "2027-01-15T08:00:00+00:00"  # when it was first
    assert code(redeem, again, new_key()) == "invite-refused"
    assert [m["name"] for m in members.members(db) if m["revoked_at"] is None] == ["farm"]


def test_renewal_keeps_name_role_and_key(db, authority, redeem):
    key = new_key()
    redeem(invite(db, "ana", kind="person", role="submitter"), key)
    later = AT + 86_400 * 30
    member, certificate = members.renew(db, authority, "ana", at=later)
    certified = check_certificate(certificate, authority.pem, at=later)
    assert (certified.name, certified.role, certified.public) == ("ana", "submitter", key.public)
    assert member.name == "ana"
    members.revoke(db, "ana", by="ada", at=AT)
    assert code(members.renew, db, authority, "ana", at=later) == "identity-member"
    assert code(members.renew, db, authority, "nobody", at=later) == "identity-member"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("", {}),
        ("Clinic", {}),
        ("clinic\n", {}),
        ("../x", {}),
        ("-x", {}),
        ("a" * 65, {}),
        ("clinic", {"role": "admin"}),
        ("clinic", {"kind": "person"}),
        ("clinic", {"role": "king"}),
        ("clinic", {"kind": "horse", "role": "admin"}),
        ("clinic", {"expires_s": 0.0}),
        ("clinic", {"expires_s": -1.0}),
        ("clinic", {"expires_s": INVITE_S_MAX + 1}),
        ("clinic", {"expires_s": float("nan")}),
    ],
)
def test_members_that_cannot_be_are_not_invited(db, name, change):
    assert code(invite, db, name, **change) == "member-invalid"
    assert trail(db) == []


def test_no_secret_is_found_in_the_database_the_trail_or_an_error(db, path, redeem, capfd):
    token, other, key = invite(db), invite(db, "farm", org="Farm"), new_key()
    bearer = create_token(db, "scraper", by="ada", at=AT)
    told = []
    for attempt in (
        lambda: redeem(token, key),
        lambda: redeem(token, new_key()),
        lambda: redeem(other, new_key(), at=AT + 1e6),
        lambda: redeem("canary-" + token[:10], new_key()),
        lambda: token_member(db, bearer, at=AT),
    ):
        try:
            attempt()
        except HansaError as error:
            told += [str(error), repr(error), str(error.as_dict())]
    db.close()
    out, err = capfd.readouterr()
    kept = b"".join(p.read_bytes() for p in path.parent.iterdir())
    told = "\n".join([*told, out, err])
    private = key._private.private_bytes_raw()
    for secret in (token, other, bearer, bearer[6:], "canary-", to_text(private), private.hex()):
        assert secret not in told
        assert secret.encode() not in kept
    assert private not in kept


def test_lines_of_the_trail_are_numbered_bounded_and_cannot_steer_a_terminal(db):
    for number in range(3):
        write_audit(db, "ada", "test", object=str(number), detail="\x1b[2J\n" + "x" * 10_000)
    lines = audit(db)
    assert [line["object"] for line in lines] == ["0", "1", "2"]
    assert [line["object"] for line in audit(db, lines[0]["id"])] == ["1", "2"]
    assert len(audit(db, limit=2)) == 2
    assert all("\x1b" not in line["detail"] and len(line["detail"]) < 500 for line in lines)


def test_a_bearer_token_is_a_viewer_until_it_ends_or_is_revoked(db):
    token = create_token(db, "scraper", by="ada", at=AT, expires_s=100.0)
    assert token.startswith("hansa_") and len(token) == 49
    found = token_member(db, token, at=AT + 99.9)
    assert (found.name, found.role) == ("scraper", "viewer")
    assert token_member(db, token, at=AT + 100) is None
    for wrong in ("", "hansa_", token[:-1] + "_", token + "x", token[6:], "ä" * 49):
        assert token_member(db, wrong, at=AT) is None
    assert revoke_token(db, "scraper", by="ada") == 1
    assert token_member(db, token, at=AT) is None
    assert [t.name for t in tokens(db)] == ["scraper"]
    assert code(revoke_token, db, "scraper", by="ada") == "member-missing"
    assert code(create_token, db, "Scraper!", by="ada", at=AT) == "member-invalid"
    assert code(create_token, db, "s", by="ada", at=AT, expires_s=0) == "member-invalid"


ENROL = """
import sys
from pathlib import Path
from hansa.identity import load_authority, load_key, enrolment_text, to_text
from hansa.protocol.messages import Enrolment
from hansa.server import members
from hansa.server.sources import Guesses
from hansa.store.database import open_database
folder, token = Path(sys.argv[1]), sys.argv[2]
key = load_key(folder / "key.pem")
asked = Enrolment(token=token, public_key=to_text(key.public),
                  proof=to_text(key.sign(enrolment_text(token))))
members.redeem(open_database(folder / "hansa.db"), load_authority(folder), asked,
               at=1.8e9, source="here", guesses=Guesses())
"""


@pytest.mark.parametrize("point", ["before_member_recorded", "after_member_recorded"])
def test_a_server_killed_while_it_lets_somebody_in_lets_it_in_afterwards(tmp_path, point):
    from hansa.identity import load_authority, save_key

    assert point in FAILPOINTS
    create_authority(tmp_path, federation="Heart")
    key = new_key()
    save_key(tmp_path / "key.pem", key)
    database = open_database(tmp_path / "hansa.db")
    token = invite(database)
    database.close()
    killed = subprocess.run(
        [sys.executable, "-c", ENROL, str(tmp_path), token],
        env={"HANSA_FAILPOINT": point, "PATH": ""},
        capture_output=True,
    )
    assert killed.returncode in (-9, 137), killed.stderr
    database = open_database(tmp_path / "hansa.db")
    there = members.member_by_name(database, "clinic")
    assert (there is not None) == (point == "after_member_recorded")
    member, _ = members.redeem(
        database,
        load_authority(tmp_path),
        enrolment(token, key),
        at=1.8e9,
        source=HERE,
        guesses=Guesses(),
    )
    assert member.public == key.public and len(members.members(database)) == 1
    database.close()


def test_the_first_admin_needs_no_invitation_and_is_made_once(db, authority):
    key = new_key()
    for _ in range(2):
        pem = members.found_admin(db, authority, "ada", key.public, at=AT)
        assert check_certificate(pem, authority.pem, at=AT)[:2] == ("ada", "admin")
    assert code(members.found_admin, db, authority, "ada", new_key().public, at=AT) == (
        "member-exists"
    )
    assert trail(db) == [("operator", "server.found", "ada", "done")]
