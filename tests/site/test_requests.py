"""Requests and the owner's word: what is approved is what runs, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from sample_site import CODE, Sample, ask, make_offer, make_site

import hansa.site.requests
from hansa.errors import IdentityError, PackageError, PlanError, SiteError
from hansa.packages import build_archive
from hansa.protocol.messages import BlobRef
from hansa.site.decision import decision_on, submitter_key
from hansa.site.ledger import Ledger
from hansa.site.requests import (
    approve,
    deny,
    find_request,
    list_requests,
    note_end,
    read_approvals,
    request_folder,
    save_request,
    told,
    wanted_runs,
    word_on,
)
from hansa.site.settings import load_settings


@pytest.fixture
def site(tmp_path: Path) -> Sample:
    return make_site(tmp_path / "north", '[data.cohort]\npath = "c.csv"\n[policy]\n')


def test_a_request_is_kept_with_its_code(site: Sample) -> None:
    request = ask(site)
    assert {p.name: p.read_bytes() for p in request.code.rglob("*")} == CODE
    assert list_requests(site.folder) == [request]
    assert request.offer.submitter == "anna"
    assert request.runs == ["study-1"]


def test_a_second_run_of_the_same_identity_is_the_same_request(site: Sample) -> None:
    first, again, second = ask(site), ask(site), ask(site, run="study-2")
    assert first.identity == second.identity
    assert again.offers == first.offers
    assert second.runs == ["study-1", "study-2"]
    assert len(list_requests(site.folder)) == 1


def test_a_request_is_wanted_until_its_last_run_is_over(site: Sample) -> None:
    ask(site)
    ask(site, run="study-2")
    note_end(site.folder, "study-1")
    assert list_requests(site.folder)[0].wanted == wanted_runs(site.folder) == ["study-2"]
    note_end(site.folder, "study-2")
    note_end(site.folder, "study-9")
    (request,) = list_requests(site.folder)
    assert (request.runs, request.wanted) == (["study-1", "study-2"], [])
    again = ask(site, run="study-2")  # as a server that was restored from a backup does
    assert again.wanted == ["study-2"]
    assert [r.at for r in again.offers] == [r.at for r in request.offers]


def test_other_code_or_another_plan_is_another_request(site: Sample) -> None:
    ask(site)
    ask(site, {"model.py": CODE["model.py"] + b"#"}, run="study-2")
    ask(site, run="study-3", rounds=4)
    assert len({r.identity for r in list_requests(site.folder)}) == 3


def test_code_that_was_edited_at_the_site_is_put_right_before_it_runs(site: Sample) -> None:
    request = ask(site)
    (request.code / "model.py").write_bytes(b"evil = 1")
    (request.code / "more.py").write_bytes(b"evil = 1")
    ask(site)
    assert {p.name: p.read_bytes() for p in request.code.rglob("*")} == CODE


@pytest.mark.parametrize("lie", ["archive", "identity", "plan", "code", "hidden", "data"])
def test_an_offer_that_lies_about_what_it_is_leaves_nothing(site: Sample, lie: str) -> None:
    from blake3 import blake3

    offer, archive = make_offer(site)
    match lie:
        case "archive":
            archive = build_archive({"model.py": b"other = 1"})
        case "identity":
            offer = msgspec.structs.replace(offer, identity=f"blake3:{'0' * 64}")
        case "plan":
            offer = msgspec.structs.replace(offer, plan={**offer.plan, "rounds": 99})
        case "code" | "hidden" | "data":
            name = {"code": "more.py", "hidden": ".secret/more.py", "data": "more.txt"}[lie]
            archive = build_archive({**CODE, name: b"evil = 1"})
            digest = f"blake3:{blake3(archive).hexdigest()}"
            offer = msgspec.structs.replace(
                offer, package=BlobRef(digest=digest, size=len(archive))
            )
    with pytest.raises(PackageError, match="package-identity"):
        save_request(site.folder, offer, archive)
    assert list_requests(site.folder) == []
    assert not list(site.folder.rglob("*.py"))


def test_a_file_that_the_code_does_not_count_is_refused_though_it_is_in_the_identity(
    site: Sample,
) -> None:
    """`runs/` and hidden folders are no part of a project's code, so nobody may hide there."""
    with pytest.raises(PackageError, match="package-identity"):
        ask(site, {**CODE, "runs/evil.py": b"x = 1"})
    assert list_requests(site.folder) == []
    assert not list(site.folder.rglob("*.py"))


def test_a_plan_of_another_release_is_refused(site: Sample) -> None:
    offer, archive = make_offer(site)
    offer = msgspec.structs.replace(offer, plan={**offer.plan, "magic": 1})
    with pytest.raises(PlanError, match="magic"):
        save_request(site.folder, offer, archive)


def test_a_site_keeps_a_bounded_number(site: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hansa.site.requests.REQUESTS_MAX", 2)
    ask(site)
    ask(site, run="study-2")
    with pytest.raises(SiteError, match="site-request"):
        ask(site, run="study-3")
    ask(site, rounds=5)
    with pytest.raises(SiteError, match="site-request"):
        ask(site, rounds=6)


def test_a_request_is_found_by_its_start_or_by_a_run(site: Sample) -> None:
    request = ask(site)
    for word in (request.identity, request.short, request.identity[7:8], "study-1"):
        assert find_request(site.folder, word) == request
    for word in ("", "blake3:", "zz", "../..", "study-9"):
        with pytest.raises(SiteError, match="site-request"):
            find_request(site.folder, word)


def test_a_start_of_several_is_refused(site: Sample) -> None:
    starts: dict[str, int] = {}
    for rounds in range(1, 18):  # there are 16 first digits
        first = ask(site, rounds=rounds, run=f"study-{rounds}").identity[7]
        starts[first] = starts.get(first, 0) + 1
    twice = next(first for first, count in starts.items() if count > 1)
    with pytest.raises(SiteError, match="could be"):
        find_request(site.folder, twice)


def test_a_damaged_request_is_told(site: Sample) -> None:
    request = ask(site)
    next((request.folder / "offers").iterdir()).write_text("{}")
    with pytest.raises(SiteError, match="site-damaged"):
        list_requests(site.folder)


# ---------------------------------------------------------------- the owner's word


def test_words_are_kept_in_order(site: Sample) -> None:
    a, b = f"blake3:{'a' * 64}", f"blake3:{'b' * 64}"
    approve(site.folder, a, until=86_400.0, max_rounds=5, by="kim")
    deny(site.folder, b, reason="No.", by="kim")
    deny(site.folder, a, by="lee")
    words = read_approvals(site.folder)
    assert [(w.identity, w.verdict, w.by) for w in words] == [
        (a, "approved", "kim"),
        (b, "denied", "kim"),
        (a, "denied", "lee"),
    ]
    assert word_on(words, a) == words[2]
    assert told(words[0]) == "approved by kim, until 1970-01-02T00:00:00+00:00, for 5 rounds"
    assert told(words[1]) == "denied by kim: No."


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"approved","at":"x"}\n',
        b'{"kind":"maybe","at":"x","identity":"blake3:%s","by":"x"}\n' % (b"a" * 64),
        b'{"kind":"approved","at":"x","identity":"*","by":"x"}\n',
        b"garbage\n{}\n",
    ],
)
def test_a_record_that_cannot_be_trusted_approves_nothing(site: Sample, line: bytes) -> None:
    approve(site.folder, f"blake3:{'a' * 64}", until=None, max_rounds=None, by="kim")
    path = site.folder / "approvals.jsonl"
    path.write_bytes(line + path.read_bytes())
    with pytest.raises(SiteError, match="site-damaged"):
        read_approvals(site.folder)
    before = path.read_bytes()
    with pytest.raises(SiteError, match="site-damaged"):
        deny(site.folder, f"blake3:{'a' * 64}", by="kim")
    assert path.read_bytes() == before


def test_a_torn_approval_never_happened(site: Sample) -> None:
    path = site.folder / "approvals.jsonl"
    approve(site.folder, f"blake3:{'a' * 64}", until=None, max_rounds=None, by="kim")
    path.write_bytes(path.read_bytes()[:-5])
    assert read_approvals(site.folder) == []


# ---------------------------------------------------------------- the decision of a folder


def state(site: Sample, request: object = None, at: float = 0.0) -> str:
    found = list_requests(site.folder)[-1]
    return decision_on(site.folder, found, load_settings(site.folder), at=at).state


def test_a_request_waits_until_it_is_approved(site: Sample) -> None:
    request = ask(site)
    assert state(site) == "ask"
    approve(site.folder, request.identity, until=100.0, max_rounds=None, by="kim")
    assert (state(site, at=99.0), state(site, at=100.0)) == ("run", "ask")
    deny(site.folder, request.identity, by="kim")
    assert state(site, at=99.0) == "refuse"


def test_rounds_of_all_runs_of_an_identity_count(site: Sample) -> None:
    request = ask(site)
    ask(site, run="study-2")
    ledger = Ledger(site.folder / "ledger.jsonl")
    approve(site.folder, request.identity, until=None, max_rounds=3, by="kim")
    for run, number in [("study-1", 1), ("study-1", 2), ("other-1", 3)]:
        ledger.sent("update", run=run, round=number, digest="x", size=1)
    assert state(site) == "run"
    ledger.sent("update", run="study-2", round=1, digest="x", size=1)
    assert state(site) == "ask"


def test_one_submitter_cannot_take_the_places_of_all_others(
    site: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hansa.site.requests, "REQUESTS_OF_SUBMITTER_MAX", 2)
    for seed in (1, 2):
        ask(site, seed=seed)
    with pytest.raises(SiteError, match="plans of anna") as caught:
        ask(site, seed=3)
    assert caught.value.code == "site-request"
    ask(site, seed=3, submitter="bob")
    ask(site, seed=1)  # what is here already takes no place
    assert len(list_requests(site.folder)) == 3


def test_the_key_of_the_signature_is_the_submitters(site: Sample) -> None:
    offer, _ = make_offer(site)
    assert submitter_key(offer, site.authority.pem) == site.anna.fingerprint


@pytest.mark.parametrize("lie", ["signature", "identity", "package", "name", "role", "certificate"])
def test_an_offer_that_nobody_signed_is_refused(site: Sample, lie: str) -> None:
    offer, _ = make_offer(site, role="viewer" if lie == "role" else "submitter")
    changes = {
        "signature": {"signature": offer.signature[::-1]},
        "identity": {"identity": f"blake3:{'0' * 64}"},
        "package": {"package": BlobRef(digest=f"blake3:{'0' * 64}", size=1)},
        "name": {"submitter": "ben"},
        "role": {},
        "certificate": {"certificate": "nothing"},
    }
    wrong = msgspec.structs.replace(offer, **changes[lie])
    with pytest.raises(IdentityError):
        submitter_key(wrong, site.authority.pem)


def test_an_unsigned_request_is_refused_though_its_identity_is_approved(site: Sample) -> None:
    request = ask(site)
    approve(site.folder, request.identity, until=None, max_rounds=None, by="kim")
    assert state(site) == "run"
    path = next((request.folder / "offers").iterdir())
    facts = json.loads(path.read_text())
    facts["offer"]["submitter"] = "ben"
    path.write_text(json.dumps(facts))
    assert state(site) == "refuse"


def test_the_folder_of_a_request_is_below_the_site(site: Sample) -> None:
    assert request_folder(site.folder, f"blake3:{'a' * 64}").parent == site.folder / "requests"
