"""Goal: D1-D4 and H2: what counts, counts once; what does not, is refused with its reason.

Method: a whole server in this process; sites that upload and report by hand.  Every sum has a
closed form with signed, unequal numbers, so that one update too much or too few shows.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from in_process import (
    SEED,
    Reply,
    digest_of,
    done,
    joined,
    key_of,
    update_bytes,
)
from league import D, League, N, expected, refused

from hansa.errors import IdentityError
from hansa.identity import check_receipt
from hansa.limits import AUDIT_REFUSED_BURST
from hansa.params import Params
from hansa.protocol.messages import BlobRef, Receipt, TaskResult
from hansa.server import members


def test_three_sites_give_the_mean_weighted_by_examples(league: League) -> None:
    run = league.begin()
    for name in D:
        assert league.send(name, run).status == 200
    facts = league.server.ended(run)
    assert (facts.state, facts.reason) == ("finished", "the one round is done")
    assert np.array_equal(league.server.model(run, 1), expected(*D))
    row = league.server.events(run, "committed")[1]["row"]
    assert row["clients"] == {"asked": 3, "accepted": 3, "failed": 0, "refused": 0}


def test_an_update_that_brings_its_result_counts_like_any_other_and_once(league: League) -> None:
    run = league.begin()
    keys = {name: league.sites[name].task(run).key for name in D}
    contents = {name: update_bytes(D[name]) for name in D}
    given = league.north.deliver(keys["north"], contents["north"], done(contents["north"], 1))
    receipt = given.read(Receipt)
    assert (receipt.client, receipt.digest) == ("north", digest_of(contents["north"]))
    # Sent again, as after a loss of the receipt: nobody waits for it, and it has its receipt.
    again = league.north.deliver(keys["north"], contents["north"], done(contents["north"], 1))
    assert refused(again) == (409, "upload-unwanted")
    told = league.north.report(keys["north"], done(contents["north"], 1)).read(Receipt)
    assert told == receipt
    assert league.send("south", run).status == 200
    other = league.west.deliver(keys["west"], contents["west"], done(contents["west"], N["west"]))
    assert other.status == 200
    assert league.server.ended(run).state == "finished"
    np.testing.assert_array_equal(league.server.model(run, 1), expected(*D))
    assert refused(league.west.deliver(keys["west"], b"late", done(b"late", 4)))[0] == 409


@pytest.mark.parametrize("header", ["", "e30"], ids=["removed", "another"])
def test_a_result_that_somebody_changed_on_the_way_is_refused_with_its_update(
    league: League, header: str
) -> None:
    run = league.begin("north")
    key, content = league.north.task(run).key, update_bytes(D["north"])
    result = done(content, 1e6)
    answer = league.north.deliver(key, content, result, header=header)
    assert refused(answer) == (422, "request-message") and league.updates() == []
    for odd in (key_of(run, 1, "nonsense"), key_of(run, "first")):  # type: ignore[arg-type]
        assert league.north.deliver(odd, content, result).status in (404, 422)
    assert league.updates() == []
    assert league.send("north", run).status == 200
    assert league.server.ended(run).state == "finished"
    np.testing.assert_array_equal(league.server.model(run, 1), expected("north"))


def test_a_result_of_a_site_that_is_revoked_while_its_update_comes_does_not_count(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = league.begin("north", "south")
    key, content = league.north.task(run).key, update_bytes(D["north"])
    state, begun = league.server.state, league.server.state.updates.claim

    def claim(*words: Any, **named: Any) -> Any:  # called before the body is taken
        state.gate.forget(members.revoke(state.database, "north", by="test").fingerprint)
        return begun(*words, **named)

    monkeypatch.setattr(state.updates, "claim", claim)
    answer = league.north.deliver(key, content, done(content, N["north"]))
    assert answer.code == "identity-member"
    assert league.server.events(run, "result") == []


def test_the_same_result_sent_ten_times_counts_once_and_has_one_receipt(league: League) -> None:
    """D1, while the round is open, from several threads at once, and after it was closed."""
    run = league.begin()
    key = league.north.task(run).key
    first = league.north.send(key, D["north"], 1.0)
    content, answers = update_bytes(D["north"]), []

    def again() -> None:
        answers.append(league.north.report(key, done(content, 1.0)))

    threads = [threading.Thread(target=again) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {a.body for a in answers} == {first.body}
    for name in ("south", "west"):
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"
    assert league.north.report(key, done(content, 1.0)).body == first.body
    assert np.array_equal(league.server.model(run, 1), expected(*D))
    assert [r.client for r in league.north.receipts()] == ["north"]


def test_no_receipt_is_given_before_the_result_is_durable(league: League) -> None:
    """Goal: a repetition waits for the first.  Method: the disk stands still meanwhile.

    The round closes before that, so one that comes later is told to come again.
    """
    run = league.begin("north")
    key, content = league.north.task(run).key, update_bytes(D["north"])
    league.north.put(content)
    go, answers = threading.Event(), list[Reply]()
    held = league.server.state.database.submit(lambda _: go.wait(30))

    def report() -> None:
        while (answer := league.north.report(key, done(content, 1.0))).code == "round-not-open":
            time.sleep(0.01)
        answers.append(answer)

    threads = [threading.Thread(target=report) for _ in range(3)]
    exchange = league.server.state.hub.exchange(run, 1, "train")
    assert exchange is not None
    for thread in threads:
        thread.start()
    league.server.until(lambda: exchange.state.digests, "the result is decided on")
    threads[0].join(0.3)
    assert answers == []
    go.set()
    held.result(30)
    for thread in threads:
        thread.join()
    assert [a.status for a in answers] == [200] * 3
    (receipt,) = {a.body for a in answers}
    assert league.north.receipts()[0].signature.encode() in receipt


def test_ten_threads_racing_with_the_first_report_count_once(league: League) -> None:
    run = league.begin()
    key, content = league.north.task(run).key, update_bytes(D["north"])
    league.north.put(content)
    answers: list[Reply] = []
    start = threading.Barrier(10)

    def report() -> None:
        start.wait()
        answers.append(league.north.report(key, done(content, 1.0)))

    threads = [threading.Thread(target=report) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {a.status for a in answers} == {200}
    receipts = [a.read(Receipt) for a in answers]
    assert {(r.client, r.digest) for r in receipts} == {("north", digest_of(content))}
    for name in ("south", "west"):
        league.send(name, run)
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected(*D))
    assert len(league.north.receipts()) == 1


def test_a_second_other_update_is_refused_and_noted_and_the_first_one_counts(
    league: League,
) -> None:
    """D2, while the round is open and after it."""
    run = league.begin()
    key = league.north.task(run).key
    assert league.north.send(key, D["north"], 1.0).status == 200
    other = update_bytes([50.0, 50.0, 50.0])
    assert league.north.put(other).code == "upload-unwanted"
    assert refused(league.north.report(key, done(other, 1.0))) == (409, "update-conflict")
    for name in ("south", "west"):
        league.send(name, run)
    league.server.ended(run)
    assert refused(league.north.report(key, done(other, 1.0))) == (409, "update-conflict")
    assert np.array_equal(league.server.model(run, 1), expected(*D))
    assert league.audit() == [("north", f"{run}/1/train", "update-conflict")] * 2


def test_an_update_of_the_round_before_never_reaches_the_next_one(league: League) -> None:
    """D4: by default a late update is refused; west answers round 1 while round 2 is open."""
    run = league.begin(rounds=2, cohort={"minimum": 2, "grace_s": 1.0})
    key = league.west.task(run).key
    content = update_bytes(D["west"])
    league.west.put(content)
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    second = league.north.task(run, 2)
    assert np.array_equal(league.north.received(second)["w"], expected("north", "south"))
    assert refused(league.west.report(key, done(content, 4.0))) == (409, "update-late")
    for name in D:
        assert league.send(name, run, 2).status == 200
    assert league.server.ended(run).state == "finished"
    first = expected("north", "south")
    assert np.array_equal(league.server.model(run, 2), expected(*D, seed=first))
    assert league.audit() == [("west", f"{run}/1/train", "update-late")]


def test_no_site_fills_the_disk_with_what_is_refused(league: League) -> None:
    """Of runs that never were nothing is noted, and of others not each line."""
    run = league.begin()
    for number in range(2, 2 + AUDIT_REFUSED_BURST + 10):
        late = league.north.report(key_of(run, number), TaskResult(state="failed", reason="x"))
        assert refused(late) == (409, "update-late")
        assert league.south.fail(key_of(f"ghost-{number}")).code == "run-not-found"
    assert len(league.audit()) == AUDIT_REFUSED_BURST
    assert {who for who, _, _ in league.audit()} == {"north"}


def test_what_comes_after_the_end_or_for_another_run_is_refused(league: League) -> None:
    """D4: after the run, after a stop, of a round that never was, of another run."""
    content = update_bytes(D["west"])
    run = league.begin()
    for name in D:
        league.send(name, run)
    league.server.ended(run)
    for key in (key_of(run, 2), key_of(run, 1, "evaluate"), key_of(run, 10**6)):
        assert refused(league.north.report(key, done(content, 1.0))) == (409, "update-late")
    answer = league.north.report(key_of("study-9"), done(content, 1.0))
    assert refused(answer) == (404, "run-not-found")
    assert league.north.put(content).code == "upload-unwanted"
    stopped = league.begin(name="other")
    key = league.west.task(stopped).key
    assert league.west.put(content).status == 200
    assert league.server.ask(league.ada, "POST", f"/v1/runs/{stopped}/stop", {}).status == 200
    assert refused(league.west.report(key, done(content, 4.0))) == (409, "update-late")
    assert league.west.receipts() == [r for r in league.west.receipts() if r.run == run]
    for odd in ("rounds/0/train", "rounds/1/predict", "rounds/-1/train", "rounds/x/train"):
        answer = league.west.ask("POST", f"/v1/runs/{run}/{odd}/result", done(content, 1.0))
        assert answer.status in (404, 409, 422), odd


def test_a_site_that_was_not_asked_does_not_count(league: League) -> None:
    """Method: a cohort of two of three; the third reports a well-formed update."""
    run = league.begin(cohort={"count": 2}, seed=3)
    opened = league.server.until(lambda: league.server.events(run, "opened"))[0]
    spare = next(name for name in D if name not in opened["cohort"])
    site = league.sites[spare]
    assert site.poll([run]).tasks == []
    answer = site.report(key_of(run), done(update_bytes(D[spare]), 1.0))
    assert refused(answer) == (409, "update-not-asked")
    for name in opened["cohort"]:
        assert league.send(name, run).status == 200
    league.server.ended(run)
    assert np.array_equal(league.server.model(run, 1), expected(*opened["cohort"]))


def test_a_report_without_its_upload_is_asked_for_again_and_then_counts(league: League) -> None:
    run = league.begin("north", "south")
    key, content = league.north.task(run).key, update_bytes(D["north"])
    assert refused(league.north.report(key, done(content, 1.0))) == (409, "update-missing")
    nothing = TaskResult(state="done", weight=1.0)
    assert refused(league.north.report(key, nothing)) == (409, "update-missing")
    assert league.north.send(key, D["north"], 1.0).status == 200
    league.send("south", run)
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected("north", "south"))


def test_nothing_is_uploaded_that_no_task_asks_for(league: League) -> None:
    content = update_bytes(D["north"])
    assert refused(league.north.put(content)) == (409, "upload-unwanted")
    run = league.begin()
    league.north.task(run)
    large = b"x" * (len(content) + 70_000)
    assert refused(league.north.put(large)) == (413, "upload-unwanted")
    chunk = league.north.place(large, more="/chunks/0") + f"&size={2**32}"
    assert refused(league.north.ask("PUT", chunk, body=b"x")) == (413, "upload-unwanted")
    wrong = league.north.place(b"other")
    assert refused(league.north.ask("PUT", wrong, body=content)) == (422, "blob-digest")
    assert league.updates() == []


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


GOOD = f32(1.0, -2.0, 4.0)
HEADER = msgspec.json.encode({"delta": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}})


def header_of(size: int, rest: bytes) -> bytes:
    return size.to_bytes(8, "little") + rest


HOSTILE: dict[str, tuple[bytes, float, str, str]] = {
    "nan": (update_bytes([1.0, float("nan"), 2.0]), 1.0, "update-not-finite", "'delta'"),
    "infinity": (update_bytes([1.0, float("-inf"), 2.0]), 1.0, "update-not-finite", "'delta'"),
    "beyond the bound": (update_bytes([3e38, 0.0, 0.0]), 1.0, "update-out-of-bound", "'delta'"),
    "too short": (update_bytes([1.0, 2.0]), 1.0, "update-shape", "'delta'"),
    "too long": (update_bytes([1.0] * 4), 1.0, "update-shape", "'delta'"),
    "a matrix": (update_bytes([[1.0, 2.0, 3.0]]), 1.0, "update-shape", "'delta'"),
    "integers": (
        joined(Params.of({"delta": np.array([1, 2, 3], np.int32)})),
        1.0,
        "update-dtype",
        "'delta'",
    ),
    "another name": (update_bytes(GOOD, "gradient"), 1.0, "update-names", "'delta'"),
    "a vector more": (
        joined(Params.of({"delta": GOOD, "x": GOOD})),
        1.0,
        "update-names",
        "'x'",
    ),
    "no vector": (joined(Params.of({})), 1.0, "update-names", "'delta'"),
    "trailing bytes": (update_bytes(GOOD) + b"\0\0\0\0", 1.0, "update-names", "north"),
    "cut short": (update_bytes(GOOD)[:-1], 1.0, "update-names", "north"),
    "no tensor file": (b"PK\3\4 this is a program", 1.0, "update-names", "north"),
    "a pickle": (b"\x80\x04\x95\x20\0\0\0\0\0\0\0\x8c\x02os", 1.0, "update-names", "north"),
    "huge header": (header_of(2**62, HEADER), 1.0, "update-names", "north"),
    "negative header": (header_of(2**64 - 1, HEADER), 1.0, "update-names", "north"),
    "header that is none": (header_of(4, b"\xff\xfe{}" + b"\0" * 12), 1.0, "update-names", "north"),
    "offsets beyond the end": (
        header_of(len(HEADER), HEADER.replace(b"[0,12]", b"[0,99]")) + GOOD.tobytes(),
        1.0,
        "update-names",
        "north",
    ),
    "a weight of zero": (update_bytes(GOOD), 0.0, "update-weight", "north"),
    "a negative weight": (update_bytes(GOOD), -1.0, "update-weight", "north"),
    "a weight beyond all": (update_bytes(GOOD), 1e12, "update-weight", "north"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_update_is_refused_by_name_and_the_round_goes_on(
    league: League, case: str
) -> None:
    """H2 through the real route: the code, the tensor, nothing in the sum, REFUSED in the log."""
    content, weight, code, named = HOSTILE[case]
    run = league.begin()
    key = league.north.task(run).key
    answer = league.north.send_bytes(key, content, weight)
    assert refused(answer) == (422, code), answer.body
    assert named in answer.message
    # A good one in its place is too late: the client's word is final.
    assert refused(league.north.report(key, done(content, weight)))[0] in (409, 422)
    if code == "update-names" and case == "no tensor file":
        assert refused(league.north.send(key, D["north"], 1.0))[1] == "upload-unwanted"
    for name in ("south", "west"):
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected("south", "west"))
    words = {e["client"]: e["state"] for e in league.server.events(run, "result")}
    assert words == {"north": "refused", "south": "accepted", "west": "accepted"}
    problem = league.server.events(run, "problem")[0]
    assert (problem["client"], problem["what"], problem["code"]) == ("north", "refused", code)
    assert league.north.receipts() == []


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": [float("nan"), 1.0]},
        {"loss": [1.0, float("inf")]},
        {"loss": [1.0, -1.0]},
        {"loss": [1.0, 0.0]},
        {"loss": [1e308, 1e-308]},
        {"a" * 5000: [1.0, 1.0]},
        {f"m{i}": [1.0, 1.0] for i in range(5_000)},
        {"\x1b[2J": [1.0, 1.0]},
    ],
)
def test_odd_metrics_never_end_a_run(league: League, metrics: dict[str, Any]) -> None:
    """What a site says it measured is data of a stranger too."""
    run = league.begin("north", "south")
    key, content = league.north.task(run).key, update_bytes(GOOD)
    ref = BlobRef(digest=digest_of(content), size=len(content))
    body = msgspec.json.encode({"state": "done", "weight": 1.0, "update": ref, "metrics": metrics})
    text = body.replace(b"null", b"1e999")
    league.north.put(content)
    path = f"/v1/runs/{run}/rounds/1/train/result"
    answer = league.north.ask("POST", path, body=text)
    assert answer.status in (200, 409, 422), answer
    if answer.status != 200:
        league.north.fail(key)
    assert league.send("south", run).status == 200
    assert league.server.ended(run).state == "finished"


def test_a_receipt_can_be_checked_by_anybody_and_changed_by_nobody(league: League) -> None:
    run = league.begin("north", "south")
    receipt = league.send("north", run).read(Receipt)
    public = league.server.state.receipt_key.public
    fields = [receipt.run, receipt.round, receipt.phase, receipt.client]
    fields += [receipt.digest, receipt.size, receipt.at]
    check_receipt(public, receipt.signature, *fields)
    assert (receipt.run, receipt.round, receipt.phase, receipt.client) == (run, 1, "train", "north")
    assert receipt.digest == digest_of(update_bytes(D["north"]))
    assert receipt.size == len(update_bytes(D["north"]))
    for place, other in enumerate(["x-1", 2, "evaluate", "south", digest_of(b""), 1, "1970"]):
        changed = [*fields[:place], other, *fields[place + 1 :]]
        with pytest.raises(IdentityError, match="signature"):
            check_receipt(public, receipt.signature, *changed)
    assert league.north.receipts() == [receipt]


def test_a_failure_is_told_with_its_reason_and_an_update_after_it_does_not_count(
    league: League,
) -> None:
    run = league.begin()
    key = league.north.task(run).key
    assert league.north.fail(key, "ZeroDivisionError: north has no rows").status == 200
    assert league.north.fail(key, "another reason").status == 200  # told twice, noted once
    league.server.state.updates.of(run, 1, "north").put_bytes(update_bytes(D["north"]))
    answer = league.north.report(key, done(update_bytes(D["north"]), 1.0))
    assert refused(answer) == (409, "update-failed")
    for name in ("south", "west"):
        league.send(name, run)
    league.server.ended(run)
    assert np.array_equal(league.server.model(run, 1), expected("south", "west"))
    (problem,) = league.server.events(run, "problem")
    assert problem["message"] == "ZeroDivisionError: north has no rows"
    assert league.server.events(run, "committed")[1]["row"]["clients"]["failed"] == 1


def test_who_has_not_answered_at_the_deadline_is_named_as_silent(league: League) -> None:
    run = league.begin(cohort={"deadline_s": 2.0})
    league.west.task(run)
    for name in ("north", "south"):
        league.send(name, run)
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected("north", "south"))
    (problem,) = league.server.events(run, "problem")
    assert (problem["client"], problem["code"]) == ("west", "client-silent")


def test_a_goal_ends_the_round_and_whoever_was_spare_is_told_so_and_no_problem(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = league.begin(cohort={"count": 2, "over": 1.5})
    key = league.west.task(run).key
    keys = {name: league.sites[name].task(run).key for name in ("north", "south")}
    woken: list[set[str] | None] = []
    monkeypatch.setattr(league.server.state.hub._polls, "ring", lambda n=None: woken.append(n))
    for name, mine in keys.items():
        assert league.sites[name].send(mine, D[name], N[name]).status == 200
    assert league.server.ended(run).state == "finished"
    assert woken[0] == {"west"}  # and not those whose results count
    assert np.array_equal(league.server.model(run, 1), expected("north", "south"))
    assert league.server.events(run, "problem") == []
    answer = league.west.poll([run], holding=[key])
    assert (answer.cancelled, answer.ended) == ([key], [run])


def test_a_restart_in_the_midst_of_a_round_counts_what_was_counted_and_once(
    league: League,
) -> None:
    """D1 across a restart: the same receipt, the same sum; a lost file is asked for again."""
    run = league.begin(cohort={"minimum": 3})
    key = league.north.task(run).key
    receipt = league.send("north", run).read(Receipt)
    assert league.send("south", run).status == 200
    lost = digest_of(update_bytes(D["south"]))
    league.server.leave()
    league.server.state.updates.of(run, 1, "south").path(lost).unlink()
    league.server.start()
    for site in league.sites.values():
        site.poll([run])
    again = league.north.report(key, done(update_bytes(D["north"]), 1.0))
    assert again.read(Receipt) == receipt
    task = league.south.task(run)
    assert task.attempt == 2
    assert league.south.send(task.key, D["south"], 3.0).status == 200
    assert league.send("west", run).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected(*D))
    assert [len(site.receipts()) for site in league.sites.values()] == [1, 1, 1]


def test_identical_updates_of_two_sites_count_twice(league: League) -> None:
    """Updates are known by content: one file, but two contributions."""
    run = league.begin("north", "south", rounds=2)
    for number in (1, 2):
        for site, weight in ((league.north, 1.0), (league.south, 3.0)):
            task = site.task(run, number)
            assert site.send(task.key, [2.0, -4.0, 1.0], weight).status == 200
    league.server.ended(run)
    assert np.array_equal(league.server.model(run, 2), SEED + f32(4.0, -8.0, 2.0))
    assert league.server.events(run, "committed")[2]["row"]["clients"]["accepted"] == 2


@pytest.mark.parametrize("size", [0, 1, 2**40, 2**63, 2**64])
def test_a_size_that_is_not_the_updates_is_refused(league: League, size: int) -> None:
    """A receipt says how many bytes were received, so nobody may make that up."""
    run = league.begin("north", "south")
    key, content = league.north.task(run).key, update_bytes(D["north"])
    league.north.put(content)
    ref = BlobRef(digest=digest_of(content), size=size)
    answer = league.north.report(key, TaskResult(state="done", update=ref, weight=1.0))
    assert refused(answer) == (422, "update-names"), answer
    assert str(size) in answer.message
    assert league.send("south", run).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected("south"))


def test_an_evaluation_that_brings_an_update_is_refused(league: League) -> None:
    run = league.begin("north", "south", evaluate={"clients": 2})
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    key = league.north.task(run, 1, "evaluate").key
    ref = BlobRef(digest=digest_of(b"x"), size=2**63)
    answer = league.north.report(key, TaskResult(state="done", update=ref))
    assert refused(answer) == (422, "update-names"), answer
    task = league.south.task(run, 1, "evaluate")
    good = TaskResult(state="done", metrics={"accuracy": (3.0, 4.0)})
    assert league.south.report(task.key, good).status == 200
    assert league.server.ended(run).state == "finished"
    row = league.server.events(run, "committed")[1]["row"]
    assert row["validation"]["accuracy"]["mean"] == 0.75


def test_a_site_whose_weight_takes_up_the_whole_round_does_not_end_it(league: League) -> None:
    """Each weight is below the round's limit; together they are beyond it.

    Sites have said that they hold 1, 3 and 4 examples; north claims 8 when it answers.
    """
    run = league.begin()
    key = league.north.task(run).key
    assert league.north.send(key, D["north"], 8.0).status in (200, 422)
    for name in ("south", "west"):
        league.send(name, run)
    facts = league.server.ended(run)
    assert facts.state == "finished", facts.reason


@pytest.mark.parametrize("examples", [2**31 + 1, 2**63, 2**200])
def test_a_number_of_examples_beyond_all_sense_is_refused(league: League, examples: int) -> None:
    """It would make everybody else's weight too small for the round's sum."""
    league.north.poll()
    run = league.server.submit(league.ada)
    standing = b'{"state":"ready","examples":' + str(examples).encode() + b"}"
    answer = league.north.ask("POST", f"/v1/runs/{run}/standing", body=standing)
    assert refused(answer) == (422, "request-message")
    assert league.server.facts(run).state == "waiting"


def test_once_the_minimum_has_answered_others_are_waited_for_so_long_and_no_longer(
    league: League,
) -> None:
    """FLARE's wait_time_after_min_received: 2 of 3 count, long before the deadline of minutes."""
    run = league.begin(rounds=1, cohort={"minimum": 2, "grace_s": 0.2, "deadline_s": 600.0})
    for name in ("north", "south"):
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected("north", "south"))
    (closed,) = league.server.events(run, "closed")
    assert closed["accepted"] == ["north", "south"]


def test_a_round_in_which_all_have_answered_waits_for_nobody(league: League) -> None:
    run = league.begin(rounds=1, cohort={"minimum": 2, "grace_s": 600.0})
    for name in D:
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), expected(*D))
