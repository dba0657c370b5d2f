"""Rounds that count towards an approval for so many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from sample_site import Sample, ask, make_site

from hansa.site.ledger import Entry, Ledger, Place
from hansa.site.requests import approve
from hansa.site.taken import InHand, Rounds, Taken


def rounds_taken(
    entries: Iterable[Entry], runs: list[str], *, since: str, beside: InHand | None = None
) -> int:
    taken = Taken(runs, since=since)
    for entry in entries:
        taken.add(entry)
    return taken.rounds(beside=beside)


def test_rounds_are_counted_once_and_from_a_time_on(tmp_path: Path) -> None:
    facts = [("a", 1, "update"), ("a", 1, "metrics"), ("a", 2, "update"), ("b", 1, "metrics"),
             ("c", 1, "update"), ("a", 3, "failure"), ("a", 0, "standing")]  # fmt: skip
    entries = [
        Entry(seq=i, at=f"2026-01-0{i + 1}", kind=kind, run=run, round=number)  # type: ignore[arg-type]
        for i, (run, number, kind) in enumerate(facts)
    ]
    assert rounds_taken(entries, ["a", "b"], since="2026-01-01") == 3
    assert rounds_taken(entries, ["a", "b"], since="2026-01-02") == 3
    assert rounds_taken(entries, ["a", "b"], since="2026-01-03") == 2
    assert rounds_taken(entries, [], since="") == 0


def test_every_other_update_of_a_round_counts_though_one_of_it_may_be_finished() -> None:
    facts = [(1, "u"), (1, "u"), (1, "v"), (1, "w"), (2, "u")]
    entries = [
        Entry(seq=i, at="2026", kind="update", run="a", round=number, digest=digest)
        for i, (number, digest) in enumerate(facts)
    ]
    assert rounds_taken(entries, ["a"], since="") == 4
    assert rounds_taken(entries, ["a"], since="", beside=("a", 1)) == 3
    assert rounds_taken(entries, ["a"], since="", beside=("a", 3)) == 4


class Approved:
    """A site that has approved a plan with two runs, and the rounds of it."""

    def __init__(self, site: Sample) -> None:
        request = ask(site)
        ask(site, run="study-2")
        self.folder, self.identity, self.read = site.folder, request.identity, 0
        self.ledger = Ledger(site.folder / "ledger.jsonl")
        self.word = approve(site.folder, self.identity, until=None, max_rounds=3, by="kim")
        self.rounds = Rounds(site.folder, self.identity, self.after)

    def after(self, place: Place) -> Iterator[tuple[Entry, Place]]:
        for entry in self.ledger.after(place):
            self.read += 1
            yield entry

    def send(self, run: str, number: int) -> None:
        self.ledger.sent("update", run=run, round=number, digest=f"{run} {number}", size=1)


@pytest.fixture
def approved(tmp_path: Path) -> Approved:
    return Approved(make_site(tmp_path / "north", "[policy]\n"))


def test_rounds_of_all_runs_of_a_plan_count_since_its_last_approval(approved: Approved) -> None:
    for run, number in [("study-1", 1), ("study-1", 2), ("other-1", 3)]:
        approved.send(run, number)
    assert approved.rounds.done(approved.word) == 2
    approved.send("study-2", 1)
    assert approved.rounds.done(approved.word) == 3
    assert approved.rounds.done(approved.word, task=("study-1", 2)) == 2, "it may be finished"
    assert approved.rounds.done(approved.word, task=("study-1", 3)) == 3, "it would be a new one"
    assert Rounds(approved.folder, f"blake3:{'9' * 64}", approved.after).done(approved.word) == 0
    later = msgspec.structs.replace(approved.word, at="2100-01-01T00:00:00+00:00")
    assert approved.rounds.done(later) == 0


def test_a_round_costs_the_same_however_long_the_ledger_is(approved: Approved) -> None:
    for number in range(1, 101):
        approved.send("study-1", number)
    assert (approved.rounds.done(approved.word), approved.read) == (100, 100)
    for number in range(101, 111):
        approved.send("study-1", number)
        assert approved.rounds.done(approved.word) == number
    assert approved.read == 110
    anew = Rounds(approved.folder, approved.identity, approved.after)
    assert anew.done(approved.word) == 110


def test_a_run_that_asks_later_is_counted_too(approved: Approved) -> None:
    approved.send("study-3", 1)
    assert approved.rounds.done(approved.word) == 0
    offers = approved.folder / "requests" / approved.identity.removeprefix("blake3:") / "offers"
    (offers / "study-3.json").write_bytes((offers / "study-1.json").read_bytes())
    assert approved.rounds.done(approved.word) == 1


def test_a_round_under_way_counts_for_other_runs_until_it_has_left(approved: Approved) -> None:
    rounds, word = approved.rounds, approved.word
    rounds.begin(("study-1", 4))
    assert rounds.done(word) == 0, "nothing has left"
    assert rounds.done(word, task=("study-2", 1), others=True) == 1
    assert rounds.done(word, task=("study-1", 4), others=True) == 0, "its own"
    approved.send("study-1", 4)
    assert rounds.done(word, task=("study-2", 1), others=True) == 1, "counted once"
    rounds.end("study-1")
    assert rounds.done(word, task=("study-2", 1), others=True) == 1
    rounds.begin(("study-1", 5))
    rounds.end("study-1")
    assert rounds.done(word, task=("study-2", 1), others=True) == 1, "it came to nothing"
