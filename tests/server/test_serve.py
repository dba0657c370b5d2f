"""Goal: a server in a process of its own starts, ends, is killed and looked at as an operator does.

Method: real processes and sockets on loopback; each test has a server of its own, since starting
and ending is what is tested.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from served import Federation, connected

from hansa.errors import HansaError, RequestRefused
from hansa.holding import is_held
from hansa.identity import authority
from hansa.protocol.messages import Poll, PollAnswer
from hansa.server import serve
from hansa.server.founding import found
from hansa.server.settings import ServerSettings

MEMBER_FELT_S = 5.0


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path)


def poll(connection) -> PollAnswer:
    return connection.call("POST", "/v1/poll", Poll(version="test"), kind=PollAnswer, timeout_s=20)


def test_start_tells_what_there_is_and_sigterm_answers_polls_and_exits_with_0(federation):
    federation = Federation(federation.root / "slow", heartbeat_s=60.0)
    with federation.served():
        assert is_held(federation.folder)
        with connected(federation.join("north")) as site, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(poll, site)
            time.sleep(0.5)
            assert not waiting.done()
            assert federation.end(signal.SIGTERM) == 0
            answer = waiting.result(20)  # and did not sit out the heartbeat
        assert answer.again_s > 0 and not answer.ended
    told = "".join(federation.told)
    assert federation.url in told
    for word in ("Fingerprint", "/health", "/metrics", "hansa server invite", "Stop"):
        assert word in told
    assert "experimental" not in told + "".join(federation.log)
    assert "" not in [line.strip() for line in federation.told]
    assert not is_held(federation.folder)


def test_a_second_start_on_the_same_folder_is_refused(federation):
    with federation.served():
        told = federation.hansa("server", "start", status=1)
        assert "[server-busy]" in told
        assert federation.ask("/health")[0] == 200


def test_a_port_that_is_taken_is_told_of_in_a_sentence(federation):
    with socket.socket() as other:
        other.bind(("127.0.0.1", federation.port))
        other.listen()
        told = federation.hansa("server", "start", status=1)
    assert "[server-port]" in told and str(federation.port) in told


def test_a_killed_server_starts_again_and_knows_its_members(federation):
    with federation.served():
        member = federation.join("north")
        assert federation.end(signal.SIGKILL) == -signal.SIGKILL
    with federation.served():
        assert federation.ask("/ready") == (200, "ready\n")
        with connected(member) as site:
            assert site.call("POST", "/v1/poll", Poll(wait=False), kind=PollAnswer).again_s == 0
        assert federation.end() == 0


def test_health_ready_and_metrics_need_no_proof_on_the_machine_itself(federation):
    with federation.served("--log-json"):
        assert federation.ask("/health") == (200, "alive\n")
        assert federation.ask("/ready") == (200, "ready\n")
        with connected(federation.join("north")) as site:
            site.call("POST", "/v1/poll", Poll(wait=False), kind=PollAnswer)
        status, text = federation.ask("/metrics")
        assert status == 200
        samples = dict(samples_of(text))
        assert samples['hansa_sites{state="online"}'] == 1
        assert samples["hansa_rounds_total"] == 0
        assert federation.ask("/v1/members")[0] == 401
        assert federation.ask("/nothing")[0] == 404
        federation.end()
    lines = [json.loads(line) for line in federation.log]
    assert any(line["message"].startswith("serving on") for line in lines)
    assert {"at", "level", "logger", "message"} <= lines[0].keys()


def samples_of(text: str):
    """Yield the samples of Prometheus' text format, of which every line must be one of three."""
    declared = set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if head := re.fullmatch(r"# (?:HELP|TYPE) (hansa_[a-z_]+) .+", line):
            declared.add(head[1])
            continue
        sample = re.fullmatch(r'((hansa_[a-z_]+)(?:\{[a-z]+="[a-z]+"\})?) (\S+)', line)
        assert sample is not None, line
        assert sample[2] in declared
        yield sample[1], float(sample[3])


def test_without_tls_nothing_is_told_without_a_token(tmp_path):
    federation = Federation(tmp_path, tls=False, url="https://hansa.example")
    token = federation.command("server", "token", "prometheus").stdout.strip()
    with federation.served():
        assert federation.ask_plainly("/health")[0] == 401
        assert federation.ask_plainly("/metrics")[0] == 401
        bearer = {"Authorization": f"Bearer {token}"}
        assert federation.ask_plainly("/health", bearer) == (200, "alive\n")
        assert federation.ask_plainly("/metrics", bearer)[0] == 200
        federation.hansa("server", "token", "--revoke", "prometheus")
        assert federation.ask_plainly("/metrics", bearer)[0] == 401


def test_a_revocation_by_another_process_ends_an_open_poll_within_5_seconds(federation):
    federation = Federation(federation.root / "slow", heartbeat_s=60.0)
    with (
        federation.served(),
        connected(federation.join("north")) as site,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(poll, site)
        time.sleep(0.5)
        assert not waiting.done()
        federation.hansa("server", "revoke", "north")
        began = time.monotonic()
        with pytest.raises(RequestRefused, match="identity-member"):
            waiting.result(20)
        assert time.monotonic() - began < MEMBER_FELT_S
        with pytest.raises(HansaError, match=r"identity-(member|session)"):
            poll(site)


def test_sites_asks_the_running_server_who_is_there(tmp_path):
    federation = Federation(tmp_path, heartbeat_s=1.0)
    with federation.served(), connected(federation.join("north")) as site:
        federation.join("south")
        stop = threading.Event()

        def stay() -> None:
            while not stop.is_set():
                poll(site)

        with ThreadPoolExecutor(1) as pool:
            poll(site)
            staying = pool.submit(stay)
            told = json.loads(federation.command("server", "sites", "--json").stdout)
            stop.set()
            staying.result(20)
    assert told["presence"] == "known"
    assert {row["name"]: row["state"] for row in told["sites"]} == {
        "north": "active",
        "south": "silent",
    }
    told = json.loads(federation.command("server", "sites", "--json").stdout)
    assert "does not run" in told["presence"]
    assert {row["state"] for row in told["sites"]} == {"unknown"}


def test_a_certificate_that_finds_no_room_is_renewed_later_and_kept_meanwhile(
    tmp_path, monkeypatch
):
    """A full disk at the hour of renewal ends no server, and hinders no start."""
    monkeypatch.setenv("HANSA_HOME", str(tmp_path / "home"))
    folder = found(tmp_path / "server", ServerSettings(url="https://hansa.example")).folder
    before = (folder / "tls.pem").read_bytes()
    moved = ServerSettings(url="https://elsewhere.example")  # a reason to renew it

    def full(*_, **__):
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(authority, "write_durably", full)
        with pytest.raises(OSError, match="no space"):
            serve.renew_tls(folder, moved)
        assert not serve._is_renewed(folder, moved)
        serve._renewed_or_kept(folder, moved)
        assert (folder / "tls.pem").read_bytes() == before
        (folder / "tls.pem").unlink()
        with pytest.raises(OSError, match="no space"):
            serve._renewed_or_kept(folder, moved)
    assert serve._is_renewed(folder, moved)
    assert not serve._is_renewed(folder, moved)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://[2001:0db8::7]:8443", "0.0.0.0"),
        ("https://[2001:DB8:0:0::7]:8443", "0.0.0.0"),
        ("https://[fe80::1%25eth0]:8443", "fe80::1%eth0"),
        ("https://hansa.example", "0:0:0:0:0:0:0:0"),
        ("https://hansa.example", "0:0:0:0:0:0:0:1"),
    ],
)
def test_an_address_in_another_spelling_is_no_reason_to_renew_a_certificate(
    tmp_path, monkeypatch, url, host
):
    monkeypatch.setenv("HANSA_HOME", str(tmp_path / "home"))
    settings = ServerSettings(url=url, host=host)
    folder = found(tmp_path / "server", settings).folder
    assert not serve.renew_tls(folder, settings)
