import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import IdentityError
from hansa.identity import Invite, new_token, parse_invite, token_hash

INVITE = Invite("https://fed.example.org:8443", "A" * 22, "0" * 32)


@pytest.mark.parametrize(
    "url", ["https://fed.example.org:8443", "https://127.0.0.1:1", "https://[::1]:65535"]
)
def test_an_invitation_comes_back_from_its_line(url):
    invite = Invite(url, new_token(), "0123456789abcdef" * 2)
    assert parse_invite(f"  {invite.line()}\n") == invite


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://fed.example.org", "https://fed.example.org:443"),
        ("https://FED.example.org:8443/", "https://fed.example.org:8443"),
    ],
)
def test_an_address_has_one_spelling(written, url):
    assert parse_invite(f"{written}#{'A' * 22}.{'0' * 32}").url == url


LINE = INVITE.line()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        LINE[:-1],
        LINE + "0",
        LINE.replace("https", "http"),
        LINE.replace("https", "file"),
        LINE.replace("#", "?"),
        LINE.replace("#", "/path#"),
        LINE.replace("#", "?q=1#"),
        LINE.replace("fed.", "user:secret@fed."),
        LINE.replace(":8443", ":0"),
        LINE.replace(":8443", ":65536"),
        LINE.replace(":8443", ":x"),
        LINE.replace("fed.example.org", ""),
        LINE.replace("fed.example.org", "fed example.org"),
        LINE.replace("fed.example.org", "[::1"),
        LINE.replace("fed.example.org", "föd.org"),
        LINE.replace("A.0", "A.0\n"),
        LINE.replace("AA", "A+"),
        LINE.replace("0" * 32, "G" * 32),
        LINE + "#" + LINE,
        LINE.replace("fed", "f" * 500),
    ],
)
def test_what_is_not_one_whole_invitation_is_refused(text):
    with pytest.raises(IdentityError) as caught:
        parse_invite(text)
    assert caught.value.code == "invite-malformed"
    assert "A" * 10 not in str(caught.value)


@given(st.text() | st.text(alphabet="https:/#.[]@?0123456789abcdefA-_", max_size=120))
def test_no_text_whatever_leads_to_another_error(text):
    try:
        parse_invite(text)
    except IdentityError as error:
        assert error.code == "invite-malformed"


@given(st.integers(0, len(LINE) - 1), st.characters())
def test_a_damaged_invitation_is_refused_or_another_one_but_never_another_error(position, other):
    damaged = LINE[:position] + other + LINE[position + 1 :]
    try:
        parse_invite(damaged)
    except IdentityError as error:
        assert error.code == "invite-malformed"


def test_an_invitation_shows_its_token_only_when_asked_for_its_line():
    invite = Invite("https://h:1", new_token(), "0" * 32)
    assert invite.token in invite.line()
    for shown in (repr(invite), str(invite), f"{invite}", f"{invite!r}"):
        assert invite.token not in shown


def test_tokens_differ_and_are_kept_as_their_sha256():
    assert len({new_token() for _ in range(100)}) == 100 and len(new_token()) == 22
    # sha256 of "abc" as in FIPS 180-2
    assert token_hash("abc").startswith("ba7816bf8f01cfea414140de5dae2223")
