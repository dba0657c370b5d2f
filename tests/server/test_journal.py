"""Goal: the journal says each thing once: one end, one receipt, no model that nobody has."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from in_process import submission_of

from hansa.identity import new_key
from hansa.protocol.messages import Receipt, Standing
from hansa.server import journal as journal_module
from hansa.server.journal import EndedError, Journal
from hansa.store.database import open_database


class Somebody:
    name, role, certificate = "ada", "submitter", ""
    key = new_key()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    database = open_database(tmp_path / "hansa.db")
    yield Journal(database, lambda _: None)
    database.close()


def submitted(journal: Journal) -> str:
    submission, _, _ = submission_of(Somebody)  # type: ignore[arg-type]
    return journal.submit(submission, "ada")[0]


def committed(number: int, model: str) -> dict[str, Any]:
    return {"kind": "committed", "round": number, "model": model, "state": None}


def test_a_submission_is_one_run_however_often_it_comes(journal: Journal) -> None:
    submission, _, _ = submission_of(Somebody)  # type: ignore[arg-type]
    found: list[tuple[str, bool]] = []
    threads = [
        threading.Thread(target=lambda: found.append(journal.submit(submission, "ada")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name for name, _ in found} == {"study-1"}
    assert sum(fresh for _, fresh in found) == 1
    assert submitted(journal) == "study-2"


def test_the_first_end_is_the_end(journal: Journal) -> None:
    run = submitted(journal)
    for state in ("stopped", "failed", "finished"):
        journal.end(run, state, f"it is {state}", code="")
    row = journal.run(run)
    assert row is not None and (row.state, row.reason) == ("stopped", "it is stopped")
    assert len(journal.all_events(run, "ended")) == 1
    assert journal.runs(unfinished=True) == []


def test_positions_of_events_have_no_gaps_whoever_writes(journal: Journal) -> None:
    run = submitted(journal)
    threads = [
        threading.Thread(target=journal.record, args=(run, {"kind": "note", "n": n}))
        for n in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = journal.events(run)
    assert sorted(e["n"] for e in events if e["kind"] == "note") == list(range(30))
    for after in (0, 1, 17, 31, 40):
        assert journal.page(run, after)[1] == events[after:]
    assert journal.page("study-9", 0) == (None, [])


def test_a_result_has_one_receipt_and_another_only_in_place_of_a_lost_one(
    journal: Journal,
) -> None:
    run = submitted(journal)

    def given(digest: str, at: str) -> Receipt:
        receipt = Receipt(
            run=run, round=1, phase="train", client="north", digest=digest, size=3, at=at
        )
        return journal.count(receipt, {"kind": "result"}, weight=1.0).result()

    first = given("a", "then")
    assert given("a", "later") == first
    assert journal.receipts("north", 0)[0] == [first]
    assert len(journal.all_events(run, "result")) == 1
    replaced = given("b", "later")
    found, following = journal.receipts("north", 0)
    assert found == [replaced]
    assert journal.receipts("north", following) == ([], following)
    assert journal.receipts("south", 0) == ([], 0)


def test_writes_that_share_a_commit_keep_order_and_one_that_is_undone_takes_no_position(
    journal: Journal,
) -> None:
    run, gate = submitted(journal), threading.Event()
    key = {"run": run, "round": 1, "phase": "train", "client": "north", "size": 1, "at": ""}

    def undone(c: Any) -> None:
        journal_module.append(c, run, {"kind": "undone"}, {"kind": "undone"})
        raise ZeroDivisionError

    def counted(client: str) -> Any:
        receipt = msgspec.convert(key | {"client": client, "digest": "d"}, Receipt)
        return journal.count(receipt, {"kind": "result"}, {"kind": "more"}, weight=1.0)

    begun = threading.Event()
    journal._db.submit(lambda c: (begun.set(), gate.wait(60)))
    begun.wait(60)  # what comes now waits together
    failed = [journal.begin(run, {"kind": "opened"}), journal._db.submit(undone)][1]
    north, again = counted("north"), counted("north")
    ending = threading.Thread(target=journal.end, args=(run, "stopped", ""), kwargs={"code": ""})
    ending.start()
    while journal._db._queue.qsize() < 5:
        time.sleep(0.001)
    south, once_more = counted("south"), counted("north")
    gate.set()
    ending.join()
    assert isinstance(failed.exception(), ZeroDivisionError)
    assert north.result() == again.result() == once_more.result()
    assert isinstance(south.exception(), EndedError)
    kinds = ["submitted", "opened", "result", "more", "ended"]
    assert [event["kind"] for event in journal.events(run)] == kinds
    positions = journal._db.read(lambda c: c.exec_driver_sql("select seq from events").all())
    assert sorted(seq for (seq,) in positions) == [0, 1, 2, 3, 4]


def test_a_model_is_given_up_when_the_last_run_that_has_it_does(journal: Journal) -> None:
    one, two = submitted(journal), submitted(journal)

    def last(number: int) -> Any:
        return lambda n: n == number

    assert journal.commit(one, committed(1, "m1"), keep=last(1)) == []
    (seed,) = journal.commit(two, committed(1, "m1"), keep=last(1))  # which both began with
    assert seed == journal.run(one).submission.seed_model.digest  # type: ignore[union-attr]
    assert journal.commit(one, committed(2, "m2"), keep=last(2)) == []
    assert journal.commit(two, committed(2, "m3"), keep=last(2)) == ["m1"]
    assert journal.commit(one, committed(3, "m2"), keep=last(3)) == []
    assert journal.rounds_done(one) == 3


def test_a_round_that_is_done_after_the_end_is_not_part_of_the_run(journal: Journal) -> None:
    """L6: a stop while the model is written."""
    run = submitted(journal)
    journal.end(run, "stopped", "stopped by ada", code="run-stopped")
    with pytest.raises(EndedError):
        journal.commit(run, committed(1, "m1"), keep=lambda _: True)
    assert journal.rounds_done(run) == 0
    assert journal.all_events(run, "committed") == []


def test_a_site_changes_its_mind_and_the_last_word_holds(journal: Journal) -> None:
    run = submitted(journal)
    journal.stand(run, "north", Standing(state="waiting", reason="nobody has looked"))
    journal.stand(run, "north", Standing(state="ready", examples=7))
    assert journal.standings(run) == {"north": Standing(state="ready", examples=7)}
    assert [e["state"] for e in journal.all_events(run, "standing")] == ["waiting", "ready"]


def test_a_word_is_heard_by_whoever_has_asked_before_and_by_whoever_asks_meanwhile(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read, words = submitted(journal), journal._db.read, [1, 2]

    def interrupted(fn: Any) -> Any:
        found = read(fn)
        if words:  # another word comes after the database was asked, before its answer is kept
            journal.stand(run, "north", Standing(state="ready", examples=words.pop(0)))
        return found

    monkeypatch.setattr(journal._db, "read", interrupted)
    assert journal.standings(run) == {}
    assert journal.standings(run)["north"].examples == 1
    assert journal.standings(run)["north"].examples == 2
    journal.stand(run, "north", Standing(state="ready", examples=3))
    assert journal.standings(run)["north"].examples == 3


def test_a_site_that_changes_its_mind_for_ever_is_told_of_so_often(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "STANDINGS_TOLD_MAX", 4)
    run = submitted(journal)
    for number in range(1, 9):
        journal.stand(run, "north", Standing(state="ready", examples=number))
    journal.stand(run, "south", Standing(state="ready", examples=1))
    told = [(e["site"], e["examples"]) for e in journal.all_events(run, "standing")]
    assert told == [("north", 1), ("north", 2), ("north", 3), ("north", 4), ("south", 1)]
    assert journal.standings(run)["north"].examples == 8


def test_nothing_is_said_of_a_run_that_has_ended(journal: Journal) -> None:
    run = submitted(journal)

    def counted() -> Receipt:
        receipt = Receipt(
            run=run, round=1, phase="train", client="north", digest="a", size=3, at="then"
        )
        return journal.count(receipt, {"kind": "result"}, weight=1.0).result()

    first = counted()
    journal.end(run, "stopped", "it is", code="")
    assert counted() == first  # what counted has its receipt still
    other = Receipt(run=run, round=1, phase="train", client="south", digest="b", size=3, at="now")
    with pytest.raises(EndedError, match="run-ended"):
        journal.count(other, {"kind": "result"}, weight=1.0).result()
    with pytest.raises(EndedError, match="run-ended"):
        journal.stand(run, "north", Standing(state="ready", examples=7))
    assert journal.all_events(run)[-1]["kind"] == "ended"
    assert journal.standings(run) == {}


def test_who_was_asked_and_has_not_given_its_word_owes_its_update(journal: Journal) -> None:
    run = submitted(journal)
    for number in (1, 2):
        journal.record(
            run,
            {"kind": "opened", "round": number, "phase": "train", "cohort": ["north", "south"]},
            {"kind": "opened", "round": number, "phase": "evaluate", "cohort": ["west"]},
        )
    failed = {"kind": "result", "phase": "train", "state": "failed", "client": "north"}
    journal.record(run, failed | {"round": 1}, failed | {"round": 2, "phase": "evaluate"})
    journal.record(run, failed | {"round": 2, "state": "lost", "client": "south"})
    owed = {
        (number, site)
        for number in (1, 2, 3)
        for site in ("north", "south", "west")
        if journal.is_owed(run, number, site=site)
    }
    assert owed == {(1, "south"), (2, "north"), (2, "south")}
