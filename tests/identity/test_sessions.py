import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import IdentityError
from hansa.identity import Prover, Sessions, new_key, proof_text, to_text
from hansa.limits import REPLAY_WINDOW, SESSION_S

KEY = new_key()
DIGEST = "ab" * 32
GET = ("GET", "/v1/runs?after=1")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def header(token: str, counter: int, *, key=KEY, digest=DIGEST, method="GET", target=GET[1]) -> str:
    text = proof_text(method, target, digest, session=token, counter=counter)
    return f"{token} {counter} {digest} {to_text(key.sign(text))}"


def check(sessions, value, method=GET[0], target=GET[1], *, key=KEY):
    keys = {key.fingerprint: key.public}
    return sessions.check(value, method, target, public_key_of=keys.get)


def refusal(sessions, value, *arguments, **named) -> str:
    with pytest.raises(IdentityError) as caught:
        check(sessions, value, *arguments, **named)
    return caught.value.code


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(clock):
    return Sessions(clock)


@pytest.fixture
def token(sessions):
    return sessions.open(KEY.fingerprint, "clinic")[0]


def test_a_signed_request_proves_its_member_and_its_body(sessions, token):
    value = Prover(KEY, token).header(*GET, DIGEST)
    assert sessions.holder(value) == KEY.fingerprint
    proof = check(sessions, value)
    assert proof == (KEY.fingerprint, "clinic", DIGEST, False)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", GET[1]),
        ("get", GET[1]),
        ("GET", "/v1/runs?after=2"),
        ("GET", "/v1/runs"),
        ("GET", "/v1/runs?after=1&"),
        ("GET", ""),
    ],
)
def test_a_proof_is_of_one_method_and_target(sessions, token, method, target):
    value = header(token, 1)
    assert refusal(sessions, value, method, target) == "identity-proof"
    check(sessions, value)  # what was refused has used nothing up


def test_a_proof_is_of_one_body_session_and_counter(sessions, token):
    other, _ = sessions.open(KEY.fingerprint, "clinic")
    own, counter, digest, signature = header(token, 7).split()
    for changed in (
        (other, counter, digest, signature),
        (own, "8", digest, signature),
        (own, counter, "ac" * 32, signature),
        (own, counter, digest, header(token, 8).split()[3]),
        (own, counter, digest, header(token, 7, key=new_key()).split()[3]),
    ):
        assert refusal(sessions, " ".join(changed)) == "identity-proof"
    check(sessions, header(token, 7))


def test_a_member_cannot_use_the_session_of_another(sessions, token):
    other = new_key()
    assert refusal(sessions, header(token, 1, key=other), key=other) == "identity-member"
    keys = {KEY.fingerprint: KEY.public, other.fingerprint: other.public}
    with pytest.raises(IdentityError, match="identity-proof"):
        sessions.check(header(token, 1, key=other), *GET, public_key_of=keys.get)


def test_one_who_is_no_longer_a_member_is_refused(sessions, token):
    with pytest.raises(IdentityError, match="identity-member"):
        sessions.check(header(token, 1), *GET, public_key_of=lambda fingerprint: None)


def test_a_request_counts_once(sessions, token):
    value = header(token, 5)
    check(sessions, value)
    assert refusal(sessions, value) == "identity-replayed"
    assert refusal(sessions, header(token, 5, target="/other"), "GET", "/other") == (
        "identity-replayed"
    )


def test_the_window_ends_exactly_where_it_should(sessions, token):
    highest = 10_000
    check(sessions, header(token, highest))
    oldest = highest - REPLAY_WINDOW + 1
    assert refusal(sessions, header(token, oldest - 1)) == "identity-replayed"
    check(sessions, header(token, oldest))
    check(sessions, header(token, oldest + 1))
    assert refusal(sessions, header(token, oldest)) == "identity-replayed"
    assert refusal(sessions, header(token, highest)) == "identity-replayed"
    check(sessions, header(token, highest + 1))
    assert refusal(sessions, header(token, oldest)) == "identity-replayed"
    assert refusal(sessions, header(token, oldest + 1)) == "identity-replayed"


@pytest.mark.parametrize("jump", [REPLAY_WINDOW - 1, REPLAY_WINDOW, REPLAY_WINDOW + 1])
def test_after_a_jump_nothing_that_was_used_is_fresh_again(sessions, token, jump):
    check(sessions, header(token, 1))
    check(sessions, header(token, 1 + jump))
    assert refusal(sessions, header(token, 1)) == "identity-replayed"
    assert refusal(sessions, header(token, 1 + jump)) == "identity-replayed"


def test_counters_begin_with_one_and_end_below_2_to_the_63(sessions, token):
    for counter in (0, -1, 2**63, 2**63 + 1, 2**64, 10**19):
        assert refusal(sessions, header(token, counter)) == "identity-proof"
    check(sessions, header(token, 1))
    check(sessions, header(token, 2**63 - 1))  # and takes no memory
    assert refusal(sessions, header(token, 2**63 - 1)) == "identity-replayed"
    check(sessions, header(token, 2**63 - 2))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 24), max_size=40))
def test_in_any_order_a_counter_counts_once_if_it_is_near_the_highest(counters):
    # Steps that are half a window: both sides of its edge are met often.
    sessions = Sessions(Clock())
    token, _ = sessions.open(KEY.fingerprint, "clinic")
    used, highest = set(), 0
    for counter in (1 + c * (REPLAY_WINDOW // 2) for c in counters):
        fresh = counter not in used and counter > highest - REPLAY_WINDOW
        if fresh:
            check(sessions, header(token, counter))
        else:
            assert refusal(sessions, header(token, counter)) == "identity-replayed"
        used.add(counter)
        highest = max(highest, counter) if fresh else highest


def test_two_sessions_of_a_member_do_not_know_of_each_other(sessions, token):
    other, _ = sessions.open(KEY.fingerprint, "clinic")
    check(sessions, header(token, 9_000))
    check(sessions, header(other, 1))
    assert refusal(sessions, header(other, 1)) == "identity-replayed"
    check(sessions, header(token, 8_999))


def test_a_session_ends_when_it_said_it_would(sessions, clock):
    token, seconds = sessions.open(KEY.fingerprint, "clinic")
    assert seconds == SESSION_S
    clock.now += seconds - 0.01
    check(sessions, header(token, 1))
    clock.now += 0.01
    assert refusal(sessions, header(token, 2)) == "identity-session"
    with pytest.raises(IdentityError, match="identity-session"):
        sessions.holder(header(token, 2))


def test_a_session_may_be_shorter_and_never_longer(sessions, clock):
    token, seconds = sessions.open(KEY.fingerprint, "clinic", seconds=10.0)
    assert seconds == 10
    assert sessions.open(KEY.fingerprint, "clinic", seconds=1e9)[1] == SESSION_S
    clock.now += 10
    assert refusal(sessions, header(token, 1)) == "identity-session"


def test_a_server_that_was_started_again_knows_no_session_of_before(clock, token):
    assert refusal(Sessions(clock), header(token, 1)) == "identity-session"


@pytest.mark.parametrize("position", range(96))
def test_a_token_with_one_other_character_is_refused(sessions, token, position):
    other = "A" if token[position] != "A" else "B"
    forged = token[:position] + other + token[position + 1 :]
    assert refusal(sessions, header(forged, 1)) == "identity-session"
    check(sessions, header(token, 1))


def test_a_dropped_session_is_never_taken_up_again(clock):
    sessions = Sessions(clock, per_member=2)
    first, second = (sessions.open(KEY.fingerprint, "clinic")[0] for _ in range(2))
    value = header(first, 1)
    check(sessions, value)
    check(sessions, header(second, 1))
    third, _ = sessions.open(KEY.fingerprint, "clinic")
    assert len(sessions) == 2
    # Its token is whole and not too old: only the table can tell, and what it lacks is refused.
    assert refusal(sessions, value) == "identity-session"
    assert refusal(sessions, header(first, 2)) == "identity-session"
    check(sessions, header(second, 2))
    check(sessions, header(third, 1))


def test_the_session_that_is_idle_for_longest_goes_first(clock):
    sessions = Sessions(clock, per_member=2)
    first, second = (sessions.open(KEY.fingerprint, "clinic")[0] for _ in range(2))
    for token, counter in ((first, 1), (second, 1), (first, 2)):
        check(sessions, header(token, counter))
    sessions.open(KEY.fingerprint, "clinic")
    check(sessions, header(first, 3))
    assert refusal(sessions, header(second, 2)) == "identity-session"


def test_one_who_only_has_a_certificate_cannot_push_out_a_members_sessions(clock):
    sessions = Sessions(clock, per_member=4, limit=8)
    token, _ = sessions.open(KEY.fingerprint, "clinic")
    check(sessions, header(token, 1))
    for _ in range(50):
        sessions.open(KEY.fingerprint, "clinic")
    for _ in range(50):
        sessions.open(new_key().fingerprint, "other")
    assert len(sessions) == 8
    check(sessions, header(token, 2))


def test_sessions_of_many_members_are_bounded_and_the_longest_idle_goes(clock):
    sessions = Sessions(clock, limit=3)
    keys = [new_key() for _ in range(4)]
    tokens = []
    for key in keys:
        token, _ = sessions.open(key.fingerprint, "m")
        tokens.append(token)
        check(sessions, header(token, 1, key=key), key=key)
        assert len(sessions) <= 3
    assert refusal(sessions, header(tokens[0], 2, key=keys[0]), key=keys[0]) == "identity-session"
    check(sessions, header(tokens[3], 2, key=keys[3]), key=keys[3])


def test_sessions_that_have_ended_take_no_room(clock):
    sessions = Sessions(clock)
    for _ in range(3):
        sessions.open(KEY.fingerprint, "clinic", seconds=5)
    clock.now += 5
    sessions.open(KEY.fingerprint, "clinic")
    assert len(sessions) == 1


def test_all_sessions_of_a_revoked_member_end_at_once(sessions, token):
    other = new_key()
    theirs, _ = sessions.open(other.fingerprint, "other")
    sessions.close_member(KEY.fingerprint)
    assert refusal(sessions, header(token, 1)) == "identity-session"
    check(sessions, header(theirs, 1, key=other), key=other)
    sessions.close_member("0" * 32)


def test_sessions_for_renewal_say_so_and_end_apart(sessions, token):
    renewing, _ = sessions.open(KEY.fingerprint, "clinic", renewing=True)
    assert check(sessions, header(renewing, 1)).renewing
    sessions.close_member(KEY.fingerprint, renewing=True)
    assert refusal(sessions, header(renewing, 2)) == "identity-session"
    assert not check(sessions, header(token, 1)).renewing


@pytest.mark.parametrize(
    "change",
    [
        lambda h: "",
        lambda h: h + " ",
        lambda h: " " + h,
        lambda h: h + "\n",
        lambda h: h.replace(" ", "  ", 1),
        lambda h: h.replace(" ", "\t"),
        lambda h: h.replace(" 1 ", " 01 "),
        lambda h: h.replace(" 1 ", " +1 "),
        lambda h: h.replace(" 1 ", " 1.0 "),
        lambda h: h.replace(" 1 ", " ١ "),
        lambda h: h.replace(DIGEST, DIGEST.upper()),
        lambda h: h.replace(DIGEST, DIGEST[:-1]),
        lambda h: h[:-1],
        lambda h: h * 1_000,
    ],
)
def test_a_proof_has_one_spelling(sessions, token, change):
    value = header(token, 1)
    assert refusal(sessions, change(value)) == "identity-proof"
    check(sessions, value)


def test_the_spare_bits_of_a_signatures_last_character_are_zero(sessions, token):
    value = header(token, 1)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = alphabet[alphabet.index(value[-1]) + 1]
    assert refusal(sessions, value[:-1] + other) == "identity-proof"


@given(st.text() | st.text(alphabet="AB01 ab-_", max_size=300))
def test_no_header_whatever_leads_to_another_error(value):
    assert refusal(Sessions(Clock()), value) == "identity-proof"


@settings(max_examples=200)
@given(st.data())
def test_a_header_with_another_character_proves_nothing(data):
    sessions = Sessions(Clock())
    token, _ = sessions.open(KEY.fingerprint, "clinic")
    value = header(token, 1)
    position = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters().filter(lambda c: c != value[position]))
    changed = value[:position] + other + value[position + 1 :]
    assert refusal(sessions, changed) in ("identity-proof", "identity-session")


def test_of_many_threads_with_the_same_request_one_wins(sessions, token):
    value, barrier = header(token, 1), threading.Barrier(8)

    def attempt(_: int) -> str:
        barrier.wait()
        try:
            check(sessions, value)
        except IdentityError as error:
            return error.code
        return "ok"

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(attempt, range(8)))
    assert outcomes == ["identity-replayed"] * 7 + ["ok"]


def test_threads_that_share_a_prover_never_share_a_counter(sessions, token):
    prover = Prover(KEY, token)

    def ask(_: int) -> bool:
        return bool(check(sessions, prover.header(*GET, DIGEST)))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))


def test_sessions_open_and_go_under_load_without_losing_count(clock):
    sessions = Sessions(clock, per_member=3, limit=10)
    keys = [new_key() for _ in range(6)]

    def work(number: int) -> None:
        key = keys[number % 6]
        token, _ = sessions.open(key.fingerprint, "m")
        try:
            check(sessions, header(token, 1, key=key), key=key)
        except IdentityError as error:
            assert error.code == "identity-session"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(300)))
    assert 0 < len(sessions) <= 10
    for key in keys:
        sessions.close_member(key.fingerprint)
    assert len(sessions) == 0
