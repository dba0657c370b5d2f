"""Asynchronous rounds on a server, to the model.

Method: a server in this process, sites by hand, dyadic numbers; the oracle is the definition of
each rule in a few lines of NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import SEED, Reply, done, in_process, key_of, update_bytes
from league import D, League, N, refused

from hansa.protocol.messages import Receipt, Standing, Task, TaskResult
from hansa.server.overlapping import Overlapping
from hansa.workflows import Problem


@pytest.fixture
def league(tmp_path: Path) -> Iterator[League]:
    with in_process(tmp_path, heartbeat_s=30.0) as server:
        yield League(server)


def begin(league: League, *names: str, rounds: int, **plan: Any) -> str:
    options = {"name": "asynchronous", **plan.pop("workflow", {})}
    return league.begin(*names, rounds=rounds, workflow=options, **plan)


def commits(league: League, run: str, number: int) -> dict[str, Any]:
    """Wait until a round is committed; return its event."""
    events = league.server.until(
        lambda: [e for e in league.server.events(run, "committed") if e["round"] == number],
        f"round {number} is committed",
    )
    found: dict[str, Any] = events[0]
    return found


def send(league: League, name: str, task: Task, weight: float = 0) -> Reply:
    return league.sites[name].send(task.key, D[name], weight or N[name])


def start(league: League, run: str, number: int = 1) -> dict[str, Task]:
    return {name: league.sites[name].task(run, number) for name in D}


def mean(latest: Mapping[str, tuple[np.ndarray, float]]) -> np.ndarray:
    """Return the weighted mean of the latest models, by its definition."""
    total = sum(weight for _, weight in latest.values())
    whole = sum(weight * model.astype(np.float64) for model, weight in latest.values())
    return (whole / total).astype(np.float32)


def test_each_update_makes_a_commit_and_its_site_goes_on_at_once(league: League) -> None:
    """Nobody answers but north, five times; south and west are at work all the while."""
    run = begin(league, rounds=5)
    tasks = start(league, run)
    x, models = SEED, [SEED]
    for number in range(1, 6):
        task = tasks["north"] if number == 1 else league.north.task(run, number)
        assert np.array_equal(league.server.stored(task.message.digest), models[-1])
        assert send(league, "north", task).status == 200
        x = models[-1] + np.float32(D["north"])  # the only latest model there is
        commits(league, run, number)
        models.append(league.server.model(run, number))
        assert np.array_equal(models[-1], x)
        for name in ("south", "west") if number < 5 else ():
            said = league.sites[name].poll([run], [tasks[name].key])
            assert said.tasks == [] and said.cancelled == []
    assert league.server.ended(run).state == "finished"


def test_a_site_whose_owner_must_decide_is_asked_anew_and_holds_no_buffer_up(
    league: League,
) -> None:
    run = begin(league, rounds=2, workflow={"buffer": 2}, cohort={"minimum": 3})
    tasks = start(league, run)
    asks = Standing(state="waiting", reason="the approval was for 1 round")
    path = f"/v1/runs/{run}/standing"
    assert league.west.ask("POST", path, asks).status == 200
    assert league.west.poll([run], [tasks["west"].key]).cancelled == [tasks["west"].key]
    for name in ("north", "south"):
        assert send(league, name, tasks[name]).status == 200
    assert commits(league, run, 1)["row"]["clients"]["failed"] == 1
    league.west.ready(run, N["west"])
    for name in ("north", "west"):
        assert send(league, name, league.sites[name].task(run, 2)).status == 200
    assert league.server.ended(run).state == "finished"


def test_the_model_is_the_mean_of_the_latest_models_with_their_own_weights(
    league: League,
) -> None:
    """FedRec: slow sites began from old models; weights change from one update to the next."""
    run = begin(league, rounds=6)
    tasks, models = start(league, run), [SEED]
    latest: dict[str, tuple[np.ndarray, float]] = {}
    turns = [("north", 1), ("north", 0.5), ("west", 4), ("south", 3), ("west", 2), ("north", 0.75)]
    for number, (name, weight) in enumerate(turns, start=1):
        task = tasks.pop(name) if name in tasks else league.sites[name].task(run, number)
        base = models[task.key.round - 1]
        assert np.array_equal(league.server.stored(task.message.digest), base)
        assert send(league, name, task, weight).status == 200
        latest[name] = (base + np.float32(D[name]), weight)
        row = commits(league, run, number)["row"]
        assert row["staleness"] == {name: number - task.key.round}
        models.append(league.server.model(run, number))
        assert np.array_equal(models[-1], mean(latest))
        tasks |= {name: league.sites[name].task(run, number + 1)} if number < 6 else {}
    assert league.server.ended(run).state == "finished"


def test_a_float16_model_goes_on_from_what_its_file_holds_over_a_restart(league: League) -> None:
    """The mean is rounded at each commit; west began before the restart, from the seed model."""
    seed = (SEED + np.array([1 / 3, 0.1, -0.7])).astype(np.float16)
    run = begin(league, rounds=4, model=seed)
    tasks, models = start(league, run), [seed]
    latest: dict[str, tuple[np.ndarray, float]] = {}
    turns = [("north", 1), ("south", 3), ("north", 0.5), ("west", 4)]
    for number, (name, weight) in enumerate(turns, start=1):
        task = tasks[name]
        base = models[task.key.round - 1]
        found = league.server.stored(task.message.digest)
        assert found.dtype == np.float16 and np.array_equal(found, base)
        assert send(league, name, task, weight).status == 200
        latest[name] = (base.astype(np.float32) + np.float32(D[name]), weight)
        commits(league, run, number)
        models.append(league.server.model(run, number))
        assert np.array_equal(models[-1], mean(latest).astype(np.float16))
        if number < 4:
            tasks[name] = league.sites[name].task(run, number + 1)
        if number == 2:
            league.restart(run)
            tasks = {n: league.sites[n].task(run, task.key.round) for n, task in tasks.items()}
    assert league.server.ended(run).state == "finished"


def test_a_restart_counts_every_update_once_and_comes_to_the_same_bytes(league: League) -> None:
    """Three sites answer before the first commit is through; the server is started anew thrice."""
    run = begin(league, rounds=4, workflow={"buffer": 2})
    tasks = start(league, run)
    for name in ("west", "north"):
        assert send(league, name, tasks[name]).status == 200
    commits(league, run, 1)
    again = league.north.task(run, 2)
    league.restart(run)
    assert league.north.task(run, 2) == again
    south = league.south.task(run, 1)  # was asked in round 1, and still is
    assert south.message == tasks["south"].message
    first = send(league, "south", south).read(Receipt)
    league.restart(run)
    assert league.south.poll([run]).tasks == []  # it has answered, and knows what counts
    once_more = done(update_bytes(D["south"]), N["south"])
    assert league.south.report(south.key, once_more).read(Receipt) == first
    assert send(league, "north", league.north.task(run, 2)).status == 200
    commits(league, run, 2)
    league.restart(run)
    one = mean({"west": (SEED + np.float32(D["west"]), 4), "north": (SEED + np.float32(D["north"]), 1)})  # noqa: E501  # fmt: skip
    assert np.array_equal(league.server.model(run, 1), one)
    latest = {
        "west": (SEED + np.float32(D["west"]), 4.0),
        "south": (SEED + np.float32(D["south"]), 3.0),
        "north": (one + np.float32(D["north"]), 1.0),
    }
    assert np.array_equal(league.server.model(run, 2), mean(latest))
    assert len(league.south.receipts()) == 1


def test_an_answer_that_is_here_and_not_yet_used_survives_a_restart(league: League) -> None:
    """It was receipted before a commit that did not need it: the next one uses it."""
    run = begin(league, rounds=3)
    tasks = start(league, run)
    answers = [send(league, name, tasks[name]) for name in ("west", "south", "north")]
    assert [answer.status for answer in answers] == [200, 200, 200]
    league.server.ended(run)
    rows = [commits(league, run, number)["row"]["staleness"] for number in (1, 2, 3)]
    assert rows == [{"west": 0}, {"south": 1}, {"north": 2}]


def test_a_model_that_is_being_evaluated_is_the_same_after_a_restart(league: League) -> None:
    """Answers that have come since then are not in it, from however early a round they are."""
    run = begin(league, rounds=4, evaluate={"clients": 2, "every": 2})
    tasks = start(league, run)
    assert send(league, "north", tasks["north"]).status == 200
    commits(league, run, 1)
    assert send(league, "north", league.north.task(run, 2)).status == 200
    before = league.north.task(run, 2, "evaluate")
    assert send(league, "west", tasks["west"]).status == 200
    league.restart(run)
    after = league.north.task(run, 2, "evaluate")
    assert after == before
    measured = TaskResult(state="done", metrics={"loss": (0.5, 1.0)})
    assert league.north.report(after.key, measured).status == 200
    assert commits(league, run, 2)["row"]["staleness"] == {"north": 0}
    assert commits(league, run, 3)["row"]["staleness"] == {"west": 2}


def test_an_answer_while_a_round_is_closed_is_neither_lost_nor_asked_for_again(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the round has looked for the last time and before it says who is at work."""
    run = begin(league, rounds=3)
    tasks = start(league, run)
    told = Overlapping.problems

    def meanwhile(overlapping: Overlapping) -> list[Problem]:
        if "west" in tasks:
            assert send(league, "west", tasks.pop("west")).status == 200
        return told(overlapping)

    monkeypatch.setattr(Overlapping, "problems", meanwhile)
    assert send(league, "north", tasks["north"]).status == 200
    assert commits(league, run, 1)["at_work"].keys() == {"south", "west"}
    assert commits(league, run, 2)["row"]["staleness"] == {"west": 1}
    assert league.west.poll([run]).tasks[0].key.round == 3


def test_a_site_that_falls_silent_stalls_nobody_and_goes_on_when_it_is_back(
    league: League,
) -> None:
    run = begin(league, rounds=3)
    tasks = start(league, run)
    league.server.lose("west")
    assert send(league, "north", tasks["north"]).status == 200
    commits(league, run, 1)
    assert send(league, "north", league.north.task(run, 2)).status == 200
    commits(league, run, 2)
    assert send(league, "west", league.west.task(run, 1)).status == 200
    assert commits(league, run, 3)["row"]["staleness"] == {"west": 2}
    assert league.server.ended(run).state == "finished"


def test_a_site_that_alone_is_waited_for_and_lost_begins_anew_when_it_is_back(
    league: League,
) -> None:
    run = begin(league, "north", "west", rounds=4)
    tasks = {name: league.sites[name].task(run) for name in ("north", "west")}
    league.server.lose("west")
    for number in (1, 2):
        task = tasks["north"] if number == 1 else league.north.task(run, number)
        assert send(league, "north", task).status == 200
        commits(league, run, number)
    (problem,) = league.server.until(lambda: league.server.events(run, "problem"))
    assert (problem["client"], problem["code"]) == ("west", "client-silent")
    third = league.north.task(run, 3)  # begun without west
    league.west.poll([run])
    assert send(league, "north", third).status == 200
    fresh = league.west.task(run, 4)
    commits(league, run, 3)
    assert np.array_equal(league.server.stored(fresh.message.digest), league.server.model(run, 3))
    assert refused(send(league, "west", tasks["west"])) == (409, "upload-unwanted")
    assert send(league, "west", fresh).status == 200
    assert league.server.ended(run).state == "finished"


def test_all_silent_is_no_failure_and_the_run_waits_for_them(league: League) -> None:
    run = begin(league, rounds=3)
    start(league, run)
    league.server.lose(*D)
    assert commits(league, run, 1)["row"]["clients"]["accepted"] == 0
    league.server.until(lambda: league.server.facts(run).state == "waiting")
    league.north.poll([run])
    assert send(league, "north", league.north.task(run, 2)).status == 200
    assert np.array_equal(league.server.model(run, 1), SEED)


def test_a_run_fails_when_all_say_that_they_cannot(league: League) -> None:
    run = begin(league, rounds=3)
    for name, task in start(league, run).items():
        assert league.sites[name].fail(task.key).status == 200
    ended = league.server.ended(run)
    assert ended.state == "failed" and "run-all-failed" in ended.reason


def test_an_update_that_cannot_be_summed_is_refused_and_the_others_go_on(league: League) -> None:
    run = begin(league, rounds=1)
    tasks = start(league, run)
    nan = league.west.send(tasks["west"].key, [1.0, float("nan"), 0.0], 4)
    assert refused(nan) == (422, "update-not-finite")
    assert send(league, "south", tasks["south"]).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), SEED + np.float32(D["south"]))


def test_fed_buff_divides_by_the_buffer_and_discounts_what_is_stale(league: League) -> None:
    """Nguyen et al. 2022, Alg. 1: sum w s delta / sum w, with s = 1 / sqrt(1 + tau)."""
    options = {"rule": "fed_buff", "buffer": 2, "staleness": "polynomial"}
    run = begin(league, rounds=4, workflow=options)
    tasks = start(league, run)
    pairs = [("north", "west"), ("north", "west"), ("north", "west"), ("north", "south")]
    x = SEED
    for number, pair in enumerate(pairs, start=1):
        for name in pair:
            task = tasks.pop(name) if name in tasks else league.sites[name].task(run, number)
            assert send(league, name, task).status == 200
        commits(league, run, number)
        factors = {"south": 0.5}  # three commits have gone by
        whole = sum(N[n] * factors.get(n, 1.0) * np.array(D[n]) for n in pair)
        x = x + (whole / sum(N[n] for n in pair)).astype(np.float32)
        assert np.array_equal(league.server.model(run, number), x)
    assert league.server.ended(run).state == "finished"


def test_fed_async_mixes_by_staleness(league: League) -> None:
    """Xie et al. 2019, Alg. 1, with alpha = 1/2 and the hinge with a = 1, b = 0."""
    options = {"rule": "fed_async", "mixing": 0.5, "staleness": "hinge", "a": 1.0, "b": 0.0}
    run = begin(league, rounds=4, workflow=options)
    tasks, models = start(league, run), [SEED.astype(np.float64)]
    for number, (name, alpha) in enumerate(
        [("north", 0.5), ("north", 0.5), ("north", 0.5), ("west", 0.125)], start=1
    ):
        task = tasks.pop(name) if name in tasks else league.sites[name].task(run, number)
        assert send(league, name, task).status == 200
        commits(league, run, number)
        mine = models[task.key.round - 1] + np.array(D[name])
        models.append((1 - alpha) * models[-1] + alpha * mine)  # dyadic, so exact in float32 too
        assert np.array_equal(league.server.model(run, number), models[-1].astype(np.float32))


def test_a_site_keeps_its_update_until_the_round_that_used_it_is_committed(
    league: League,
) -> None:
    """Law L5: rounds are committed while it trains, and it is told to keep all."""
    run = begin(league, rounds=4)
    tasks = start(league, run)
    for number in (1, 2):
        task = tasks["north"] if number == 1 else league.north.task(run, number)
        assert send(league, "north", task).status == 200
        commits(league, run, number)
    told = {c.run: c.round for c in league.west.poll([run], [tasks["west"].key]).committed}
    assert told == {run: 0}
    assert {c.run: c.round for c in league.north.poll([run]).committed} == {run: 2}
    assert send(league, "west", tasks["west"]).status == 200
    commits(league, run, 3)
    assert {c.run: c.round for c in league.west.poll([run]).committed} == {run: 3}


def test_only_models_that_are_in_use_stay_on_the_disk(league: League) -> None:
    """The seed, the best, the last, those that somebody trains on, and each site's latest."""
    run = begin(league, "north", "south", rounds=9, keep={"every": 0})
    tasks = {name: league.sites[name].task(run) for name in ("north", "south")}
    for number in range(1, 6):
        task = tasks["north"] if number == 1 else league.north.task(run, number)
        assert send(league, "north", task).status == 200
        commits(league, run, number)
    league.north.task(run, 6)
    assert len(set(league.server.state.blobs.digests())) == 4 + 0  # package, seed, last, north's
    assert send(league, "south", tasks["south"]).status == 200
    commits(league, run, 6)
    for number in (1, 2, 3, 4):
        with pytest.raises(FileNotFoundError):
            league.server.model(run, number)


def test_what_was_uploaded_and_not_reported_is_not_counted(league: League) -> None:
    run = begin(league, rounds=1)
    tasks = start(league, run)
    content = update_bytes(D["west"])
    assert league.west.put(content, tasks["west"].key).status == 200
    assert send(league, "north", tasks["north"]).status == 200
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 1), SEED + np.float32(D["north"]))
    answer = league.west.report(key_of(run), done(content, N["west"]))
    assert refused(answer)[0] == 409
