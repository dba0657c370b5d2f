"""Goal: L6 and L8: every run comes to one end, says how, and says why it waits until then.

Method: a whole server in this process, sites by hand.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from in_process import SEED, Site, done, in_process, key_of, update_bytes
from league import D, League, N, expected, refused

from hansa.limits import METRIC_NAME_CHARS_MAX, METRICS_MAX, SUBMISSION_BYTES_MAX
from hansa.protocol.messages import EventPage, RunDetails, RunFacts, Standing, TaskResult
from hansa.server import asks, federation, journal, results
from hansa.store.faults import disk_full


def listed(league: League) -> list[RunFacts]:
    answer = league.server.ask(league.ada, "GET", "/v1/runs").read(dict[str, Any])
    return msgspec.convert(answer["runs"], list[RunFacts])


def test_who_submitted_a_run_reads_which_of_the_sites_chosen_by_name_is_missing(
    league: League,
) -> None:
    server = league.server
    run = server.submit(league.ada, cohort={"minimum": 2, "where": {"name": ["north", "south"]}})
    league.north.ready(run, 1)
    league.west.ready(run, 1)
    told = "1 of 2 sites that it needs are ready; south is not connected"
    server.until(lambda: told in server.facts(run).reason, told)


def test_a_run_says_why_it_waits_and_starts_when_enough_sites_are_ready(league: League) -> None:
    """Why is my run waiting?  Nobody there; then an owner must decide; then one is missing."""
    server = league.server
    run = server.submit(league.ada, cohort={"minimum": 2})

    def told(part: str) -> None:
        server.until(lambda: part in server.facts(run).reason, f"{part!r} is told")
        assert server.facts(run).state == "waiting"

    told("no site is connected")
    league.north.poll()
    asks = Standing(state="waiting", reason="north's owner has not approved it")
    assert league.north.ask("POST", f"/v1/runs/{run}/standing", asks).status == 200
    told("north must approve it")
    league.south.poll()
    no = Standing(state="refused", reason="no policy, nothing runs")
    league.south.ask("POST", f"/v1/runs/{run}/standing", no)
    told("south refused it")
    league.north.ready(run, 1)
    told("1 of 2 sites that it needs are ready")
    league.west.ready(run, 4)
    for name in ("north", "west"):
        assert league.send(name, run).status == 200
    assert server.ended(run).state == "finished"
    assert np.array_equal(server.model(run, 1), expected("north", "west"))
    kinds = [e["kind"] for e in server.state.journal.all_events(run)]
    assert kinds.count("waiting") >= 3
    (facts,) = listed(league)
    assert {(s.site, s.state) for s in facts.sites} == {
        ("north", "ready"),
        ("south", "refused"),
        ("west", "ready"),
    }


def test_a_run_whose_sites_all_fail_ends_and_names_them(league: League) -> None:
    run = league.begin("north", "south")
    for site in (league.north, league.south):
        site.fail(site.task(run).key, f"ValueError: {site.name} has no such column")
    facts = league.server.ended(run)
    assert facts.state == "failed"
    (end,) = league.server.events(run, "ended")
    assert end["code"] == "run-all-failed"
    for name in ("north", "south"):
        assert f"{name} has no such column" in facts.reason


def test_a_run_that_nobody_answers_ends_at_its_deadline_and_names_the_silent(
    league: League,
) -> None:
    run = league.begin("north", "south", cohort={"deadline_s": 2.0})
    league.north.task(run)
    facts = league.server.ended(run)
    (end,) = league.server.events(run, "ended")
    assert (facts.state, end["code"]) == ("failed", "run-all-failed")
    assert "north, south: it had not answered" in facts.reason


def test_the_minimum_holds_at_the_end_of_a_round_and_not_only_at_its_start(
    league: League,
) -> None:
    run = league.begin(rounds=3, cohort={"minimum": 2, "deadline_s": 2.0})
    assert league.send("north", run).status == 200
    league.south.fail(league.south.task(run).key)
    facts = league.server.ended(run)
    (end,) = league.server.events(run, "ended")
    assert (facts.state, end["code"]) == ("failed", "run-too-few")
    assert "has 1 updates and the plan's minimum is 2" in facts.reason
    assert "west" in facts.reason
    assert [e["round"] for e in league.server.events(run, "committed")] == [0]


def test_an_end_is_an_end(league: League) -> None:
    """L6: two stops, a stop after the end, results after it: the first word stands."""
    run = league.begin("north")
    assert league.stop(run).status == 200
    for _ in range(2):
        assert refused(league.stop(run)) == (409, "run-ended")
    answer = league.north.report(key_of(run), done(update_bytes(D["north"]), 1.0))
    assert refused(answer) == (409, "update-late")
    assert league.server.facts(run) == RunFacts(run=run, state="stopped", reason="stopped by ada")
    second = league.begin("north")
    assert league.send("north", second).status == 200
    assert league.server.ended(second).state == "finished"
    assert refused(league.stop(second)) == (409, "run-ended")
    league.server.restart()
    assert [f.state for f in listed(league)] == ["stopped", "finished"]
    assert [len(league.server.events(r, "ended")) for r in (run, second)] == [1, 1]
    ready = Standing(state="ready", examples=1)
    answer = league.north.ask("POST", f"/v1/runs/{run}/standing", ready)
    assert refused(answer) == (404, "run-not-found")
    assert league.north.poll([run, second]).ended == [run, second]


def test_two_stops_at_once_are_one_end(league: League) -> None:
    run = league.begin("north")
    league.north.task(run)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(league.stop(run).status)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 409} and 200 in answers
    assert len(league.server.events(run, "ended")) == 1
    assert league.server.facts(run).state == "stopped"


def test_a_run_that_waits_for_sites_can_be_stopped(league: League) -> None:
    run = league.server.submit(league.ada)
    assert league.stop(run).status == 200
    assert league.server.ended(run).state == "stopped"
    assert league.server.until(lambda: not league.server.state.runs._threads)


def test_what_is_submitted_twice_runs_once(league: League) -> None:
    server = league.server
    submission, package, start = server.submission(league.ada)
    server.upload(league.ada, package, start)
    names = {
        server.ask(league.ada, "POST", "/v1/runs", submission).read(RunFacts).run for _ in range(3)
    }
    assert names == {"study-1"}
    other = msgspec.structs.replace(submission, id="0" * 32)
    again = server.ask(league.ada, "POST", "/v1/runs", other).read(RunFacts)
    assert again.run == "study-2"


def test_a_run_in_which_hansa_itself_fails_ends_failed_and_the_server_lives(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("a defect of ours")

        patch.setattr(asks, "aggregation_spec", broken)
        run = league.begin("north")
        facts = league.server.ended(run)
    assert facts.state == "failed"
    assert "ZeroDivisionError: a defect of ours" in facts.reason
    assert league.server.events(run, "ended")[0]["code"] == "defect"
    second = league.begin("north")
    assert league.send("north", second).status == 200
    assert league.server.ended(second).state == "finished"


def test_a_model_that_diverges_ends_the_run_and_keeps_the_last_good_one(league: League) -> None:
    run = league.begin("north", algorithm={"name": "fed_avg", "lr": 1e38})
    assert league.send("north", run).status == 200
    facts = league.server.ended(run)
    (end,) = league.server.events(run, "ended")
    assert (facts.state, end["code"]) == ("failed", "run-diverged")
    assert np.array_equal(league.server.model(run, 0), SEED)


def test_runs_beyond_the_servers_number_wait_their_turn_and_say_so(tmp_path: Path) -> None:
    with in_process(tmp_path, runs=1) as server:
        league = League(server)
        first = league.begin("north")
        league.north.task(first)
        second = league.begin("north")
        server.until(lambda: server.facts(second).reason == "other runs are at work")
        assert server.facts(second).state == "waiting"
        assert league.send("north", first).status == 200
        assert server.ended(first).state == "finished"
        assert league.send("north", second).status == 200
        assert server.ended(second).state == "finished"


def test_a_run_that_waits_for_its_sites_is_in_no_other_runs_way(tmp_path: Path) -> None:
    """One place; the first run's owners have not decided, the second is done meanwhile."""
    with in_process(tmp_path, runs=1) as server:
        league = League(server)
        league.north.poll()
        first = server.submit(league.ada, cohort={"minimum": 2})
        asks = Standing(state="waiting", reason="north's owner has not approved it")
        league.north.ask("POST", f"/v1/runs/{first}/standing", asks)
        server.until(lambda: "north must approve it" in server.facts(first).reason)
        second = server.submit(league.ada)
        server.until(lambda: len(league.north.poll().offers) == 2, "both are offered")
        league.north.ready(second, N["north"])
        assert league.send("north", second).status == 200
        assert server.ended(second).state == "finished"
        for name in ("north", "south"):
            league.sites[name].ready(first, N[name])
        for name in ("north", "south"):
            assert league.send(name, first).status == 200
        assert server.ended(first).state == "finished"


def test_a_run_gives_its_place_up_when_a_site_leaves_it_between_rounds(tmp_path: Path) -> None:
    with in_process(tmp_path, runs=1) as server:
        league = League(server)
        plan = {"rounds": 2, "cohort": {"minimum": 2}, "evaluate": {"clients": 2}}
        first = league.begin("north", "south", **plan)
        for name in ("north", "south"):
            assert league.send(name, first).status == 200
        task = league.north.task(first, 1, "evaluate")
        asks = Standing(state="waiting", reason="south's owner looks again")
        assert league.south.ask("POST", f"/v1/runs/{first}/standing", asks).status == 200
        measured = TaskResult(state="done", metrics={"loss": (1.0, 1.0)})
        assert league.north.report(task.key, measured).status == 200
        server.until(lambda: "south must approve it" in server.facts(first).reason)
        second = league.begin("north")
        refuses = Standing(state="refused", reason="it is not for south")
        assert league.south.ask("POST", f"/v1/runs/{second}/standing", refuses).status == 200
        assert league.send("north", second).status == 200
        assert server.ended(second).state == "finished"
        league.south.ready(first, N["south"])
        for name in ("north", "south"):
            assert league.send(name, first, 2).status == 200
        league.stop(first)


def test_a_run_that_waits_its_turn_can_be_stopped_and_left(tmp_path: Path) -> None:
    with in_process(tmp_path, runs=1) as server:
        league = League(server)
        first = league.begin("north")
        league.north.task(first)
        second, third = (league.begin("north") for _ in range(2))
        for run in (second, third):
            server.until(lambda run=run: server.facts(run).reason == "other runs are at work")
        assert league.stop(second).status == 200
        server.until(lambda: second not in server.state.runs._threads, "its thread has gone")
        server.restart()
        league.north.ready(first, N["north"])
        assert league.send("north", first).status == 200
        assert server.ended(first).state == "finished"
        league.north.ready(third, N["north"])
        assert league.send("north", third).status == 200
        assert server.ended(third).state == "finished"


def test_an_end_that_finds_no_room_is_written_later_and_no_site_forgets_before(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every site fails, and the disk is full when the run ends."""
    server, tried = league.server, threading.Event()

    def full(*_: object, **__: object) -> None:
        tried.set()
        raise disk_full("the end of a run")

    run = league.begin("north")
    league.north.task(run)
    with monkeypatch.context() as patch:
        patch.setattr(server.state.journal, "end", full)
        league.north.fail(key_of(run))
        assert tried.wait(10)
        assert league.north.poll([run]).ended == []
        assert run in server.state.runs._threads
    facts = server.ended(run)
    assert facts.state == "failed" and "it was told to" in facts.reason
    assert len(server.events(run, "ended")) == 1
    server.until(lambda: league.north.poll([run]).ended == [run], "north is told")


def test_a_finished_run_does_its_work_once_though_its_end_finds_no_room(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, tried = league.server, threading.Event()

    def full(*_: object, **__: object) -> None:
        tried.set()
        raise OSError(28, "no space")

    run = league.begin("north")
    league.north.task(run)
    with monkeypatch.context() as patch:
        patch.setattr(server.state.journal, "end", full)
        assert league.send("north", run).status == 200
        assert tried.wait(10)
    assert server.ended(run).state == "finished"
    assert [e["round"] for e in server.events(run, "opened")] == [1]


def test_a_result_between_the_end_of_a_run_and_its_exchange_does_not_count(
    league: League,
) -> None:
    """L6: nothing is recorded after the end, though the exchange has not heard of it yet."""
    server = league.server
    run = league.begin("north", "south")
    league.north.task(run)
    league.south.task(run)
    content = update_bytes(D["north"])
    league.north.put(content)
    server.state.journal.end(run, "stopped", "stopped by ada", code="run-stopped")
    answer = league.north.report(key_of(run), done(content, N["north"]))
    assert refused(answer) == (409, "run-ended")
    assert server.state.journal.all_events(run)[-1]["kind"] == "ended"
    assert league.north.receipts() == []


def test_a_result_with_metrics_without_bound_is_refused(league: League) -> None:
    run = league.begin("north")
    task = league.north.task(run)
    many = {f"m{number}": [1.0, 1.0] for number in range(METRICS_MAX + 1)}
    long = {"m" * (METRIC_NAME_CHARS_MAX + 1): [1.0, 1.0]}
    content = update_bytes(D["north"])
    league.north.put(content)
    for metrics in (many, long):
        answer = league.north.report(task.key, done(content, N["north"], metrics))
        assert refused(answer) == (422, "request-message")
    del many["m0"]
    assert league.north.report(task.key, done(content, N["north"], many)).status == 200
    assert league.server.ended(run).state == "finished"


def test_a_round_has_no_more_metrics_than_one_result_and_those_that_most_sites_have(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "METRICS_MAX", 2)
    run = league.begin()
    for name in D:
        site = league.sites[name]
        metrics = {f"a-{name}": [1.0, 1.0], "loss": [2.0, 1.0]}
        assert site.send(site.task(run).key, D[name], N[name], metrics=metrics).status == 200
    assert league.server.ended(run).state == "finished"
    row = league.server.events(run, "committed")[-1]["row"]
    assert set(row["train"]) == {"loss", "a-north"}


def test_a_page_of_events_fits_into_an_answer(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = league.server.submit(league.ada)
    for number in range(9):
        league.server.state.journal.record(run, {"kind": "note", "text": "é" * 300, "n": number})
    monkeypatch.setattr(journal, "EVENT_PAGE_BYTES", 2_000)
    after, notes, pages = 0, [], 0
    while True:
        answer = league.server.ask(league.ada, "GET", f"/v1/runs/{run}/events?after={after}")
        page = answer.read(EventPage)
        if not page.events:
            break
        assert len(answer.body) < 4_000
        notes += [e["n"] for e in page.events if e["kind"] == "note"]
        after, pages = page.next, pages + 1
    assert notes == list(range(9)) and pages >= 3
    league.server.state.journal.record(run, {"kind": "note", "text": "x" * 5_000, "n": 9})
    answer = league.server.ask(league.ada, "GET", f"/v1/runs/{run}/events?after={after}")
    assert [e["n"] for e in answer.read(EventPage).events] == [9]  # one is always given
    answer = league.server.ask(league.ada, "GET", f"/v1/runs/{run}/events?after=1000")
    assert answer.read(EventPage).next == after + 1, "it is told that there are fewer"


def test_a_submitter_has_so_many_unfinished_runs_and_no_more(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "RUNS_UNFINISHED_MAX", 2)
    server = league.server
    first = server.submit(league.ada)
    server.submit(league.ada)
    submission, package, start = server.submission(league.ada)
    server.upload(league.ada, package, start)
    answer = server.ask(league.ada, "POST", "/v1/runs", submission)
    assert refused(answer) == (409, "run-too-many")
    assert len(listed(league)) == 2
    bob = server.join("bob", "submitter")
    server.submit(bob)
    assert league.stop(first).status == 200
    assert server.ask(league.ada, "POST", "/v1/runs", submission).status == 200


def test_a_submission_that_no_offer_could_hold_is_refused(league: League) -> None:
    submission, package, start = league.server.submission(league.ada)
    league.server.upload(league.ada, package, start)
    tensors = [(f"t{number}" * 8, "F32", [1]) for number in range(170_000)]
    large = msgspec.structs.replace(submission, tensors=tensors)
    assert len(msgspec.json.encode(large)) > SUBMISSION_BYTES_MAX
    answer = league.server.ask(league.ada, "POST", "/v1/runs", large)
    assert refused(answer) == (413, "blob-too-large")


def test_two_runs_side_by_side_do_not_touch_each_other(league: League) -> None:
    """The sites answer in turns; each run has its own sum."""
    first = league.begin(name="first")
    second = league.begin(name="second")
    tasks = {(s, r): s.task(r) for s in league.sites.values() for r in (first, second)}
    for (site, run), task in tasks.items():
        sign = 1.0 if run == first else -2.0
        values = [sign * v for v in D[site.name]]
        weight = {"north": 1.0, "south": 3.0, "west": 4.0}[site.name]
        assert site.send(task.key, values, weight).status == 200
    for run in (first, second):
        assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(first, 1), expected(*D))
    assert np.array_equal(league.server.model(second, 1), SEED - 2 * (expected(*D) - SEED))


def test_a_model_that_two_runs_have_stays_until_neither_needs_it(league: League) -> None:
    """Both runs commit the same bytes in each round; nothing but seed and last are kept."""
    runs = [
        league.begin("north", rounds=3, name=name, keep={"every": 0}) for name in ("one", "two")
    ]
    for number in (1, 2, 3):
        for run in runs:
            assert league.send("north", run, number).status == 200
            league.server.until(
                lambda run=run, number=number: len(league.server.events(run, "committed")) > number
            )
    for run in runs:
        assert league.server.ended(run).state == "finished"
        committed = league.server.events(run, "committed")
        for event in (committed[0], committed[3]):
            league.server.stored(event["model"])
    ones, twos = (league.server.events(run, "committed") for run in runs)
    assert [e["model"] for e in ones] == [e["model"] for e in twos]
    there = set(league.server.state.blobs.digests())
    assert not {ones[1]["model"], ones[2]["model"]} & there


def test_updates_and_messages_of_committed_rounds_are_gone(league: League) -> None:
    run = league.begin(rounds=3)
    for number in (1, 2, 3):
        for name in D:
            assert league.send(name, run, number).status == 200
    league.server.ended(run)
    league.server.until(lambda: not league.updates(), "they are removed")


def test_a_restart_resumes_from_the_last_commit_without_a_word_from_the_submitter(
    league: League, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hansa.server")
    run = league.begin("north", "south", rounds=2)
    for name in ("north", "south"):
        league.send(name, run)
    league.north.task(run, 2)
    for _ in range(2):
        league.server.restart()
    for name in ("north", "south"):
        league.sites[name].poll([run])
    for name in ("north", "south"):
        assert league.send(name, run, 2).status == 200
    assert league.server.ended(run).state == "finished"
    two = expected("north", "south", seed=expected("north", "south"))
    assert np.array_equal(league.server.model(run, 2), two)
    assert [e["round"] for e in league.server.events(run, "committed")] == [0, 1, 2]
    assert len(league.server.events(run, "resumed")) == 2
    assert [r.getMessage() for r in caplog.records].count(f"going on with {run}") == 2


def test_a_run_is_taken_up_again_without_all_of_its_commits_being_read(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long run with many clients they are hundreds of megabytes."""
    read, run = [], league.begin(rounds=2)
    for name in D:
        assert league.send(name, run).status == 200
    league.north.task(run, 2)
    every = journal.Journal.all_events

    def noted(self: journal.Journal, run: str, kind: str | None = None) -> list[dict[str, Any]]:
        read.append(kind)
        return every(self, run, kind)

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "all_events", noted)
        league.restart(run)
        for name in D:
            assert league.send(name, run, 2).status == 200
        assert league.server.ended(run).state == "finished"
    assert read == []


def test_a_fourth_site_takes_part_from_the_next_round_on(league: League) -> None:
    run = league.begin("north", "south", rounds=2)
    league.north.task(run)
    east = Site(league.server, "east")
    east.ready(run, 8)
    assert east.poll([run]).tasks == []
    for name in ("north", "south"):
        league.send(name, run)
    task = east.task(run, 2)
    assert east.send(task.key, [16.0, 0.0, -8.0], 8.0).status == 200
    for name in ("north", "south"):
        league.send(name, run, 2)
    assert league.server.ended(run).state == "finished"
    total = 1 * np.array(D["north"]) + 3 * np.array(D["south"]) + 8 * np.array([16.0, 0, -8])
    two = expected("north", "south") + (total / 12).astype(np.float32)
    np.testing.assert_allclose(league.server.model(run, 2), two, rtol=2e-7)


def test_events_are_numbered_and_read_from_any_position(league: League) -> None:
    run = league.begin("north")
    league.send("north", run)
    league.server.ended(run)
    path = f"/v1/runs/{run}/events"
    whole = league.server.ask(league.ada, "GET", f"{path}?after=0").read(EventPage)
    assert whole.next == len(whole.events) and whole.state == "finished"
    kinds = [e["kind"] for e in whole.events]
    assert kinds[0] == "submitted"
    kinds.remove("standing")  # it comes before the first model, or after it
    assert kinds[:2] == ["submitted", "committed"]
    assert whole.events[-1]["kind"] == "ended"
    for after in range(whole.next + 1):
        page = league.server.ask(league.ada, "GET", f"{path}?after={after}&wait_s=5").read(
            EventPage
        )
        assert page.events == whole.events[after:]
    details = league.server.ask(league.ada, "GET", f"/v1/runs/{run}").read(RunDetails)
    assert details.facts.rounds_done == details.facts.rounds == 1


Held = tuple[threading.Event, threading.Event]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """A run's thread is held where it has read its last commit and nobody knows of it yet.

    The first event says that it is there, the second lets it go on.
    """
    reached, on = threading.Event(), threading.Event()
    look = federation.DeployedFederation.look

    def waits(self: federation.DeployedFederation) -> Any:
        found = look(self)
        reached.set()
        on.wait(10)
        return found

    monkeypatch.setattr(federation.DeployedFederation, "look", waits)
    return reached, on


def test_a_server_that_is_told_to_end_while_a_run_begins_does_not_wait_for_it(
    league: League, held: Held
) -> None:
    reached, on = held
    run = league.server.submit(league.ada)
    assert reached.wait(10)
    thread = league.server.state.runs._threads[run]
    league.server.state.runs.leave(patience_s=0.0)
    on.set()
    thread.join(5)
    assert not thread.is_alive()
    assert league.server.facts(run).state == "waiting"


def test_a_run_that_is_stopped_while_it_begins_does_not_begin(league: League, held: Held) -> None:
    reached, on = held
    run = league.server.submit(league.ada)
    assert reached.wait(10)
    assert league.stop(run).status == 200
    on.set()
    league.server.until(lambda: not league.server.state.runs._threads)
    assert league.north.poll().offers == []
    assert league.server.facts(run).state == "stopped"


def test_a_drain_has_one_patience_for_all_runs(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds each came one after the other."""
    clock = [100.0]

    class Stuck(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            clock[0] += timeout or 0.0

    runs = league.server.state.runs
    monkeypatch.setattr("hansa.server.runs.monotonic", lambda: clock[0])
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_threads", {str(n): Stuck() for n in range(5)})
        runs.leave(patience_s=10.0)
    assert clock[0] == 110.0


def test_a_server_whose_disk_is_full_is_not_ready(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ready() -> tuple[int, str]:
        answer = league.server.ask(league.ada, "GET", "/ready")
        return answer.status, answer.body.decode()

    assert ready() == (200, "ready\n")
    full = SimpleNamespace(total=2**30, used=2**30 - 4096, free=4096)
    monkeypatch.setattr("hansa.server.operations.shutil.disk_usage", lambda _: full)
    assert ready() == (503, "the disk is full\n")
