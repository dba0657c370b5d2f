"""Named tasks at a server: what a site sends is checked, counted once, and resumed after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import digest_of, done, in_process, joined, update_bytes
from league import League, refused

from hansa.params import Params
from hansa.protocol.messages import Task
from hansa.rounds.questions import packed, unpacked
from hansa.store.files import load_params

PHASE = "ask.rows.0"
ASKED = {"name": "broadcast_and_process", "task": "rows", "settings": {"why": "to plan"}}


@pytest.fixture
def league(tmp_path: Path) -> Iterator[League]:
    with in_process(tmp_path, heartbeat_s=30.0) as server:
        yield League(server)


def answer(value: float) -> bytes:
    return joined(packed(Params.of({"w": np.array([value, -value])}), {"rows": value}))


def asked(league: League, name: str, run: str, phase: str = PHASE) -> Task:
    return league.sites[name].task(run, 1, phase)


def send(league: League, name: str, run: str, content: bytes) -> Any:
    site, key = league.sites[name], asked(league, name, run).key
    put = site.put(content, key)
    return put if put.status != 200 else site.report(key, done(content, 0.0))


def test_answers_are_counted_once_and_reported(league: League, tmp_path: Path) -> None:
    run = league.begin(rounds=1, workflow=ASKED)
    task = asked(league, "north", run)
    found = league.north.ask("GET", f"/v1/blobs/{task.message.digest}")
    (tmp_path / "question").write_bytes(found.body)
    assert unpacked(load_params(tmp_path / "question")).facts == {"why": "to plan"}
    first = send(league, "north", run, answer(3.5))
    again = league.north.report(task.key, done(answer(3.5), 0.0))
    assert first.status == again.status == 200 and first.body == again.body
    other = league.north.report(task.key, done(answer(9.0), 0.0))
    assert refused(other) == (409, "update-conflict")
    for name, value in (("south", -2.0), ("west", 0.25)):
        assert send(league, name, run, answer(value)).status == 200
    assert league.server.ended(run).state == "finished"
    row = league.server.events(run, "committed")[1]["row"]
    assert row["report"] == {n: {"rows": v} for n, v in
                             (("north", 3.5), ("south", -2.0), ("west", 0.25))}  # fmt: skip
    (receipt,) = league.north.receipts()
    assert (receipt.phase, receipt.digest) == (PHASE, digest_of(answer(3.5)))


def test_no_times_are_kept_of_named_tasks_for_a_round_may_ask_very_often(league: League) -> None:
    run = league.begin(rounds=2, workflow=ASKED)
    for number in (1, 2):
        for name, site in league.sites.items():
            key, content = site.task(run, number, PHASE).key, answer(float(len(name)))
            site.put(content, key)
            assert site.report(key, done(content, 0.0)).status == 200
    assert league.server.ended(run).state == "finished"
    timed = league.server.events(run, "timed")
    assert len(timed) == 2
    assert [s for event in timed for s in event["spans"] if s["span"] == "task"] == []


HOSTILE = {
    "no answer": update_bytes([1.0, 2.0, 3.0]),
    "facts of another kind": joined(Params.of({}, {"hansa.facts": "[1, 2]"})),
    "facts nested beyond all": joined(Params.of({}, {"hansa.facts": "[" * 50_000})),
    "facts of more than a MiB": joined(Params.of({}, {"hansa.facts": f'["{"y" * 2**20}"]'})),
    "more beside them": joined(Params.of({}, {"hansa.facts": "{}", "code": "print()"})),
    "no tensors at all": b"{" * 200,
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_answer_is_refused_and_the_others_count(league: League, what: str) -> None:
    run = league.begin(rounds=1, workflow=ASKED)
    assert refused(send(league, "west", run, HOSTILE[what])) == (422, "task-answer")
    for name in ("north", "south"):
        assert send(league, name, run, answer(1.0)).status == 200
    assert league.server.ended(run).state == "finished"
    row = league.server.events(run, "committed")[1]["row"]
    assert sorted(row["report"]) == ["north", "south"]


def test_an_answer_that_the_process_refuses_is_told_among_the_run_s_events(
    league: League, tmp_path: Path
) -> None:
    run = league.begin(rounds=1, workflow={**ASKED, "process": "mean"})
    task = asked(league, "north", run)
    (tmp_path / "q").write_bytes(league.north.ask("GET", f"/v1/blobs/{task.message.digest}").body)
    model = unpacked(load_params(tmp_path / "q")).params
    for name, weight in (("north", 1), ("south", 2), ("west", -1)):
        assert send(league, name, run, joined(packed(model, {"weight": weight}))).status == 200
    assert league.server.ended(run).state == "finished"
    (told,) = league.server.events(run, "problem")
    assert (told["client"], told["what"], told["phase"]) == ("west", "refused", "round")
    assert told["code"] == "update-weight"


def test_only_what_is_asked_for_may_be_uploaded_or_reported(league: League) -> None:
    run = league.begin("north", "south", rounds=1, workflow=ASKED)
    key = asked(league, "north", run).key
    assert league.west.put(answer(1.0), key).code == "upload-unwanted"
    for phase in ("train", "evaluate", "ask.other.0", "ask.rows.1", "ask.rows.01", "x", "ask..0"):
        target = f"/v1/runs/{run}/rounds/1/{phase}/result"
        reply = league.north.ask("POST", target, done(answer(1.0), 0.0))
        assert reply.status in (404, 409, 503), phase
    # Two for each exchange that the round may have had: this one, and one of training.
    codes = [league.north.put(answer(float(number)), key).code for number in range(6)]
    assert codes[2:4] == ["", ""] and set(codes[4:]) == {"upload-unwanted"}


def test_an_answer_that_counted_before_a_restart_counts_after_it(league: League) -> None:
    run = league.begin(rounds=1, workflow=ASKED)
    assert send(league, "north", run, answer(3.5)).status == 200
    league.server.restart()
    for site in league.sites.values():
        site.poll([run])
    assert not [t for t in league.north.poll([run]).tasks if t.key.phase == PHASE]
    for name in ("south", "west"):
        assert send(league, name, run, answer(-1.0)).status == 200
    assert league.server.ended(run).state == "finished"
    row = league.server.events(run, "committed")[1]["row"]
    assert row["report"]["north"] == {"rows": 3.5} and len(row["report"]) == 3


def test_an_answer_that_the_server_s_disk_has_lost_is_asked_for_again(league: League) -> None:
    run = league.begin(rounds=1, workflow=ASKED)
    assert send(league, "north", run, answer(3.5)).status == 200
    updates = league.server.state.updates
    updates.of(run, 1, "north").remove(digest_of(answer(3.5)))
    league.server.restart()
    for site in league.sites.values():
        site.poll([run])
    assert asked(league, "north", run).attempt == 2
    for name in ("north", "south", "west"):
        assert send(league, name, run, answer(3.5)).status == 200
    assert league.server.ended(run).state == "finished"
    assert len(league.north.receipts()) == 1
