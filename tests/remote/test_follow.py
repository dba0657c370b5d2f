"""Following a run: the server's events and models in a run folder, whatever comes between."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from projects import make_project
from stand_in import StandIn, event, join, model, unreachable

from hansa.errors import HansaError, RequestRefused, RunError
from hansa.identity import Membership
from hansa.project import open_project
from hansa.remote.follow import Story, follow
from hansa.remote.submit import submit
from hansa.runs import RunFolder
from hansa.runs.record import run_record, write_report
from hansa.runs.reproduce import saved_project
from hansa.runs.result import model_file
from hansa.store.files import load_params


class Looker:
    """Writes down all that it is told."""

    def __init__(self) -> None:
        self.rounds: list[int] = []
        self.problems: list[list[str]] = []
        self.steps: list[tuple[str, int, int]] = []
        self.words: list[str] = []

    def working(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))

    def told(self, text: str) -> None:
        self.words.append(text)

    def committed(self, row: dict[str, Any], problems: Sequence[Any]) -> None:
        self.rounds.append(row["round"])
        self.problems.append([p.client for p in problems])


class Case:
    """A run that has been handed over, at its stand-in."""

    def __init__(self, server: StandIn, membership: Membership, run: RunFolder) -> None:
        self.server, self.membership, self.run = server, membership, run

    def follow(self) -> Looker:
        looker = Looker()
        follow(self.run, self.server, membership=self.membership, view=looker)  # type: ignore[arg-type]
        return looker


@pytest.fixture
def case(home: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    server, membership = join(monkeypatch, home / "league")
    monkeypatch.setattr("hansa.limits.AWAY_PAUSE_S", 0.01)
    folder = make_project(home / "study", rounds=6, more="[keep]\nevery = 2")
    return Case(server, membership, submit(open_project(folder), membership, runs=home / "runs"))


def kept(run: RunFolder) -> list[int]:
    return sorted(int(p.stem.removeprefix("round-")) for p in run.path.glob("models/*.safetensors"))


def test_the_log_is_the_servers_and_the_models_are_those_that_a_simulation_keeps(
    case: Case,
) -> None:
    case.server.run(5, best=3)
    looker = case.follow()
    assert case.run.log.events == case.server.events
    assert looker.rounds == [1, 2, 3, 4, 5]
    assert kept(case.run) == [2, 3, 4, 5]
    for number in (2, 3, 4, 5):
        case.run.check_model(number)
    assert float(load_params(model_file(case.run, "best"))["w"][0]) == 3.0
    final, state = case.run.load(case.run.commits()[-1])
    assert (final.digest(), state) == (model(5.0).digest(), None)
    assert len((case.run.path / "metrics.jsonl").read_text().splitlines()) == 5
    assert RunFolder(case.run.path).state == "finished"


def test_progress_is_told_as_in_a_simulation_and_waiting_in_words(case: Case) -> None:
    case.server.run(1)
    looker = case.follow()
    assert looker.steps == [("training", 0, 2), ("training", 1, 2), ("training", 2, 2)]
    assert looker.words == [
        "north takes part with 40 examples",
        "waiting: south has not decided",
        "started",
    ]


@pytest.mark.parametrize("cut", range(1, 24))
def test_broken_off_anywhere_and_begun_again_no_event_is_written_twice(
    case: Case, cut: int
) -> None:
    case.server.run(4)
    case.server.page = 2
    left = [cut]

    def interrupt(path: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    case.server.before_answer = interrupt
    rounds: list[int] = []
    for _ in range(2):
        looker = Looker()
        with contextlib.suppress(KeyboardInterrupt):
            follow(case.run, case.server, membership=case.membership, view=looker)  # type: ignore[arg-type]
        rounds += looker.rounds
    assert case.run.log.events == case.server.events
    assert rounds == [1, 2, 3, 4]
    rows = (case.run.path / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 4


def test_a_crash_between_log_and_model_is_made_good(case: Case) -> None:
    case.server.run(2)
    case.run.mirror(case.server.events)  # and then the power went
    assert kept(case.run) == [0]
    case.follow()
    assert kept(case.run) == [2]
    case.run.check_model(2)


def test_a_server_that_is_away_is_waited_for_and_told_of_once(case: Case) -> None:
    case.server.run(1)
    busy = RequestRefused("server-refused", "It starts.", "Wait.", status=503)
    case.server.trouble = [unreachable(), unreachable(), busy]
    looker = case.follow()
    assert [w for w in looker.words if "server" in w] == [
        "The server is away, waiting for it: Nothing is heard.",
        "The server is back.",
    ]
    assert case.run.state == "finished"


def test_a_refusal_is_not_waited_for(case: Case) -> None:
    case.server.trouble = [
        RequestRefused("identity-member", "You are revoked.", "Ask.", status=401)
    ]
    with pytest.raises(RequestRefused, match="revoked"):
        case.follow()


def test_a_server_that_was_set_back_is_noticed(case: Case) -> None:
    case.server.run(2)
    case.run.mirror(case.server.events[:-1])
    del case.server.events[3:]
    with pytest.raises(RunError) as error:
        case.follow()
    assert error.value.code == "run-changed"


def test_a_run_that_has_got_another_ones_name_is_not_followed_in_its_place(case: Case) -> None:
    """A restored server gives names again; one's folder then told of another's model."""
    case.server.run(2)
    case.run.mirror(case.server.events[:4])
    before = list(case.run.log.events)
    case.server.events[3] = {**case.server.events[3], "at": "2026-11-24T00:00:00Z"}
    with pytest.raises(RunError) as error:
        case.follow()
    assert error.value.code == "run-changed" and case.run.log.events == before


def test_a_run_that_a_restored_server_has_lost_is_told_as_that(case: Case) -> None:
    case.server.run(2)
    case.run.mirror(case.server.events[:4])
    gone = RequestRefused("run-not-found", "There is no run.", "List them.", status=404)
    case.server.trouble = [gone]
    with pytest.raises(RunError) as error:
        case.follow()
    assert error.value.code == "run-changed" and "--new" in error.value.hint


def test_a_server_that_is_set_back_while_it_is_followed_is_noticed(case: Case) -> None:
    case.server.run(4)
    asked = [0]

    def away(path: str) -> None:
        asked[0] += 1
        if asked[0] == 4:
            del case.server.events[2:]  # and more happens there afterwards
            case.server.events += [{"kind": "resumed", "at": "2026-11-24T00:00:00Z"}] * 40
            raise unreachable()

    case.server.before_answer = away
    with pytest.raises(RunError) as error:
        case.follow()
    assert error.value.code == "run-changed"
    assert not any(e["kind"] == "resumed" for e in case.run.log.events)


def test_models_that_were_replaced_before_they_were_asked_for_are_left_out(case: Case) -> None:
    case.server.run(4, best=4)
    for value in (1.0, 3.0):  # neither last nor best nor second: the server has forgotten them
        del case.server.blobs[model(value).digest()]
    case.server.page = 7  # so that round 1 is the last of its page
    case.follow()
    assert kept(case.run) == [2, 4]


def test_a_final_model_that_the_server_lacks_is_an_error(case: Case) -> None:
    case.server.run(2)
    del case.server.blobs[model(2.0).digest()]
    with pytest.raises(RequestRefused) as error:
        case.follow()
    assert error.value.said == "blob-missing"


def test_large_models_come_when_the_run_is_over(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    case.server.run(5)
    monkeypatch.setattr(importlib.import_module("hansa.remote.follow"), "FOLLOW_MODEL_BYTES", 10)
    case.follow()
    assert case.server.fetched == [model(float(n)).digest() for n in (2, 4, 5)]


def test_problems_belong_to_the_round_that_had_them_and_are_told_once() -> None:
    looker = Looker()
    server = StandIn()
    server.commit(1, 1.0)
    server.commit(2, 2.0)
    bad = event("problem", round=1, client="south", what="failed", code="client-failed",
                message="it raised", phase="train", file=None)  # fmt: skip
    story = Story(looker)  # type: ignore[arg-type]
    for told in (bad, bad, *server.events):
        story.tell(told)
    assert looker.problems == [["south"], []]


def test_a_client_that_is_lost_and_comes_back_is_at_work_again() -> None:
    looker = Looker()
    story = Story(looker)  # type: ignore[arg-type]
    story.tell(event("opened", round=1, phase="train", cohort=["a", "b"]))
    for client, state in [("a", "lost"), ("a", "returned"), ("b", "accepted"), ("a", "accepted")]:
        story.tell(event("result", round=1, phase="train", client=client, state=state))
    assert [done for _, done, _ in looker.steps] == [0, 1, 0, 1, 2]
    assert looker.words == [
        "round 1: a is not heard of any more",
        "round 1: a is back",
    ]


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_record_and_report_know_how_a_run_ended(case: Case, state: str) -> None:
    case.server.run(2)
    case.server.events[-1] |= {"state": state, "reason": "stopped by ada"}
    case.follow()
    record = run_record(case.run)
    assert (record["state"], record["reason"], record["final"]) == (state, "stopped by ada", True)
    page = write_report(case.run).read_text()
    assert "stopped by ada" in page.lower() or "Stopped by ada" in page
    assert "continues with round" not in page


def test_a_run_that_goes_on_elsewhere_is_running_and_says_where(case: Case) -> None:
    case.server.run(3)
    case.run.mirror(case.server.events[:12])
    record = run_record(case.run)
    assert record["state"] == "running"
    assert "far-7 at https://hansa.test:8443" in record["reason"]
    assert "hansa run --resume steps-1" in record["reason"]
    with pytest.raises(RunError, match="bring it here with: hansa run --resume steps-1"):
        model_file(case.run)


def test_a_run_of_sites_cannot_be_reproduced_here(case: Case) -> None:
    case.server.run(1)
    case.follow()
    with pytest.raises(HansaError, match="data are not here") as error:
        saved_project(case.run)
    assert error.value.code == "run-not-reproduced"
