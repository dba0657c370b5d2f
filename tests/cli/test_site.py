"""`hansa site`: what a data owner types, from the invitation to the kill switch."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_site import CODE, Sample, ask, make_site

from hansa.cli import main
from hansa.cli.site import VERBS
from hansa.errors import RequestRefused
from hansa.identity import Invite, Membership, new_token, sign_receipt
from hansa.protocol.messages import Receipt
from hansa.site.ledger import Ledger
from hansa.site.presence import present, remember_end
from hansa.site.requests import note_end
from hansa.site.settings import load_settings

POLICY = '[data.cohort]\npath = "cohort.csv"\ntarget = "y"\n[policy]\n'


class Typed(tuple[int, str, str]):
    """Status, standard output, standard error."""

    status = property(lambda self: self[0])
    out = property(lambda self: self[1])
    err = property(lambda self: self[2])


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Type `hansa site ...`."""

    def run(*words: str) -> Typed:
        with pytest.raises(SystemExit) as end:
            main(["site", *words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Typed((int(end.value.code or 0), captured.out, captured.err))

    return run


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    sample = make_site(home / "north", POLICY)
    (sample.folder / "cohort.csv").write_text("a,b,y\n1,2,sick\n3,4,well\n5,6,sick\n")
    monkeypatch.chdir(sample.folder)
    return sample


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help_with_an_example(typed: Any, home: Path, verb: str) -> None:
    inner = {"data": ["add", "ls"], "policy": ["show", "edit"]}.get(verb, [None])
    for name in inner:
        found = typed(verb, *([name] if name else []), "--help")
        assert found.status == 0
        assert f"hansa site {verb}" in found.out.partition("Example")[2]


# ---------------------------------------------------------------- joining


@pytest.fixture
def invite(home: Path, monkeypatch: pytest.MonkeyPatch) -> Invite:
    """An invitation, and a server that redeems it without a network."""
    sample = make_site(home / "elsewhere")

    def enrol(asked: Invite, folder: Path, *, kind: str) -> Membership:
        assert kind == "site"
        from hansa.identity import new_key, save_key, save_membership

        folder.mkdir()
        save_key(folder / "key.pem", key := new_key())
        made = Membership(folder, asked.url, "ward-3", "site", sample.authority.pem, "k", "Sample")
        save_membership(made, sample.authority.issue_member("ward-3", "site", key.public))
        return made

    monkeypatch.setattr("hansa.protocol.enrolment.enrol", enrol)
    return Invite("https://hansa.test:443", new_token(), sample.authority.fingerprint)


def test_joining_makes_a_folder_in_which_nothing_runs(typed: Any, invite: Invite) -> None:
    found = typed("join", invite.line(), "--folder", "ward-3", "--yes")
    assert found.status == 0
    assert "https://hansa.test:443" in found.out
    assert invite.fingerprint in found.out.replace(" ", "")
    assert invite.token not in found.out
    assert "Nothing runs here yet" in found.out
    settings = load_settings(Path("ward-3"))
    assert (settings.name, settings.policy, settings.data) == ("ward-3", None, {})


def test_the_whole_line_that_the_operator_sent_may_be_pasted(typed: Any, invite: Invite) -> None:
    line = f" hansa site join '{invite.line()}'\n"
    assert typed("join", line, "--folder", "ward-3", "--yes").status == 0


def test_the_commented_policy_can_be_used_as_it_stands(typed: Any, invite: Invite) -> None:
    typed("join", invite.line(), "--folder", "ward-3", "--yes")
    path = Path("ward-3/site.toml")
    lines = path.read_text().splitlines()
    start = lines.index("# [policy]")
    used = [*lines[:start], *(line.removeprefix("# ") for line in lines[start:])]
    path.write_text("\n".join([*used, "[data.cohort]", 'path = "x"']))
    policy = load_settings(Path("ward-3")).policy
    assert policy is not None
    assert (policy.approve, policy.sandbox, policy.submitters) == ("ask", "required", ("anna",))


def test_whoever_does_not_confirm_the_fingerprint_does_not_join(
    typed: Any, invite: Invite, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    found = typed("join", invite.line(), "--folder", "ward-3")
    assert found.status == 1
    assert "Not joined. Nothing was sent; call the operator." in found.err
    assert not Path("ward-3").exists()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    nobody = typed("join", invite.line(), "--folder", "ward-3")
    assert nobody.status == 2 and "nobody here to answer" in nobody.err and "--yes" in nobody.err
    assert not Path("ward-3").exists()


def test_a_join_that_was_killed_before_its_settings_goes_on_with_the_same_command(
    typed: Any, invite: Invite
) -> None:
    typed("join", invite.line(), "--folder", "ward-3", "--yes")
    before = Path("ward-3/site.toml").read_bytes()
    Path("ward-3/site.toml").unlink()
    found = typed("join", invite.line(), "--folder", "ward-3", "--yes")
    assert found.status == 0, found.err
    assert "had joined https://hansa.test:443 before" in found.out
    assert "hansa site start --folder ward-3" in found.out
    assert Path("ward-3/site.toml").read_bytes() == before


def test_a_folder_is_one_site_only(typed: Any, invite: Invite) -> None:
    typed("join", invite.line(), "--folder", "ward-3", "--yes")
    before = Path("ward-3/site.toml").read_bytes()
    found = typed("join", invite.line(), "--folder", "ward-3", "--yes")
    assert (found.status, "[site-exists]" in found.err) == (1, True)
    assert Path("ward-3/site.toml").read_bytes() == before


def test_a_line_that_is_no_invitation_is_refused(typed: Any, home: Path) -> None:
    found = typed("join", "https://hansa.test", "--yes")
    assert (found.status, "[invite-malformed]" in found.err) == (1, True)
    assert list(home.iterdir()) == []


# ---------------------------------------------------------------- data and policy


def test_data_is_declared_looked_at_and_not_shown(typed: Any, site: Sample) -> None:
    before = (site.folder / "site.toml").read_text()
    (site.folder / "more.csv").write_text("a,y\n7.25,1\n8.5,0\n")
    found = typed("data", "add", "more.csv", "--as", "more", "--target", "y")
    assert found.status == 0
    assert "7.25" not in found.out
    text = (site.folder / "site.toml").read_text()
    assert text.startswith(before.rstrip("\n"))
    source = load_settings(site.folder).data["more"]
    assert (source.path, source.target) == ("more.csv", "y")
    listed = typed("data", "ls", "--json")
    rows = {row["name"]: row for row in json.loads(listed.out)}
    assert (rows["cohort"]["rows"], rows["cohort"]["classes"]) == (3, 2)
    assert rows["more"]["rows"] == 2
    assert rows["more"]["hash"] != rows["cohort"]["hash"]


def test_the_hash_of_data_is_that_of_its_values(typed: Any, site: Sample) -> None:
    def hashed() -> str:
        return str(json.loads(typed("data", "ls", "--json").out)[0]["hash"])

    first = hashed()
    assert hashed() == first
    (site.folder / "cohort.csv").write_text("a,b,y\n1,2,sick\n3,4,well\n5,7,sick\n")
    assert hashed() != first


def test_a_clients_folder_of_a_split_is_counted_by_its_parts(
    typed: Any, site: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["split", "digits", "--clients", "2", "-o", "parts", "--validation", "0.1"])
    capsys.readouterr()
    found = typed("data", "add", "parts/client-0", "--as", "mine", "--json")
    facts = json.loads(found.out)
    assert facts["rows"] + facts["valid"] in (898, 899)
    assert (facts["classes"], facts["x"]) == (10, "float32 [64]")
    refused = typed("data", "add", "parts", "--as", "both").err
    assert "[data-missing]" in refused and "own code reads, add: --unread" in refused


def test_a_path_outside_of_the_folder_is_kept_whole(typed: Any, site: Sample) -> None:
    outside = site.folder.parent / "far.csv"
    outside.write_text("a,y\n1,1\n")
    typed("data", "add", "../far.csv", "--as", "far", "--target", "y")
    assert load_settings(site.folder).data["far"].path == str(outside.resolve())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nothing.csv", "--as", "x"), "data-missing"),
        (("cohort.csv", "--as", "x", "--target", "z"), "data-no-column"),
        (("cohort.csv", "--as", "cohort", "--target", "y"), "site-settings"),
        (("cohort.csv", "--as", "a b", "--target", "y"), "site-settings"),
    ],
)
def test_data_that_cannot_be_read_is_not_declared(
    typed: Any, site: Sample, words: tuple[str, ...], code: str
) -> None:
    before = (site.folder / "site.toml").read_bytes()
    found = typed("data", "add", *words)
    assert (found.status, f"[{code}]" in found.err) == (1, True), found.err
    assert (site.folder / "site.toml").read_bytes() == before


def test_text_labels_are_declared_only_with_the_names_of_all_classes(
    typed: Any, site: Sample
) -> None:
    before = (site.folder / "site.toml").read_bytes()
    words = ("data", "add", "cohort.csv", "--as", "beds", "--target", "y")
    found = typed(*words)
    assert (found.status, "[data-labels]" in found.err) == (1, True)
    assert "--classes" in found.err and "nothing was declared" in found.err
    assert (site.folder / "site.toml").read_bytes() == before
    found = typed(*words, "--classes", "well, sick,dead", "--json")
    assert (found.status, json.loads(found.out)["classes"]) == (0, 3)
    assert load_settings(site.folder).data["beds"].classes == ("well", "sick", "dead")
    wrong = typed("data", "add", "cohort.csv", "--as", "c", "--target", "y", "--classes", "well")
    assert wrong.status == 1 and "sick" in wrong.err
    listed = {row["name"]: row for row in json.loads(typed("data", "ls", "--json").out)}
    assert listed["beds"]["classes"] == 3


def test_data_that_hansa_does_not_read_are_declared_as_such(typed: Any, site: Sample) -> None:
    (site.folder / "scans").mkdir()
    (site.folder / "scans" / "a.dcm").write_bytes(b"DICM")
    found = typed("data", "add", "scans", "--as", "scans")
    assert found.status == 1 and "add: --unread" in found.err
    found = typed("data", "add", "scans", "--as", "scans", "--unread")
    assert found.status == 0 and "a folder that a run's own code reads" in found.out
    assert load_settings(site.folder).data["scans"].path == "scans"
    listed = typed("data", "ls")
    assert "scans" in listed.out and "scans" not in listed.err
    assert typed("data", "add", "none", "--as", "none", "--unread").status == 1
    assert typed("data", "add", "scans", "--as", "b", "--unread", "--target", "y").status == 2


def test_data_that_is_gone_is_told_beside_the_rest(typed: Any, site: Sample) -> None:
    (site.folder / "cohort.csv").unlink()
    found = typed("data", "ls")
    assert found.status == 1
    assert "cohort" in found.err and "cohort.csv" in found.err


def test_data_that_is_gone_is_told_to_who_decides(typed: Any, site: Sample) -> None:
    """Said before, but only once a run could not begin, and then to nobody here."""
    request, gone = ask(site), f"there is nothing at {site.folder / 'cohort.csv'}"
    assert gone not in typed("review", request.short).out
    assert gone not in typed("approve", request.short).out
    (site.folder / "cohort.csv").unlink()
    assert gone in typed("review", request.short).out
    found = typed("approve", request.short)
    assert (found.status, gone in found.out) == (0, True)


def test_all_of_a_policy_is_shown(typed: Any, site: Sample) -> None:
    from hansa.site.policy import Policy

    policy = '[policy]\ntasks = ["count"]\nfilters = [{ name = "clip", norm = 1.5 }]\n'
    (site.folder / "site.toml").write_text(f'name = "north"\n{policy}', encoding="utf-8")
    shown = typed("policy", "show").out
    assert "clip (norm = 1.5)" in shown and "count" in shown
    named = {line.split()[0] for line in shown.splitlines()}
    assert set(Policy.__struct_fields__) <= named


def test_a_policy_is_shown_with_its_defaults(typed: Any, site: Sample) -> None:
    found = typed("policy", "show")
    assert "you approve each plan by hand" in found.out
    assert "required" in found.out
    (site.folder / "site.toml").write_text('name = "north"\n')
    assert "nothing runs" in typed("policy", "show").out
    assert json.loads(typed("policy", "show", "--json").out) is None


@pytest.fixture
def editor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An editor that leaves a given text."""

    def leave(text: str) -> None:
        code = f"import sys; open(sys.argv[1], 'w').write({text!r})"
        path = Path.cwd().parent / "editor.py"
        path.write_text(code)
        monkeypatch.setenv("VISUAL", f"{sys.executable} {path}")

    return leave


def test_an_edit_is_kept_if_it_can_be_used(typed: Any, site: Sample, editor: Any) -> None:
    editor('name = "north"\n[policy]\nmax_rounds = 7\n')
    assert typed("policy", "edit").status == 0
    policy = load_settings(site.folder).policy
    assert policy is not None and policy.max_rounds == 7


def test_an_edit_with_a_mistake_leaves_the_old_file(typed: Any, site: Sample, editor: Any) -> None:
    before = (site.folder / "site.toml").read_bytes()
    editor('name = "north"\n[policy]\nmax_round = 7\n')
    found = typed("policy", "edit")
    assert (found.status, "[site-settings]" in found.err) == (1, True)
    assert "'max_rounds'" in found.err
    assert "Nothing was changed" in found.err and "Nothing runs" not in found.err
    assert "site.toml.rejected" in found.err
    assert "max_round = 7" in (site.folder / "site.toml.rejected").read_text()
    assert (site.folder / "site.toml").read_bytes() == before


def test_an_editor_that_is_not_here_is_told(
    typed: Any, site: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "no-such-editor")
    found = typed("policy", "edit")
    assert (found.status, "[site-settings]" in found.err) == (1, True)
    assert "no-such-editor" in found.err and "Let EDITOR name one" in found.err


def test_a_name_that_is_none_is_told_in_words(typed: Any, site: Sample) -> None:
    (site.folder / "more.csv").write_text("a,y\n7,1\n8,0\n")
    found = typed("data", "add", "more.csv", "--as", "two words", "--target", "y")
    assert "has up to 64 letters" in found.err and "regex" not in found.err


def test_an_edit_with_a_mistake_is_opened_again_as_it_was_left(
    typed: Any, site: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    code = (
        "import sys; p = sys.argv[1]; t = open(p).read(); "
        "new = t.replace('max_round ', 'max_rounds ') if 'max_round ' in t "
        "else t + 'max_round = 9\\n'; open(p, 'w').write(new)"
    )
    path = site.folder.parent / "editor.py"
    path.write_text(code)
    monkeypatch.setenv("VISUAL", f"{sys.executable} {path}")
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    found = typed("policy", "edit")
    assert found.status == 0, found.err
    assert "'max_rounds'" in found.err and "Edit it again?" in found.err
    policy = load_settings(site.folder).policy
    assert policy is not None and policy.max_rounds == 9


# ---------------------------------------------------------------- deciding


def test_from_a_request_to_an_approval_and_back(typed: Any, site: Sample) -> None:
    assert "No plan has asked" in typed("requests").out
    request = ask(site)
    found = typed("requests")
    assert request.short in found.out and "waits" in found.out
    before = typed("review", request.short).out
    assert "--max-rounds 3" in before and "fewer rounds" not in before
    less = typed("approve", request.short[:4], "--max-rounds", "1").out
    seen = typed("review", request.short).out
    assert "You approved fewer rounds than it has. The plan has 3 rounds: after 1" in seen
    assert "has approved it for 1 round, 0 of them done or begun." in seen
    assert "for 1 round." in less and "after 1 this site takes no part until you approve" in less
    assert typed("approve", request.short[:4], "--until", "2999-01-01").status == 0
    (row,) = json.loads(typed("requests", "--json").out)
    assert (row["state"], row["submitter"], row["rounds"]) == ("runs", "anna", 3)
    denied = typed("deny", request.short, "--reason", "We stop\nhere.")
    assert "We stop here." in denied.out
    (row,) = json.loads(typed("requests", "--json").out)
    assert (row["state"], "We stop here." in row["reason"]) == ("refused", True)


def test_a_plan_whose_runs_have_ended_waits_for_nobody(typed: Any, site: Sample) -> None:
    over, waiting = ask(site), ask(site, run="study-2", rounds=4)
    assert json.loads(typed("status", "--json").out)["waiting"] == 2
    note_end(site.folder, "study-1")
    states = {row["id"]: row["state"] for row in json.loads(typed("requests", "--json").out)}
    assert states == {over.short: "over", waiting.short: "waits"}
    assert json.loads(typed("status", "--json").out)["waiting"] == 1
    assert f"hansa site review {waiting.short}" in typed("requests").out
    assert "Another run of it would ask again" in typed("review", over.short).out
    assert "holds for the next one" in typed("approve", over.short).out
    assert "Another run of it would begin" in typed("review", over.short).out
    note_end(site.folder, "study-2")
    assert "hansa site review" not in typed("requests").out
    assert "none" in typed("status").out


def test_an_approved_plan_that_could_not_be_begun_says_why(typed: Any, site: Sample) -> None:
    request = ask(site)
    ledger = Ledger(site.folder / "ledger.jsonl")

    def reported(detail: str) -> dict[str, Any]:
        ledger.sent("standing", size=9, run=request.offer.run, detail=detail)
        (row,) = json.loads(typed("requests", "--json").out)
        return dict(row)

    assert reported("refused: The site cannot take part: no sandbox.")["state"] == "waits"
    typed("approve", request.short)
    row = reported("refused: The site cannot take part: no sandbox.")
    assert row["state"] == "cannot run"
    assert row["reason"].endswith("has approved it. Cannot run: no sandbox.")
    assert reported("ready, 3 examples")["state"] == "runs"
    ledger.close()


def test_an_approval_that_the_policy_overrules_says_so(typed: Any, site: Sample) -> None:
    request = ask(site)
    with (site.folder / "site.toml").open("a") as file:
        file.write("max_rounds = 2\n")
    found = typed("approve", request.short)
    assert found.status == 0
    assert "does not run all the same" in found.out


@pytest.mark.parametrize("until", ["tomorrow", "2020-01-01", "2027-13-01", ""])
def test_an_approval_needs_a_date_that_is_one_and_is_to_come(
    typed: Any, site: Sample, until: str
) -> None:
    request = ask(site)
    found = typed("approve", request.short, "--until", until)
    assert (found.status, "--until" in found.err) == (2, True)
    assert not (site.folder / "approvals.jsonl").exists()


def test_a_review_shows_code_imports_data_and_what_leaves(typed: Any, site: Sample) -> None:
    request = ask(site)
    found = typed("review", request.short[:6])
    for words in (
        request.identity,
        "+import numpy as np",
        "numpy",
        "the data named 'cohort'",
        "vector delta, float32: 650 numbers, 2.6 kB",
        "Find out whether it works.",
    ):
        assert words in found.out, words
    typed("approve", request.short)
    changed = ask(site, {"model.py": CODE["model.py"].replace(b"{}", b"None")}, run="study-2")
    found = typed("review", changed.short)
    assert "-    return {}" in found.out and "+    return None" in found.out
    assert "+import numpy as np" not in found.out
    plain = json.loads(typed("review", changed.short, "--json").out)
    assert (plain["previous"], plain["state"]) == (request.identity, "ask")


def test_a_request_cannot_write_to_the_owners_terminal(typed: Any, site: Sample) -> None:
    request = ask(site, {"model.py": b"# \x1b]0;owned\x07\x1b[2J\n"}, name="study")
    for words in (("requests",), ("review", request.short)):
        assert "\x1b]" not in typed(*words).out
        assert "\x1b[2J" not in typed(*words).out


# ---------------------------------------------------------------- the ledger


@pytest.fixture
def sent(site: Sample) -> Sample:
    ledger = Ledger(site.folder / "ledger.jsonl")
    seq = ledger.sent(
        "update", run="study-1", round=1, digest=f"blake3:{'d' * 64}", size=2600,
        tensors=[("delta", "F32", [650])],
    )  # fmt: skip
    ledger.confirmed(seq, signed(site))
    ledger.sent("failure", run="study-1", round=2, size=90, detail="=cmd()|loss went to NaN")
    ledger.control(400, 4)
    ledger.close()
    return site


def signed(site: Sample, digest: str = f"blake3:{'d' * 64}", **facts: Any) -> Receipt:
    given: dict[str, Any] = {
        "run": "study-1", "round": 1, "phase": "train", "client": "north", "digest": digest,
        "size": 2600, "at": "2026-01-01", **facts,
    }  # fmt: skip
    return Receipt(**given, signature=sign_receipt(site.receipts, *given.values()))


def test_an_empty_ledger_says_so(typed: Any, site: Sample) -> None:
    assert "Nothing has left this site yet." in typed("ledger").out


def test_the_ledger_lists_what_left_and_sums_it_up(typed: Any, sent: Sample) -> None:
    text = typed("ledger").out
    assert "delta F32[650]" in text and "2.6 kB" in text and "dddddddddddd" in text
    assert "In all 3.1 kB: 1 update (2.6 kB), 1 failure (90 B), 1 control (400 B)" in text
    rows = json.loads(typed("ledger", "--json").out)["entries"]
    assert [(r["what"], r["size"], r["receipt"]) for r in rows] == [
        ("update", 2600, True), ("failure", 90, False), ("control", 400, False),
    ]  # fmt: skip


def test_the_ledger_as_a_table_holds_no_formula(typed: Any, sent: Sample) -> None:
    assert typed("ledger", "--csv", "left.csv").status == 0
    with open("left.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert rows[0]["tensors"] == "delta F32[650]"
    assert rows[1]["detail"].startswith("'=cmd")


def test_a_ledger_that_was_changed_is_told_with_its_line(typed: Any, sent: Sample) -> None:
    path = sent.folder / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"size":90', b'"size":91'))
    found = typed("ledger")
    assert (found.status, "[site-damaged]" in found.err) == (1, True)
    assert "line 3" in found.err


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("same", None),
        ("empty", "the server does not know it"),
        ("more", "does not know that it left"),
        ("forged", "not signed by the server"),
        ("another's", "is for south"),
        ("larger", "2,601 bytes"),
    ],
)
def test_verifying_compares_with_the_servers_receipts(
    typed: Any, sent: Sample, monkeypatch: pytest.MonkeyPatch, server: str, words: str | None
) -> None:
    more = signed(sent, f"blake3:{'e' * 64}", round=2)
    there = {
        "same": [signed(sent)],
        "empty": [],
        "more": [signed(sent), more],
        "forged": [Receipt(**{**_facts(signed(sent)), "at": "2027"})],
        "another's": [signed(sent, client="south")],
        "larger": [signed(sent, size=2601)],
    }[server]
    monkeypatch.setattr("hansa.site.receipts.fetch_receipts", lambda membership: there)
    found = typed("ledger", "--verify")
    if words is None:
        assert (found.status, "agree" in found.out) == (0, True)
        return
    assert found.status == 1
    assert words in found.err
    plain = typed("ledger", "--verify", "--json")
    assert plain.status == 1
    assert any(words in d["what"] for d in json.loads(plain.out)["differences"])


def test_verifying_beside_an_agent_at_work_finds_no_difference(
    typed: Any, sent: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaves while the server is asked was told as something the ledger does not know."""
    digest = f"blake3:{'e' * 64}"
    more = signed(sent, digest, round=2)

    def fetched(_: Membership) -> list[Receipt]:
        ledger = Ledger(sent.folder / "ledger.jsonl")
        seq = ledger.sent("update", size=2600, run=more.run, round=2, digest=digest)
        ledger.confirmed(seq, more)
        return [signed(sent), more]

    monkeypatch.setattr("hansa.site.receipts.fetch_receipts", fetched)
    assert typed("ledger", "--verify").status == 0
    # A receipt that came after the server had answered is none that it denies, either.
    monkeypatch.setattr("hansa.site.receipts.fetch_receipts", lambda _: [signed(sent), more])
    assert typed("ledger", "--verify").status == 0


def test_a_user_without_a_name_can_give_his_word(
    typed: Any, site: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    request = ask(site)
    monkeypatch.setattr("getpass.getuser", nobody)
    found = typed("deny", request.short)
    assert found.status == 0, found.err
    assert "gets no further task" in found.out


def _facts(receipt: Receipt) -> dict[str, Any]:
    import msgspec

    return msgspec.structs.asdict(receipt)


# ---------------------------------------------------------------- the agent

AGENT = """
import signal, subprocess, sys, threading
from pathlib import Path
from hansa.site.presence import present
end = threading.Event()
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: end.set())
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with present(Path(sys.argv[1])):
    print(child.pid, flush=True)
    end.wait(60)
    child.kill()
"""


@pytest.fixture
def agent(site: Sample, request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A process that is an agent as far as the lock goes, and a child of it."""
    kind = getattr(request, "param", "good")
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, str(site.folder), kind],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        child = int(process.stdout.readline())
        yield process.pid, child
        for pid in (process.pid, child):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    """Whether a process ends within seconds: it lets go of its lock a moment before."""
    return any(not alive(pid) or threading.Event().wait(0.02) for _ in range(500))


def test_an_agent_ends_when_it_is_told(typed: Any, site: Sample, agent: tuple[int, int]) -> None:
    assert json.loads(typed("status", "--json").out)["agent"]["pid"] == agent[0]
    found = typed("stop")
    assert (found.status, "has ended" in found.out) == (0, True)
    assert gone(agent[0])
    assert json.loads(typed("status", "--json").out)["agent"] is None


@pytest.mark.parametrize("agent", ["deaf"], indirect=True)
def test_the_kill_switch_works_on_an_agent_that_does_not_listen(
    typed: Any, site: Sample, agent: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hansa.limits.SITE_END_S", 0.3)
    found = typed("stop")
    assert (found.status, "[site-running]" in found.err) == (1, True)
    assert alive(agent[0])
    (site.folder / "site.toml").write_text("broken = = 1")  # a kill switch works all the same
    monkeypatch.setattr("hansa.limits.SITE_END_S", 20.0)
    assert typed("stop", "--now").status == 0
    assert gone(agent[0])
    assert gone(agent[1])


def test_stopping_where_nothing_runs_says_so(typed: Any, site: Sample) -> None:
    assert "No agent runs here" in typed("stop").out
    (site.folder / "agent.json").write_text(json.dumps({"pid": 1, "group": 1, "started": "x"}))
    (site.folder / "lock").touch()
    assert "No agent runs here" in typed("stop", "--now").out


def test_an_agent_that_cannot_be_named_is_not_said_to_be_gone(
    typed: Any, site: Sample, agent: tuple[int, int]
) -> None:
    (site.folder / "agent.json").write_text("{")
    for words in (("stop", "--now"), ("status",)):
        found = typed(*words)
        assert (found.status, "[site-running]" in found.err) == (1, True)
    assert alive(agent[0])


def test_two_agents_do_not_share_a_folder(
    typed: Any, site: Sample, agent: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = typed("start")
    assert (found.status, "[site-running]" in found.err) == (1, True)
    assert alive(agent[0])


def test_status_names_declared_data_that_are_gone(typed: Any, site: Sample) -> None:
    (site.folder / "cohort.csv").rename(site.folder / "moved.csv")
    (site.folder / "agent.json").write_text("{}")
    told = typed("status").out
    assert "cohort (NOT THERE: " in told
    assert "the last one was killed, or the machine went down" in told


def test_status_tells_what_waits_and_what_left(typed: Any, sent: Sample) -> None:
    ask(sent)
    text = typed("status").out
    assert "does not run" in text
    assert "1 for you" in text
    assert "3.1 kB" in text
    assert "anyone may ask; you approve each plan" in text


def test_what_to_type_next_names_the_folder_again(
    typed: Any, site: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(site)
    monkeypatch.chdir(site.folder.parent)
    listed = typed("requests", "--folder", "north").out
    assert re.search(r"hansa site review \w+ --folder north", listed)
    assert "hansa site requests --folder north" in typed("status", "--folder", "north").out
    assert "hansa site requests --folder north" in typed("deny", "zz", "--folder", "north").err
    assert "hansa site requests --folder=north" in typed("deny", "zz", "--folder=north").err


def test_an_owner_is_told_that_code_has_no_sandbox(
    typed: Any, site: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hansa.site.sandbox.trouble", lambda: "bwrap: not permitted")
    for words in (("status",), ("policy", "show")):
        text = typed(*words).out
        assert "NONE: bwrap: not permitted" in text and "nothing runs" in text
    monkeypatch.setattr("hansa.site.sandbox.trouble", lambda: None)
    for words in (("status",), ("policy", "show")):
        text = typed(*words).out
        assert "bubblewrap" in text and "NONE" not in text


def test_a_site_that_is_no_member_any_more_is_told_so(typed: Any, site: Sample) -> None:
    refusal = RequestRefused("identity-member", "north was revoked.", "Ask.", status=401)
    remember_end(site.folder, refusal)
    text = typed("status").out
    assert "it ended at" in text and "north was revoked." in text
    assert "does not know this site as a member" in text
    remember_end(site.folder, ValueError("odd"))
    text = typed("status").out
    assert "ValueError: odd" in text and "as a member" not in text
    with present(site.folder):
        pass
    assert "it ended" not in typed("status").out


def test_the_folder_is_named_by_option_or_environment(
    typed: Any, site: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.folder.parent)
    assert "[site-missing]" in typed("status").err
    assert typed("status", "--folder", "north").status == 0
    monkeypatch.setenv("HANSA_SITE", "north")
    assert typed("status").status == 0


@pytest.mark.parametrize(
    "words",
    [
        ("start",), ("status",), ("stop",), ("requests",), ("review", "7f3a"),
        ("approve", "7f3a"), ("deny", "7f3a"), ("ledger",), ("data", "ls"),
        ("data", "add", ".", "--as", "x"), ("policy", "show"), ("policy", "edit"),
    ],
)  # fmt: skip
def test_a_folder_without_a_site_is_told_by_every_command(
    typed: Any, home: Path, words: tuple[str, ...]
) -> None:
    found = typed(*words)
    assert found.status == 1
    assert "[site-missing]" in found.err
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("revew",), ("review",), ("approve",), ("approve", "7f3a", "--max-rounds", "0"),
        ("data", "add", "x.csv"), ("join",), ("ledger", "--since", "x"), ("data", "rm"),
    ],
)  # fmt: skip
def test_a_mistyped_command_names_the_help(typed: Any, site: Sample, words: Any) -> None:
    found = typed(*words)
    assert found.status == 2
    assert "--help" in found.err and "[usage]" in found.err
