"""A combiner in this process, under a server that is another; its one site is played by hand."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import numpy as np
import pytest
from in_process import SEED, Member, digest_of, done, submission_of, update_bytes
from served import HANSA, Federation, connected

from hansa.clock import wall
from hansa.combiner import relay
from hansa.combiner.folding import CombinedRun
from hansa.combiner.relay import Relay
from hansa.combiner.state import CombinerState, found_combiner
from hansa.dev.loopback import free_port
from hansa.errors import HansaError
from hansa.identity import Membership, load_authority, load_membership, new_key, parse_invite
from hansa.params import decode
from hansa.protocol.messages import Offer, PollAnswer, RunFacts, Standing
from hansa.server.hub import Hub
from hansa.server.members import found_admin
from hansa.server.opening import opened
from hansa.server.settings import ServerSettings

D = [1.0, -2.0, 4.0]


class Tiers(NamedTuple):
    """A server, a combiner below it, and the admin of the server."""

    above: Federation
    combiner: CombinerState
    admin: Membership

    def submit(self, **plan: Any) -> str:
        key, certificate = self.admin.key(), self.admin.certificate()
        member = Member(self.admin.name, "admin", key, certificate)
        submission, *contents = submission_of(member, **plan)
        with connected(self.admin) as connection:
            for content in contents:
                path = f"/v1/blobs/{digest_of(content)}"
                connection.request("PUT", path, body=content)
            return connection.call("POST", "/v1/runs", submission, kind=RunFacts).run

    def facts(self, run: str) -> RunFacts:
        with connected(self.admin) as connection:
            body = connection.request("GET", f"/v1/runs/{run}").body
        return msgspec.json.decode(body, type=dict[str, Any])["facts"]  # type: ignore[no-any-return]

    def answer(self, run: str, number: int = 1) -> None:
        """Do what the site behind the combiner is asked."""
        state = self.combiner
        eventually(lambda: state.journal.run(run), "the run is known")
        eventually(lambda: run in state.hub._runs, "it is offered")
        state.journal.stand(run, "solo", Standing(state="ready", examples=4))
        exchange = eventually(lambda: state.hub.exchange(run, number, "train"), "the round is open")
        content = update_bytes(D)
        state.updates.of(run, number, "solo").put_bytes(content)
        exchange.answer("solo", done(content, 4.0))


def eventually(reached: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + 30
    while not (found := reached()):
        assert time.monotonic() < until, f"in vain: {what}"
        time.sleep(0.02)
    return found


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[Tiers]:
    above = Federation(tmp_path, heartbeat_s=5.0)
    with above.served(), mock.patch.dict(os.environ, above.environment):
        port = free_port()
        settings = ServerSettings(
            name="tier", url=f"https://localhost:{port}", host="127.0.0.1", port=port
        )
        invite = parse_invite(above.invite("tier", "combiner"))
        found_combiner(tmp_path / "tier", invite, settings, admin="admin")
        state = CombinerState(tmp_path / "tier")
        state.hub.heard("solo", "1")
        try:
            yield Tiers(above, state, above.admin)
        finally:
            state.close()


def ended(tiers: Tiers, run: str) -> dict[str, Any]:
    def facts() -> Any:
        found: Any = tiers.facts(run)
        return found if found["state"] in ("finished", "failed") else None

    return eventually(facts, f"{run} has ended")  # type: ignore[no-any-return]


def test_one_bad_round_does_not_end_the_combiner(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FEDn 2: what fails in a round's thread fails there; the round is asked for again."""
    asked: list[int] = []
    real = CombinedRun.fold

    def broken(self: CombinedRun, task: Any) -> Any:
        asked.append(task.key.round)
        if len(asked) == 1:
            raise RuntimeError("the round thread dies")
        return real(self, task)

    monkeypatch.setattr(CombinedRun, "fold", broken)
    tiers.combiner.runs.resume()
    run = tiers.submit()
    tiers.answer(run)
    assert ended(tiers, run)["state"] == "finished"
    assert asked[:2] == [1, 1]
    rounds = sorted((tiers.above.folder / "blobs").glob("*"))
    models = [decode(path.read_bytes()).to_dict() for path in rounds if path.is_file() and
              path.read_bytes()[8:9] == b"{"]  # fmt: skip
    assert any(np.array_equal(next(iter(m.values())), SEED + np.float32(D)) for m in models)


def test_a_combiner_takes_a_round_for_committed_when_it_is_told_so(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next round begins before: until it is durable above, nobody forgets anything (L5)."""
    real = Relay._do
    silent = [True]

    def untold(self: Relay, answer: PollAnswer) -> bool:
        less = msgspec.structs.replace(answer, committed=[]) if silent[0] else answer
        return real(self, less)

    monkeypatch.setattr(Relay, "_do", untold)
    tiers.combiner.runs.resume()
    run = tiers.submit(rounds=2)
    tiers.answer(run)
    exchange = tiers.combiner.hub.exchange
    eventually(lambda: exchange(run, 2, "train"), "the second round has begun")
    found = tiers.combiner.hub._runs[run]
    assert found.settled("solo") == 0 and list((tiers.combiner.updates.folder / run).glob("1/*/*"))
    silent[0] = False
    # With the next poll: one lasts as long as a heartbeat.
    eventually(lambda: found.settled("solo") == 1, "it is told")
    _, again = tiers.combiner.journal.since_commit(run, up_to=0)
    assert [e["round"] for e in again if e["kind"] == "opened"] == [1, 2]
    tiers.answer(run, 2)
    assert ended(tiers, run)["state"] == "finished"


def test_a_poll_that_fails_does_not_end_the_combiner(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = Hub.clients, []

    def broken(self: Hub) -> set[str]:
        asked.append(1)
        if len(asked) < 4:
            raise RuntimeError("the thread that polls dies")
        return real(self)

    monkeypatch.setattr(Hub, "clients", broken)
    tiers.combiner.runs.resume()
    run = tiers.submit()
    tiers.answer(run)
    assert ended(tiers, run)["state"] == "finished"


@pytest.mark.parametrize("first", ["answered", "disk full", "about to end"])
def test_a_run_that_ended_while_the_combiner_was_away_is_forgotten(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Also when the combiner stumbles at its first poll, or the server above was ending then."""
    stumbles, asked = [first], Relay._asked

    def stumbling(self: Relay, **named: Any) -> PollAnswer:
        how = stumbles.pop() if stumbles and "runs" in named else "answered"
        if how == "disk full":
            raise OSError(errno.ENOSPC, "No space left on device")
        return PollAnswer() if how == "about to end" else asked(self, **named)

    monkeypatch.setattr(Relay, "_asked", stumbling)
    monkeypatch.setattr(relay, "SITE_PAUSE_S", 0.1)
    key, certificate = tiers.admin.key(), tiers.admin.certificate()
    submission, *_ = submission_of(Member(tiers.admin.name, "admin", key, certificate))
    facts = msgspec.to_builtins(submission)
    offer = msgspec.convert(facts | {"run": "ghost-1", "submitter": "ada"}, Offer)
    journal = tiers.combiner.journal
    journal.adopt(offer)
    journal.adopt(offer)  # twice is as good as once
    assert [e["kind"] for e in journal.events("ghost-1")] == ["submitted", "committed"]
    tiers.combiner.runs.resume()

    def over() -> bool:
        row = journal.run("ghost-1")
        return row is not None and row.state == "finished"

    eventually(over, "it has ended")
    eventually(lambda: "ghost-1" not in tiers.combiner.hub._expected, "no site waits for it")


def test_nothing_is_submitted_or_stopped_at_a_combiner(tiers: Tiers) -> None:
    assert isinstance(tiers.combiner.runs, Relay)
    for ask in (
        lambda: tiers.combiner.runs.submit(mock.Mock(), "ada"),
        lambda: tiers.combiner.runs.stop("study-1", "ada"),
    ):
        with pytest.raises(HansaError, match="combiner tier"):
            ask()


def test_a_folder_holds_one_combiner_and_is_no_server(tiers: Tiers) -> None:
    folder = tiers.combiner.folder
    invite = parse_invite(tiers.above.invite("second", "combiner"))
    with pytest.raises(HansaError) as caught:
        found_combiner(folder, invite, tiers.combiner.settings, admin="admin")
    assert caught.value.code == "server-exists"
    told = tiers.above.hansa("server", "start", "--folder", folder, folder=False, status=1)
    assert "server-settings" in told and "hansa combiner start" in told


def test_a_combiner_is_made_and_looked_at_with_commands(tmp_path: Path) -> None:
    above = Federation(tmp_path)
    with above.served():
        line = above.hansa("server", "invite", "west", "--role", "combiner").splitlines()[0]
        assert line.startswith("hansa combiner init --join 'https://")
        port = free_port()
        made = above.hansa(
            "combiner", "init", "--folder", "west", "--join", line, "--url",
            f"https://localhost:{port}", "--host", "127.0.0.1", "--yes", folder=False,
        )  # fmt: skip
        assert "This is now the combiner west of Heart." in made
        for words in (("sites",), ("status",), ("ledger", "--verify")):
            above.hansa("combiner", *words, "--folder", "west", folder=False)
        told = above.hansa("combiner", "backup", "copy", "--folder", "west", folder=False)
        assert "Restore it" in told and "hansa combiner start" in told
        for words in (("status",), ("ledger", "--verify"), ("doctor",)):
            above.hansa("combiner", *words, "--folder", "copy", folder=False)
        invited = above.hansa("combiner", "invite", "ward-3", "--folder", "west", folder=False)
        assert invited.startswith(f"hansa site join 'https://localhost:{port}#")
        key = new_key()
        with opened(tmp_path / "west") as tier, mock.patch.dict(os.environ, above.environment):
            found_admin(tier.database, tier.authority, "ward-3", key.public, at=wall())
        taken = above.hansa(
            "combiner", "invite", "ward-3", "--folder", "west", folder=False, status=1
        )
        assert "member-exists" in taken and "hansa combiner revoke ward-3" in taken
        told = above.hansa("combiner", "revoke", "ward-3", "--folder", "west", folder=False)
        assert "hansa combiner invite ward-3" in told and "hansa server" not in told
        for role in ("combiner", "submitter"):
            refused = above.hansa(
                "combiner", "invite", "x", "--role", role, "--folder", "west", folder=False,
                status=1,
            )  # fmt: skip
            assert "member-invalid" in refused
        wrong = above.hansa("server", "invite", "ward-4").splitlines()[0].split("'")[1]
        told = above.hansa(
            "combiner", "init", "--folder", "other", "--join", wrong, "--yes", folder=False,
            status=1,
        )  # fmt: skip
        assert "invite-refused" in told and "hansa site join" in told
        assert not (tmp_path / "other").exists()
    told = above.hansa(
        "combiner", "init", "--folder", "other", "--join", line, "--yes", folder=False, status=1
    )
    assert "server-unreachable" in told and not (tmp_path / "other").exists()


def test_a_site_learns_from_its_combiner_who_certifies_submitters(tiers: Tiers) -> None:
    """Method: the combiner's own process serves the enrolment; the authority is the server's."""
    port, folder = tiers.combiner.settings.port, tiers.combiner.folder
    line = tiers.combiner.invite("ward-3", role="site", org="", expires_s=900.0, by="test")
    environment = tiers.above.environment
    process = subprocess.Popen(
        [*HANSA, "combiner", "start", "--folder", str(folder)], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: answers(port), "the combiner serves")
        told = tiers.above.hansa("site", "join", line, "--folder", "ward-3", "--yes", folder=False)
        above = load_authority(tiers.above.folder)
        grouped = " ".join(above.fingerprint[i : i + 4] for i in range(0, 32, 4))
        assert "It stands behind a combiner" in told and grouped in told
        membership = load_membership(tiers.above.root / "ward-3")
        assert membership.trusted_pem == above.pem != membership.authority_pem
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
