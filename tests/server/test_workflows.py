"""Workflows on a server: what sites are asked, and that a restart asks for the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from in_process import SEED, in_process
from league import D, League, N

from hansa.protocol.messages import Task, TaskResult


@pytest.fixture
def league(tmp_path: Path) -> Iterator[League]:
    with in_process(tmp_path, heartbeat_s=30.0) as server:
        yield League(server)


SPEED = {"north": (0.5, 10), "south": (0.125, 8), "west": (0.25, 2)}
"""Seconds of a step, and steps of a pass: 5, 1 and 0.5 seconds each."""


def answer(league: League, name: str, task: Task, steps: int = 4, weight: float = 0.0) -> int:
    """Train as a site does that says how fast it was; return the status."""
    seconds, epoch = SPEED[name]
    metrics = {"step_seconds": (seconds * steps, float(steps)), "epoch_steps": (epoch, 1.0)}
    return league.sites[name].send(task.key, D[name], weight or N[name], metrics).status


def test_sites_are_asked_for_steps_that_end_together_also_after_a_restart(league: League) -> None:
    workflow = {"name": "semi_synchronous", "multiple": 2.0}
    run = league.begin(rounds=2, workflow=workflow)
    for name in D:
        task = league.sites[name].task(run)
        assert task.steps is None
        assert answer(league, name, task) == 200
    asked = {name: league.sites[name].task(run, 2).steps for name in D}
    assert asked == {"north": 20, "south": 80, "west": 40}
    assert answer(league, "north", league.north.task(run, 2)) == 200
    league.restart(run)
    for name in ("south", "west"):
        task = league.sites[name].task(run, 2)
        assert task.steps == asked[name]
        assert answer(league, name, task) == 200
    assert league.server.ended(run).state == "finished"
    opened = league.server.events(run, "opened")
    assert [event.get("steps") for event in opened] == [None, asked]
    row = league.server.events(run, "committed")[2]["row"]
    assert row["pace"]["steps"] == asked and row["pace"]["seconds"] == 10.0


def test_a_site_with_more_steps_than_the_plan_says_may_weigh_them(league: League) -> None:
    """Goal: the sum of weights has room for the steps that the workflow asks for."""
    workflow = {"name": "semi_synchronous", "multiple": 50.0, "most_epochs": 1000.0}
    run = league.begin(rounds=2, workflow=workflow, weighting="steps")
    for name in D:
        assert answer(league, name, league.sites[name].task(run)) == 200
    for name in D:
        task = league.sites[name].task(run, 2)
        assert task.steps is not None and task.steps >= 500
        assert answer(league, name, task, weight=float(task.steps)) == 200
    assert league.server.ended(run).state == "finished"


def test_the_model_goes_from_site_to_site_also_through_a_restart(league: League) -> None:
    run = league.begin(rounds=4, workflow="cyclic")
    x = SEED.copy()
    for number, name in enumerate(("north", "south", "west", "north"), start=1):
        site = league.sites[name]
        task = site.task(run, number)
        others = [other for other in league.sites.values() if other is not site]
        assert all(other.poll([run]).tasks == [] for other in others)
        assert np.array_equal(league.server.stored(task.message.digest), x)
        if number == 2:
            league.restart(run)
            task = site.task(run, number)
        assert answer(league, name, task) == 200
        x = (x + np.float32(D[name])).astype(np.float32)
        league.server.until(lambda n=number: len(league.server.events(run, "committed")) > n)
    assert league.server.ended(run).state == "finished"
    assert np.array_equal(league.server.model(run, 4), x)


def test_a_site_that_falls_silent_in_its_turn_is_passed_over(league: League) -> None:
    """NVFlare's client-controlled cyclic aborts; here nobody waits for a deadline either."""
    run = league.begin(rounds=3, workflow="cyclic")
    assert answer(league, "north", league.north.task(run, 1)) == 200
    league.south.task(run, 2)
    league.server.lose("south")
    assert answer(league, "west", league.west.task(run, 3)) == 200
    assert league.server.ended(run).state == "finished"
    expected = SEED + np.float32(D["north"]) + np.float32(D["west"])
    assert np.array_equal(league.server.model(run, 3), expected.astype(np.float32))
    (problem,) = league.server.events(run, "problem")
    assert (problem["client"], problem["code"], problem["round"]) == ("south", "client-silent", 2)


def test_a_site_that_the_minimum_needs_is_waited_for_in_its_turn(league: League) -> None:
    run = league.begin(rounds=3, workflow="cyclic", cohort={"minimum": 3})
    assert answer(league, "north", league.north.task(run, 1)) == 200
    task = league.south.task(run, 2)
    league.server.lose("south")
    assert league.west.poll([run]).tasks == []
    league.south.poll([run], [task.key])  # it is back
    assert answer(league, "south", task) == 200
    assert answer(league, "west", league.west.task(run, 3)) == 200
    assert league.server.ended(run).state == "finished"
    assert league.server.events(run, "problem") == []


def evaluate(league: League, run: str, number: int, value: float) -> set[str]:
    """Let every site evaluate; return the digests of the models that they were sent."""
    digests = set()
    for index, (_, site) in enumerate(sorted(league.sites.items()), start=1):
        task = site.task(run, number, "evaluate")
        digests.add(task.message.digest)
        result = TaskResult(state="done", metrics={"accuracy": (value * index, float(index))})
        assert site.report(task.key, result).status == 200
    return digests


def test_every_model_goes_to_every_site_and_a_restart_repeats_none(league: League) -> None:
    workflow = {"name": "cross_site_evaluation", "own_models": True}
    run = league.begin(rounds=1, workflow=workflow, evaluate={"clients": 3, "every": 9})
    server = league.server
    for name in D:
        assert answer(league, name, league.sites[name].task(run)) == 200
    evaluate(league, run, 1, 0.5)  # the last round is always evaluated
    (last,) = evaluate(league, run, 2, 0.25)
    for number, name in enumerate(sorted(D), start=3):
        if number == 4:
            league.restart(run)
        assert answer(league, name, league.sites[name].task(run, number)) == 200
        if number == 5:
            server.until(lambda: league.north.task(run, 5, "evaluate"))
            league.restart(run)
        (digest,) = evaluate(league, run, number, 0.125 * number)
        assert digest != last
    assert server.ended(run).state == "finished"
    commits = server.events(run, "committed")
    assert [c["round"] for c in commits] == [0, 1, 2, 3, 4, 5]
    assert len({c["model"] for c in commits[1:]}) == 1  # the global model stays
    found = [c["row"]["cross_site"] for c in commits[2:]]
    assert [f["model"] for f in found] == ["global, last", *sorted(D)]
    values = [f["metrics"]["accuracy"] for f in found]
    assert values == [dict.fromkeys(sorted(D), v) for v in (0.25, 0.375, 0.5, 0.625)]


def test_a_submission_whose_workflow_cannot_work_is_refused(league: League) -> None:
    submission, package, start = league.server.submission(league.ada, workflow="cyclic")
    plan: dict[str, Any] = {**submission.plan, "aggregator": "median"}
    league.server.upload(league.ada, package, start)
    changed = msgspec.structs.replace(submission, plan=plan)
    refused = league.server.ask(league.ada, "POST", "/v1/runs", changed)
    assert (refused.status, refused.code) == (422, "plan-impossible")
