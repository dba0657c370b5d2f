"""Defects of MetisFL in what it tells of times and models, each by what must not happen here."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from league import D, League

import hansa.spans
from hansa.compat.metisfl.environment_keys import sentence_of
from hansa.params import Params
from hansa.plan.schema import StopPlan
from hansa.spans import Spans, effort
from hansa.store.lineage import Lineage, MemoryLineage, stale
from hansa.workflows.stopping import Progress, advance


class Clock:
    """Both clocks; the one on the wall may be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mono, self.wall = 50.0, 1_700_000_000.75
        monkeypatch.setattr(hansa.spans, "monotonic", lambda: self.mono)
        monkeypatch.setattr(hansa.spans, "wall", lambda: self.wall)

    def pass_by(self, seconds: float) -> None:
        self.mono, self.wall = self.mono + seconds, self.wall + seconds


def test_what_is_called_milliseconds_is_not_seconds() -> None:
    """8: every field in `_ms` held seconds."""
    told = effort(0.25, 3.0, 20, 8)  # three seconds for twenty steps, eight of them an epoch
    assert (told["step_ms"], told["epoch_ms"], told["epochs"]) == (150.0, 1200.0, 2.5)


def test_times_are_not_cut_to_whole_seconds_and_follow_no_clock_that_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """8: times were whole seconds, and durations differences of the wall's clock."""
    clock = Clock(monkeypatch)
    spans = Spans()
    clock.pass_by(1.0)
    spans.open(1)
    for client, seconds in (("a", 0.125), ("b", 0.5)):
        spans.handed("train", client)
        clock.pass_by(seconds)
    clock.wall -= 3_600  # summer time ends, or an operator sets it
    spans.received("train", "b", "done", **effort(0.25, 0.125, 4, 4))
    began = clock.mono
    clock.pass_by(0.0625)
    spans.note("aggregate", began, blocks=2)
    whole, summed, a, b = spans.close(1)["spans"]
    assert (whole["seconds"], summed["seconds"], b["seconds"]) == (0.6875, 0.0625, 0.5)
    assert (a["begin_s"], b["begin_s"], summed["begin_s"]) == (0.0, 0.125, 0.625)
    assert "seconds" not in a  # nobody has heard of it
    at = [datetime.datetime.fromisoformat(s["at"]).timestamp() for s in (a, b, summed)]
    assert at == [1_700_000_001.75, 1_700_000_001.875, 1_700_000_002.375]


def test_an_insertion_that_takes_time_is_not_told_as_none(league: League) -> None:
    """1.7: model_insertion_duration_ms was declared and never filled."""
    run = league.begin()
    for name in D:
        assert league.send(name, run).status == 200
    assert league.server.ended(run).state == "finished"
    (timed,) = league.server.events(run, "timed")
    tasks = [s for s in timed["spans"] if s["span"] == "task"]
    assert sorted(t["client"] for t in tasks) == sorted(D)
    assert all(t["insert_s"] > 0 and t["select_s"] > 0 for t in tasks)


def test_a_cutoff_of_more_than_a_day_does_not_begin_anew() -> None:
    """10: the minutes of a run were those of `.seconds`, which wraps after 24 hours."""
    stop, row = StopPlan(minutes=2_000.0), {"round": 3}
    early = advance(Progress(), row, stop, rounds=9, minutes=24 * 60 + 1.0)
    assert early.ended is None
    assert advance(early, row, stop, rounds=9, minutes=2_000.5).ended is not None


def test_models_of_a_store_do_not_come_back_newest_first() -> None:
    """2.5: keys were newest first where the contract said oldest, and the index ran over."""
    lineage: Lineage = MemoryLineage()
    for number in range(1, 6):
        lineage.add(number, [("a", Params.of({"w": np.float32([number])}))], newest=4)
    assert lineage.numbers("a") == [2, 3, 4, 5]
    assert stale([1, 2], 5) == [] and lineage.get("a", 1) is None


def test_a_password_of_an_environment_is_not_copied_anywhere() -> None:
    """11: SSH passwords stood in a file that was read and passed on."""
    for key in ("Password", "Passphrase"):
        assert "was not copied" in sentence_of(f"Learners[3].ConnectionConfig.{key}")
