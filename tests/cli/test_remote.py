"""A person's verbs on a federation, against a server's side in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from projects import make_project
from stand_in import StandIn, join, unreachable

from hansa.identity import Membership
from hansa.runs import find_run


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    make_project(home / "study", rounds=3)
    return join(monkeypatch, home / "league")[0]


def test_run_on_follows_to_the_end_and_the_folder_is_like_any_other(
    hansa_cli: Any, server: StandIn
) -> None:
    server.run(3)
    text = hansa_cli("run", "study", "--on", "hansa.test", "--purpose", "beds")
    assert "Run steps-1, which is far-7 at https://hansa.test:8443" in text
    assert "waiting: south has not decided" in text
    assert "round 3/3" in text and "Finished: all 3 rounds are done" in text
    assert server.submissions[0].purpose == "beds"
    assert Path("runs/steps-1/report.html").is_file()
    assert "finished" in hansa_cli("ls")
    assert "server  https://hansa.test:8443, where it is far-7" in hansa_cli("show")
    assert "Wrote" in hansa_cli("export", "steps-1", "--to", "npz", "-o", "m.npz")
    hansa_cli("run", "study", "--set", "seed=9")
    assert "steps-1" in hansa_cli("compare")
    assert "data are not here" in hansa_cli("reproduce", "steps-1", status=1)
    text = hansa_cli("predict", "steps-1:2", status=1).replace("\n", " ")
    assert "data are not here" in text
    assert "hansa predict far-7:2 --on https://hansa.test:8443" in text
    text = hansa_cli("run", "--resume", "steps-1", status=1)
    assert "[run-ended]" in text and "all of it is here" in text


def test_detached_and_followed_later_from_anywhere_in_between(
    hansa_cli: Any, server: StandIn
) -> None:
    text = hansa_cli("run", "study", "--on", "--detach")
    assert "has been handed over" in text
    assert "hansa run --resume steps-1" in text and "hansa stop steps-1" in text
    server.run(3)
    assert "Finished" in hansa_cli("run", "--resume", "steps-1")
    assert len(server.submissions) == 1


@pytest.mark.parametrize("start", ["nope:1", "nope.safetensors"])
def test_a_start_that_is_neither_a_file_nor_a_run_is_told_as_that(
    hansa_cli: Any, server: StandIn, start: str
) -> None:
    text = hansa_cli("run", "study", "--on", "--from", start, status=1)
    assert f"no file {start!r} here" in text.replace("\n", " ") and "[model-missing]" in text
    assert not server.submissions


def test_what_was_handed_over_before_is_said_to_be(hansa_cli: Any, server: StandIn) -> None:
    """A command that runs each night sent nothing from the second night on, and said it had."""
    hansa_cli("run", "study", "--on", "--detach")
    text = hansa_cli("run", "study", "--on", "--detach")
    assert "handed over before" in text and "nothing was sent now" in text and "--new" in text
    assert "has been handed over" not in text and "hansa run --resume steps-1" in text
    told = json.loads(hansa_cli("run", "study", "--on", "--detach", "--json"))
    assert (told["run"], told["fresh"]) == ("steps-1", False)
    told = json.loads(hansa_cli("run", "study", "--on", "--detach", "--json", "--new"))
    assert (told["run"], told["fresh"]) == ("steps-2", True)
    assert len(server.submissions) == 2


def test_ctrl_c_before_it_is_handed_over_does_not_say_that_it_goes_on(
    hansa_cli: Any, server: StandIn
) -> None:
    def away(path: str) -> None:
        raise ConnectionError

    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    server.before_answer = away
    hansa_cli("run", "study", "--on", "--detach", status=1)
    server.before_answer = interrupt
    text = hansa_cli("run", "--resume", "steps-1", status=130)
    assert "Interrupted" in text and "goes on at the server" not in text
    server.before_answer = lambda path: None
    server.run(3)
    assert "Finished" in hansa_cli("run", "--resume", "steps-1")


def test_a_detached_run_has_no_page_until_somebody_looks(hansa_cli: Any, server: StandIn) -> None:
    hansa_cli("run", "study", "--on", "--detach")
    page = Path("runs/steps-1/report.html")
    assert not page.exists()
    hansa_cli("show", "steps-1")
    assert "steps-1" in page.read_text(encoding="utf-8")


def test_a_detached_run_has_a_page_if_it_is_to_be_opened(
    hansa_cli: Any, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("click.launch", opened.append)
    hansa_cli("run", "study", "--on", "--detach", "--open")
    assert [Path(page).is_file() for page in opened] == [True]


def test_a_project_handed_over_twice_starts_from_the_same_model(
    hansa_cli: Any, server: StandIn
) -> None:
    for _ in range(2):
        hansa_cli("run", "study", "--on", "--detach", "--new")
    first, second = server.submissions
    assert first.id != second.id
    for part in ("identity", "plan", "package", "seed_model", "tensors", "buffers", "sources"):
        assert getattr(first, part) == getattr(second, part)


def test_the_same_command_looks_on_again(hansa_cli: Any, server: StandIn) -> None:
    hansa_cli("run", "study", "--on", "--detach")
    server.run(2)
    text = hansa_cli("run", "study", "--on")
    assert "Run steps-1" in text and "Finished" in text
    assert len(server.submissions) == 1


def test_the_same_command_brings_the_model_that_a_crash_has_left_behind(
    hansa_cli: Any, server: StandIn
) -> None:
    """The end had come, the last model had not: the command started a second run."""
    server.run(3)
    hansa_cli("run", "study", "--on")
    model = Path("runs/steps-1/models/round-000003.safetensors")
    content = model.read_bytes()
    model.unlink()
    assert "Finished" in hansa_cli("run", "study", "--on")
    assert model.read_bytes() == content and len(server.submissions) == 1


def test_ctrl_c_leaves_the_run_and_says_how_to_come_back(hansa_cli: Any, server: StandIn) -> None:
    server.run(3)

    def interrupt(path: str) -> None:
        if "after=6" in path:
            server.before_answer = lambda path: None
            raise KeyboardInterrupt

    server.before_answer = interrupt
    text = hansa_cli("run", "study", "--on", status=130)
    assert "The run goes on at the server." in text
    assert "hansa run --resume steps-1" in text and "hansa stop steps-1" in text
    assert Path("runs/steps-1/report.html").is_file()
    assert "running" in hansa_cli("ls")
    assert "Finished" in hansa_cli("run", "--resume", "steps-1")


def test_json_is_one_object_a_line(hansa_cli: Any, server: StandIn) -> None:
    server.run(2)
    lines = [json.loads(line) for line in hansa_cli("run", "study", "--on", "--json").splitlines()
             if line.startswith("{")]  # fmt: skip
    assert [line["round"] for line in lines[:2]] == [1, 2]
    assert lines[2]["state"] == "finished"
    assert lines[2]["remote"] == {"url": "https://hansa.test:8443", "run": "far-7"}


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("stopped", "", "run-stopped"),
        ("failed", "run-all-failed", "run-all-failed"),
        ("failed", "of-a-newer-release", "server-refused"),
    ],
)
def test_an_end_that_nobody_wished_for_is_an_error_with_its_reason(
    hansa_cli: Any, server: StandIn, state: str, code: str, expected: str
) -> None:
    server.run(1)
    server.events[-1] |= {"state": state, "reason": "for a reason.", "code": code}
    text = hansa_cli("run", "study", "--on", status=1)
    assert f"[{expected}]" in text and "for a reason." in text and "hansa log steps-1" in text
    assert state in hansa_cli("ls")
    assert json.loads(hansa_cli("show", "--json"))["state"] == state


def test_ls_show_stop_and_log_ask_the_server(hansa_cli: Any, server: StandIn) -> None:
    assert "No runs at https://hansa.test:8443 yet" in hansa_cli("ls", "--on")
    hansa_cli("run", "study", "--on", "--detach")
    server.run(2)
    server.events.pop()
    assert "far-7" in hansa_cli("ls", "--on") and "ada" in hansa_cli("ls", "--on")
    assert json.loads(hansa_cli("ls", "--on", "--json"))[0]["rounds_done"] == 1
    text = hansa_cli("show", "far-7", "--on")
    assert "far-7: running, one site is missing" in text
    assert "nobody has decided" in text and "north" in text
    facts = json.loads(hansa_cli("show", "far-7", "--on", "--json"))
    assert [site["state"] for site in facts["sites"]] == ["ready", "waiting"]
    assert facts["plan"]["rounds"] == 3
    assert "far-7 at https://hansa.test:8443: stopped" in hansa_cli("stop", "steps-1")
    told = hansa_cli("log", "far-7", "--on", "https://hansa.test:8443").splitlines()
    assert len(told) == len(server.events)
    assert told[-1].endswith("stopped: stopped by ada")
    failed = server.events[-1] | {"state": "failed", "code": "run-too-few"}
    server.events[-1] = failed | {"reason": "Too few. Wait.  [run-too-few]"}
    assert hansa_cli("log", "far-7", "--on").count("[run-too-few]") == 1
    server.events[-1] = failed | {"reason": "Too few."}
    assert hansa_cli("log", "far-7", "--on").rstrip().endswith("failed: Too few. [run-too-few]")
    server.events[-1] = {**failed, "state": "stopped", "reason": "stopped by ada", "code": ""}
    assert hansa_cli("log", "--follow").splitlines() == told
    server.events.insert(-1, {"kind": "timed", "at": "2026-11-22T12:00:00+00:00", "spans": []})
    assert hansa_cli("log", "far-7", "--on").splitlines() == told
    lines = hansa_cli("log", "far-7", "--on", "--json").splitlines()
    assert [json.loads(line) for line in lines] == server.events


def test_log_tells_a_simulation_too(hansa_cli: Any, home: Path) -> None:
    make_project(home / "study", rounds=2)
    hansa_cli("run", "study")
    text = hansa_cli("log")
    assert "the seed model is blake3:" in text and "round 2: committed, 5 of 5 clients" in text
    assert text.rstrip().endswith("finished: all 2 rounds are done")
    find_run(Path("runs"), None).log.append("baseline", name="best alone", metric="loss", value=0.5)
    assert hansa_cli("log").rstrip().endswith("best alone, alone: loss 0.5")
    text = hansa_cli("log", "--follow", status=1)
    assert "was simulated here" in text and "[run-not-found]" in text


@pytest.mark.parametrize(
    "words",
    [
        ("run", "study", "--on", "--engine", "inline"),
        ("run", "study", "--on", "--workers", "2"),
        ("run", "study", "--clients", "3", "--on"),
        ("run", "study", "--purpose", "beds"),
        ("run", "study", "--detach"),
        ("run", "--resume", "steps-1", "--on"),
        ("run", "--resume", "steps-1", "--from", "steps-1:1"),
        ("run", "study", "--on", ""),
        ("run", "study", "--on="),
        ("ls", "--on", " "),
        ("show", "--on"),
        ("log", "--on"),
        ("stop",),
        ("join",),
    ],
    ids=" ".join,
)
def test_words_that_do_not_belong_together_are_refused(
    hansa_cli: Any, server: StandIn, words: tuple[str, ...]
) -> None:
    text = hansa_cli(*words, status=2)
    assert "[usage]" in text
    assert not server.asked


@pytest.mark.parametrize(
    "words",
    [
        ("run", "study", "--on"),
        ("run", "study", "--on", "other.test"),
        ("ls", "--on", "https://other.test:1"),
        ("stop", "far-7", "--on", "other.test"),
        ("log", "far-7", "--on", "other.test:9"),
    ],
    ids=" ".join,
)
def test_who_is_no_member_is_told_how_to_become_one(
    hansa_cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    make_project(home / "study")
    monkeypatch.setenv("HANSA_HOME", str(home / "nothing"))
    text = hansa_cli(*words, status=1)
    assert "[identity-membership]" in text and "hansa join INVITE" in text


def test_a_run_that_the_server_does_not_know_and_a_server_that_is_away(
    hansa_cli: Any, server: StandIn
) -> None:
    assert "[run-not-found]" in hansa_cli("show", "no/such", "--on", status=1)
    assert server.asked[-1] == "GET /v1/runs/no%2Fsuch"
    server.trouble = [unreachable()]
    assert "[server-unreachable]" in hansa_cli("ls", "--on", status=1)


def test_a_run_that_is_not_handed_over_has_no_name_at_the_server(
    hansa_cli: Any, server: StandIn
) -> None:
    def away(path: str) -> None:
        raise ConnectionError

    server.before_answer = away
    hansa_cli("run", "study", "--on", status=1)
    text = hansa_cli("show", "steps-1")
    assert "not handed over" in text and "None" not in text and "none yet" in text
    assert "Nothing has happened in steps-1 yet" in hansa_cli("log", "steps-1")
    assert "None" not in hansa_cli("predict", "steps-1", status=1)


def test_a_damaged_invitation_is_told(hansa_cli: Any, home: Path) -> None:
    assert "[invite-malformed]" in hansa_cli("join", "https://hansa.test:8443", status=1)


def test_join_says_who_one_is_and_keeps_it(
    hansa_cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hansa.identity import Invite

    role = "submitter"

    def enrol(invite: Invite, folder: Path, *, kind: str) -> Membership:
        assert kind == "person"
        return Membership(folder, invite.url, "ada", role, "PEM", "", "test league")

    monkeypatch.setattr("hansa.protocol.enrolment.enrol", enrol)
    line = Invite("https://hansa.test:8443", "a" * 22, "0" * 32).line()
    text = hansa_cli("join", f'hansa join "{line}"')
    assert "You are ada, submitter of test league" in text
    assert "hansa ls --on hansa.test:8443 · hansa run --on hansa.test:8443" in text
    role = "viewer"
    text = hansa_cli("join", line)
    assert "hansa ls --on hansa.test:8443" in text and "hansa run" not in text
    role = "submitter"
    assert json.loads(hansa_cli("join", line, "--json"))["role"] == "submitter"
