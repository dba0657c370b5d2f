import json
import logging
import re
import stat
import sys

import pytest

from hansa.cli import main
from hansa.cli.server import VERBS
from hansa.clock import seconds_of, wall
from hansa.identity import find_membership, parse_invite
from hansa.server.opening import opened
from hansa.server.settings import load_settings
from hansa.server.state import held
from hansa.server.tokens import tokens


@pytest.fixture
def hansa(home, monkeypatch, capsys):
    """Run commands in an empty folder; each returns what was printed."""
    monkeypatch.delenv("HANSA_SERVER", raising=False)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # `start` sets its own
    monkeypatch.setenv("HANSA_HOME", str(home / "hansa-home"))

    def run(*words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*words])
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == status, out + err
        assert "Traceback" not in out + err
        return out if status == 0 else out + err

    return run


@pytest.fixture
def server(hansa, home, monkeypatch):
    hansa("server", "init", "--folder", "heart", "--name", "Heart", "--url", "https://a.example")
    monkeypatch.setenv("HANSA_SERVER", str(home / "heart"))
    return home / "heart"


def test_init_tells_fingerprint_key_and_what_to_type_next(hansa, home):
    told = hansa("server", "init", "--folder", "heart", "--url", "https://a.example:9000",
                 "--admin", "eva")  # fmt: skip
    with opened(home / "heart") as made:
        found = re.search(r"Fingerprint +([0-9a-f ]+)\n", told)
        assert found and found[1].replace(" ", "") == made.authority.fingerprint
    assert "hansa server start --folder heart" in told
    assert str(find_membership("https://a.example:9000").folder) in told
    settings = load_settings(home / "heart")
    assert (settings.port, settings.url, settings.host) == (9000, "https://a.example:9000",
                                                            "0.0.0.0")  # fmt: skip


@pytest.mark.parametrize(
    ("options", "url", "port"),
    [
        ([], "https://localhost:8443", 8443),
        (["--port", "9000"], "https://localhost:9000", 9000),
        (["--url", "https://a.example"], "https://a.example:443", 443),
        (["--url", "a.example:9000"], "https://a.example:9000", 9000),
        (["--url", "https://a.example", "--port", "9000"], "https://a.example:443", 9000),
        (["--url", "https://a.example", "--no-tls"], "https://a.example:443", 8443),
        (["--url", "https://[2001:db8::1]:9000"], "https://[2001:db8::1]:9000", 9000),
    ],
)
def test_address_and_port_follow_from_what_is_said(hansa, home, options, url, port):
    hansa("server", "init", "--folder", "s", *options)
    settings = load_settings(home / "s")
    assert (settings.url, settings.port) == (url, port)
    assert settings.host == ("127.0.0.1" if "--no-tls" in options else "0.0.0.0")


def test_init_twice_changes_nothing(hansa, server):
    before = {p.name: p.read_bytes() for p in server.iterdir() if p.is_file()}
    assert "[server-exists]" in hansa("server", "init", "--folder", str(server), status=1)
    assert before == {p.name: p.read_bytes() for p in server.iterdir() if p.is_file()}


@pytest.mark.parametrize(
    ("role", "verb"),
    [("site", "hansa site join"), ("viewer", "hansa join"), ("submitter", "hansa join"),
     ("admin", "hansa join")],
)  # fmt: skip
def test_invite_prints_one_line_to_send(hansa, server, role, verb):
    line = hansa("server", "invite", "north", "--role", role, "--org", "North", "--expires", "24h")
    found = re.fullmatch(rf"{verb} '(\S+)'\n", line)
    assert found
    invite = parse_invite(found[1])
    with opened(server) as made:
        assert (invite.url, invite.fingerprint) == (
            "https://a.example:443",
            made.authority.fingerprint,
        )


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)]
)
def test_lengths_of_time_are_read_as_people_write_them(hansa, server, text, seconds):
    said = json.loads(hansa("server", "invite", "north", "--expires", text, "--json"))
    assert abs(seconds_of(said["expires"]) - wall() - seconds) < 20


def test_members_are_listed_revoked_and_invited_again(hansa, server):
    assert "No site has joined yet" in hansa("server", "sites")
    told = hansa("server", "revoke", "admin")
    assert "hansa server invite admin --role admin" in told
    rows = json.loads(hansa("server", "members", "--json"))["members"]
    assert [(m["name"], m["role"]) for m in rows] == [("admin", "admin")]
    assert rows[0]["state"].startswith("revoked 20")
    hansa("server", "invite", "admin", "--role", "admin")


def test_a_token_is_shown_once_listed_and_revoked(hansa, server):
    token = hansa("server", "token", "prometheus", "--expires", "30d").strip()
    assert re.fullmatch(r"hansa_[A-Za-z0-9_-]{43}", token)
    listed = hansa("server", "members", "--json")
    assert "prometheus" in listed and token not in listed
    assert "Token prometheus: until 20" in hansa("server", "members")
    assert "1 token called prometheus" in hansa("server", "token", "--revoke", "prometheus")
    with opened(server) as made:
        assert [t.revoked_at is None for t in tokens(made.database)] == [False]
    assert "Token prometheus: revoked 20" in hansa("server", "members")


def test_what_was_done_is_in_the_audit_trail_without_secrets(hansa, server):
    line = hansa("server", "invite", "north")
    token = hansa("server", "token", "prometheus").strip()
    trail = hansa("server", "audit", "--json")
    actions = [row["action"] for row in json.loads(trail)["audit"]]
    assert actions == ["server.found", "member.invite", "token.create"]
    assert {row["who"] for row in json.loads(trail)["audit"]} == {"operator"}
    assert token not in trail and line.split("#")[1][:20] not in trail
    last = json.loads(hansa("server", "audit", "-n", "1", "--json"))["audit"]
    assert [row["action"] for row in last] == ["token.create"]
    assert "member.invite" in hansa("server", "audit")


def test_status_and_runs_of_a_server_that_does_not_run(hansa, server):
    told = hansa("server", "status")
    assert "does not run" in told and "https://a.example:443" in told and "none yet" in told
    assert json.loads(hansa("server", "status", "--json"))["people"] == 1
    assert "No run has been submitted" in hansa("server", "runs")
    assert json.loads(hansa("server", "runs", "--json")) == {"runs": []}


def test_a_certificate_for_a_proxy_is_of_the_authority_and_its_key_is_kept(hansa, server, home):
    from cryptography import x509

    hansa("server", "certificate", "b.example", "192.0.2.1", "--to", "nginx", "--days", "30")
    key = (home / "nginx" / "tls-key.pem").read_bytes()
    assert stat.S_IMODE((home / "nginx" / "tls-key.pem").stat().st_mode) == 0o600
    hansa("server", "certificate", "b.example", "--to", "nginx")
    assert (home / "nginx" / "tls-key.pem").read_bytes() == key
    leaf, authority = x509.load_pem_x509_certificates((home / "nginx" / "tls.pem").read_bytes())
    leaf.verify_directly_issued_by(authority)
    assert authority == x509.load_pem_x509_certificate((server / "ca.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["b.example"]


def test_doctor_and_backup_tell_what_they_find_and_where_the_keys_are(hansa, server, home):
    told = hansa("server", "doctor")
    assert "none was made yet" in told and "hansa server backup DIR" in told
    assert "private keys" in hansa("server", "backup", "copy")
    found = json.loads(hansa("server", "doctor", "--folder", "copy", "--json"))
    assert found["bad"] == 0
    assert json.loads(hansa("server", "backup", "copy", "--json"))["blobs"] == 0
    (server / "ca-key.pem").chmod(0o644)
    told = hansa("server", "doctor", status=1)
    assert told.startswith("BAD   keys") and f"chmod 600 {server / 'ca-key.pem'}" in told
    assert "Removed 0 files" in hansa("server", "doctor", "--clean", status=1)


WRONG = [
    (["invite", "North"], "member-invalid"),
    (["invite", "../x"], "member-invalid"),
    (["invite", "admin", "--role", "admin"], "member-exists"),
    (["invite", "north", "--expires", "31d"], "member-invalid"),
    (["invite", "north", "--expires", "soon"], "usage"),
    (["invite", "north", "--expires", "0m"], "usage"),
    (["invite", "north", "--role", "king"], "usage"),
    (["invite"], "usage"),
    (["revoke", "nobody"], "member-missing"),
    (["token", "--revoke", "nobody"], "member-missing"),
    (["token", "a b"], "member-invalid"),
    (["token", "t", "--expires", "9999d"], "member-invalid"),
    (["audit", "-n", "0"], "usage"),
    (["certificate", "--to", "x"], "usage"),
    (["certificate", "a.example"], "usage"),
    (["certificate", "a b", "--to", "x"], "usage"),
    (["certificate", "a.example", "--to", "heart"], "usage"),
    (["backup", "heart"], "server-backup"),
    (["init", "--folder", "n", "--url", "ftp://a.example"], "usage"),
    (["init", "--folder", "n", "--url", "https://a.example/x"], "usage"),
    (["init", "--folder", "n", "--url", "https://a.example:99999"], "usage"),
    (["init", "--folder", "n", "--port", "0"], "server-settings"),
    (["init", "--folder", "n", "--name", ""], "server-settings"),
    (["init", "--folder", "n", "--admin", "Eva Maria", "--port", "1"], "member-invalid"),
    (["init", "--folder", "n", "--no-tls", "--host", "192.0.2.1"], "server-settings"),
    (["init", "--folder", "plain-file"], "usage"),
    (["nonsense"], "usage"),
]


@pytest.mark.parametrize(("words", "code"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_wrong_input_gives_an_error_with_a_code(hansa, server, home, words, code):
    (home / "plain-file").write_text("")
    told = hansa("server", *words, status=2 if code == "usage" else 1)
    assert f"[{code}]" in told


def test_hints_name_the_folder_again_and_commands_that_there_are(hansa, server, monkeypatch):
    monkeypatch.delenv("HANSA_SERVER", raising=False)
    at = f"--folder {server}"
    for words, command in (
        (["invite", "admin", "--role", "admin"], "hansa server revoke admin"),
        (["token", "--revoke", "b"], "hansa server members"),
        (["revoke", "b"], "hansa server members"),
    ):
        assert f"{command} {at}" in hansa("server", *words, "--folder", str(server), status=1)
    with held(server):
        told = hansa("server", "start", "--folder", str(server), status=1)
    assert f"hansa server sites {at}" in told


def test_what_holds_too_long_is_told_in_days(hansa, server):
    told = hansa("server", "invite", "north", "--expires", "999d", status=1)
    assert "cannot hold 999d; at most 30d" in told
    told = hansa("server", "token", "t", "--expires", "999d", status=1)
    assert "holds at most 366d" in told


NEED_A_SERVER = [
    ["start"], ["status"], ["invite", "north"], ["sites"], ["members"], ["revoke", "north"],
    ["token", "t"], ["runs"], ["audit"], ["doctor"], ["backup", "copy"],
    ["certificate", "a.example", "--to", "x"],
]  # fmt: skip


@pytest.mark.parametrize("words", NEED_A_SERVER, ids=lambda words: words[0])
@pytest.mark.parametrize("fault", ["empty", "settings", "no database", "damaged", "no authority"])
def test_a_folder_that_is_no_whole_server_is_told_of(hansa, server, home, words, fault):
    code = "server-settings"
    if fault == "empty":
        server = home / "nowhere"
    elif fault == "settings":
        (server / "server.toml").write_text("prot = 1\n")
    elif fault == "no authority":
        (server / "ca-key.pem").write_text("nothing")
        code = "identity-key"
        if words[0] in ("members", "audit"):  # which can be looked at all the same
            hansa("server", *words, "--folder", str(server))
            return
    elif words[0] == "certificate":
        return  # it needs no database
    else:
        code = "server-database"
        for path in server.glob("hansa.db*"):
            path.unlink()
        if fault == "damaged":
            (server / "hansa.db").write_bytes(b"no database at all" * 500)
    assert f"[{code}]" in hansa("server", *words, "--folder", str(server), status=1)
    if fault == "no database":
        assert not (server / "hansa.db").exists()


def test_every_command_of_an_operator_was_tried():
    assert {words[0] for words in NEED_A_SERVER} | {"init"} == set(VERBS)


def test_help_of_the_group_imports_no_server():
    import subprocess

    program = (
        "import sys; from hansa.cli import main\n"
        "try: main(['server', '--help'])\n"
        "finally: print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert not {"starlette", "granian", "sqlalchemy", "cryptography", "numpy"} & set(loaded)


def test_a_combiners_folder_names_the_combiners_own_commands(hansa, server):
    told = hansa("combiner", "start", status=1)
    assert "no combiner's" in told and "hansa server start" in told
    assert "no combiner's" in hansa("combiner", "ledger", status=1)
    told = hansa("combiner", "start", "--folder", "nowhere", status=1)
    assert "hansa combiner init --join LINE" in told
    assert "does not run: hansa server start" in hansa("server", "status")
    (server / "upward").mkdir()
    assert "does not run: hansa combiner start" in hansa("combiner", "status")
    assert "hansa combiner start" in hansa("combiner", "doctor")
