"""Runs that want the same slots of the same sites, at a server with real requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from in_process import CODE, SEED, InProcess, Member, Site, in_process
from league import D, League, N

from hansa.protocol.messages import Poll, PollAnswer, RunFacts, Standing, Submission, TaskResult
from hansa.server.submissions import read_plan

GPU = {"resources": {"gpu": 1}}


class Cards(League):
    """A league whose sites have graphics cards."""

    def __init__(self, server: InProcess, **cards: int) -> None:
        super().__init__(server)
        for name, count in cards.items():
            _lend(self.sites[name], count)

    def told(self, run: str) -> RunFacts:
        answer = self.server.ask(self.ada, "GET", "/v1/runs").read(dict[str, list[RunFacts]])
        return next(facts for facts in answer["runs"] if facts.run == run)

    def waits(self, run: str, reason: str) -> None:
        self.server.until(lambda: reason in self.told(run).reason, f"{run}: {reason}")
        assert self.told(run).state == "waiting"


def _lend(site: Site, count: int) -> None:
    """Let a site say in every poll how many graphics cards it has."""

    def poll(runs=(), holding=()) -> PollAnswer:
        asked = Poll(
            runs=tuple(runs),
            holding=tuple(holding),
            wait=False,
            version="1",
            resources={"gpu": count},
        )
        return site.ask("POST", "/v1/poll", asked).read(PollAnswer)

    site.poll = poll


def submit(league: League, submitter: Member, priority: int = 0, **plan: object) -> str:
    submission, package, seed = league.server.submission(submitter, **plan)
    league.server.upload(submitter, package, seed)
    sent = msgspec.structs.replace(submission, priority=priority)
    return league.server.ask(submitter, "POST", "/v1/runs", sent).read(RunFacts).run


def test_two_runs_that_need_the_one_card_are_at_work_one_after_the_other(tmp_path: Path) -> None:
    with in_process(tmp_path, runs=4) as server:
        league = Cards(server, north=1)
        first = league.begin("north", **GPU)
        league.north.task(first)
        second = league.begin("north", **GPU)
        needs = f"it needs 1 gpu at each site, and north lends 1 of its 1 gpu, to {first}"
        league.waits(second, needs)
        server.until(lambda: server.facts(second).reason == "other runs use gpu at north")
        assert not league.north.poll([first, second]).tasks[1:]
        assert league.send("north", first).status == 200
        assert league.send("north", second).status == 200
        assert server.ended(second).state == "finished"


def test_a_run_that_asks_for_no_card_is_in_nobodys_way(tmp_path: Path) -> None:
    with in_process(tmp_path, runs=4) as server:
        league = Cards(server, north=1)
        first = league.begin("north", **GPU)
        league.north.task(first)
        second = league.begin("north")
        assert league.send("north", second).status == 200
        assert server.ended(second).state == "finished"


def test_a_run_begins_with_the_sites_whose_card_is_free_and_another_joins_later(
    tmp_path: Path,
) -> None:
    """k of n: the second run needs one of two; north is lent at first, and free in round 2."""
    with in_process(tmp_path, runs=4) as server:
        league = Cards(server, north=1, south=1)
        first = league.begin("north", **GPU)
        league.north.task(first)
        league.south.poll()
        second = server.submit(league.ada, rounds=2, **GPU)
        for site in (league.north, league.south):
            site.ready(second, N[site.name])
        league.south.task(second)
        assert all(t.key.run != second for t in league.north.poll([first, second]).tasks)
        assert league.send("north", first).status == 200
        server.ended(first)
        assert league.send("south", second).status == 200
        for name in ("north", "south"):
            assert league.send(name, second, 2).status == 200
        assert server.ended(second).state == "finished"
        opened = [e["cohort"] for e in server.events(second, "opened")]
        assert opened == [["south"], ["north", "south"]]


def test_a_step_of_priority_is_worth_ten_minutes_in_the_queue(tmp_path: Path) -> None:
    with in_process(tmp_path, runs=1) as server:
        league = Cards(server)
        first = league.begin("north")
        league.north.task(first)
        usual, urgent = submit(league, league.ada), submit(league, league.ada, priority=1)
        for run in (usual, urgent):
            league.north.ready(run, N["north"])
        league.waits(usual, f"other runs are at work: {first}, of 1 at a time; 1 run is before it")
        league.waits(urgent, f"other runs are at work: {first}, of 1 at a time")
        assert "before" not in league.told(urgent).reason
        assert league.send("north", first).status == 200
        assert league.send("north", urgent).status == 200
        assert server.ended(urgent).state == "finished"
        assert league.send("north", usual).status == 200


def test_a_mandatory_site_is_waited_for_by_name(tmp_path: Path) -> None:
    with in_process(tmp_path, gather_s=0.2) as server:
        league = League(server)
        run = league.begin("north", cohort={"mandatory": ["south"]})
        server.until(lambda: "it cannot do without south" in server.facts(run).reason)
        league.south.ready(run, N["south"])
        for name in ("north", "south"):
            assert league.send(name, run).status == 200
        assert server.ended(run).state == "finished"


def test_a_round_without_its_mandatory_site_fails_at_once_and_says_who(tmp_path: Path) -> None:
    with in_process(tmp_path) as server:
        league = League(server)
        run = league.begin("north", "south", "west", cohort={"mandatory": ["south"]})
        assert league.send("north", run).status == 200
        league.south.fail(league.south.task(run).key)
        facts = server.ended(run)
        assert facts.state == "failed"
        assert "has no update of south, which the plan's cohort.mandatory names" in facts.reason
        assert server.events(run, "ended")[0]["code"] == "run-too-few"


def test_all_who_answer_before_the_mandatory_site_have_room_in_the_sum(tmp_path: Path) -> None:
    """One is wanted and three are asked: the goal alone would leave room for a weight of one."""
    cohort = {"mandatory": ["south"], "count": 1, "over": 3.0}
    with in_process(tmp_path) as server:
        league = League(server)
        run = league.begin("north", "south", "west", cohort=cohort, weighting="uniform")
        for name in ("north", "west", "south"):
            site = league.sites[name]
            assert site.send(site.task(run).key, D[name], 1).status == 200
        assert server.ended(run).state == "finished"
        mean = (np.array(D["north"]) + D["west"] + D["south"]) / 3
        assert server.model(run, 1) == pytest.approx(SEED + mean.astype(np.float32), rel=1e-6)


@pytest.mark.parametrize("opened", [True, False], ids=["in a round", "between rounds"])
def test_after_a_restart_a_run_has_the_slots_that_it_had(tmp_path: Path, opened: bool) -> None:
    """Both are ready for both runs; the cards are the first run's."""
    with in_process(tmp_path, runs=4) as server:
        league = Cards(server, north=1, south=1)
        plan = {"rounds": 2, "cohort": {"minimum": 2}, "evaluate": {"clients": 2}, **GPU}
        first = league.begin("north", "south", **plan)
        for name in ("north", "south"):
            assert league.send(name, first).status == 200
        if opened:
            for site in (league.north, league.south):
                key = site.task(first, 1, "evaluate").key
                site.report(key, _measured())
            league.north.task(first, 2)
        second = server.submit(league.ada, **GPU)
        for site in (league.north, league.south):
            site.ready(second, N[site.name])
        league.waits(second, "gpu at")
        server.restart()
        for site in (league.south, league.north):
            site.poll()
        league.waits(second, f"to {first}")
        if not opened:
            for site in (league.north, league.south):
                site.report(site.task(first, 1, "evaluate").key, _measured())
        for name in ("north", "south"):
            assert league.send(name, first, 2).status == 200
        for site in (league.north, league.south):
            site.report(site.task(first, 2, "evaluate").key, _measured())
        assert server.ended(first).state == "finished"
        for name in ("north", "south"):
            assert league.send(name, second).status == 200
        assert server.ended(second).state == "finished"


def _between_rounds(league: Cards) -> tuple[str, str]:
    """Return a run that lacks south for its second round, and one that waits for the one place."""
    first = league.begin("north", "south", rounds=2, cohort={"minimum": 2})
    assert league.send("south", first).status == 200
    second = league.begin("north")
    refuses = Standing(state="refused", reason="it is not for south")
    assert league.south.ask("POST", f"/v1/runs/{second}/standing", refuses).status == 200
    league.waits(second, f"at work: {first}")
    league.server.lose("south")
    assert league.send("north", first).status == 200
    league.waits(first, "1 of 2 sites that it needs are ready; south is not heard of")
    return first, second


def _opened(server: InProcess, run: str) -> bool:
    return len(server.events(run, "opened")) == 2


def _both_end(league: Cards, first: str, second: str) -> None:
    """Let south come back, and both runs do what is left to do."""
    both = (league.north, league.south)
    league.server.until(lambda: all(s.poll() for s in both) and _opened(league.server, first))
    for name in ("north", "south"):
        assert league.send(name, first, 2).status == 200
    assert league.server.ended(first).state == "finished"
    if league.told(second).state != "finished":
        assert league.send("north", second).status == 200
    assert league.server.ended(second).state == "finished"


@pytest.mark.parametrize("restarts", [False, True])
def test_a_run_between_rounds_keeps_its_place_while_its_site_is_away(
    tmp_path: Path, restarts: bool
) -> None:
    with in_process(tmp_path, runs=1, heartbeat_s=1.0) as server:
        league = Cards(server)
        first, second = _between_rounds(league)
        if restarts:
            server.restart()
            league.north.poll()
            league.waits(first, "1 of 2 sites that it needs are ready")
        league.waits(second, f"at work: {first}")
        server.until(lambda: league.north.poll() and league.south.poll() and _opened(server, first))
        assert not server.events(second, "opened")
        _both_end(league, first, second)


def test_a_site_that_stays_away_does_not_let_other_runs_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hansa.server.gathering.PLACE_KEPT_S", 0.2)
    with in_process(tmp_path, runs=1) as server:
        league = Cards(server)
        first, second = _between_rounds(league)
        assert league.send("north", second).status == 200
        assert server.ended(second).state == "finished"
        _both_end(league, first, second)


def _measured() -> TaskResult:
    return TaskResult(state="done", metrics={"loss": (1.0, 1.0)})


def test_a_run_that_cannot_go_on_says_why_once_and_lets_others_go_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its package is gone from the disk in the midst of a round, until somebody brings it back."""
    monkeypatch.setattr("hansa.server.stuck.PLACE_KEPT_S", 1.5)
    lost: set[str] = set()

    def read(submission: Submission, *others: Any) -> Any:
        if submission.package.digest in lost:
            raise FileNotFoundError(2, "No such file", str(tmp_path / submission.package.digest))
        return read_plan(submission, *others)

    monkeypatch.setattr("hansa.server.runs.read_plan", read)
    with in_process(tmp_path, runs=1) as server:
        ada, north = server.join("ada", "submitter"), Site(server, "north")
        first = server.begin(ada, {north: 1})
        north.task(first)
        lost.add(server.state.journal.run(first).submission.package.digest)
        server.restart()
        north.poll([first])
        with mock.patch.dict(CODE, {"more.py": b""}):
            second = server.submit(ada)
        north.ready(second, 1)
        server.until(lambda: "No such file" in server.facts(first).reason, "it says why")
        facts = server.facts(first)
        assert facts.state == "waiting" and str(tmp_path) not in facts.reason
        task = north.task(second)  # after a while the place is free
        lost.clear()
        server.until(lambda: server.facts(first).reason == "other runs are at work", "its turn")
        told = [e for e in server.events(first, "waiting") if "No such file" in e["reason"]]
        assert [e.get("kept", False) for e in told] == [True, False]
        assert len([r for r in caplog.records if f"run {first} waits" in r.getMessage()]) == 1
        assert north.send(task.key, [1.0, 1.0, 1.0], 1.0).status == 200
        assert server.ended(second).state == "finished"
        assert north.send(north.task(first).key, [1.0, -2.0, 4.0], 1.0).status == 200
        assert server.ended(first).state == "finished"


def test_a_site_that_lends_more_than_it_did_is_believed(tmp_path: Path) -> None:
    with in_process(tmp_path, runs=4, gather_s=0.2) as server:
        league = Cards(server)  # north lends nothing yet
        run = league.begin("north", **GPU)
        server.until(lambda: "too little of gpu to lend" in server.facts(run).reason)
        _lend(league.north, 1)
        assert league.send("north", run).status == 200
        assert server.ended(run).state == "finished"


def test_a_site_that_can_never_lend_it_says_so_and_the_run_tells_why(tmp_path: Path) -> None:
    with in_process(tmp_path, runs=4, gather_s=0.2) as server:
        league = Cards(server, north=1)
        league.north.poll()
        run = server.submit(league.ada, resources={"gpu": 2})
        word = Standing(state="refused", reason="The plan asks for 2 gpu, and this site has 1 gpu.")
        league.north.ask("POST", f"/v1/runs/{run}/standing", word)
        league.waits(run, "north refused it")
        assert "asks for 2 gpu" in league.told(run).sites[0].reason
