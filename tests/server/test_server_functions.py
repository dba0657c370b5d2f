"""Goal: a submitter's functions act at the server only where its operator says so, and keep L3, L6.

Method: a whole server in this process, sites by hand, and the closed forms of the league.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import in_process as world
import numpy as np
import pytest
from in_process import SEED, in_process, submission_of
from league import D, League, expected

from hansa.server.submissions import Serving

FUNCTIONS = b"""
import numpy as np
def select(clients, memory):
    memory["rounds"] = memory.get("rounds", 0) + 1
    return [c for c in clients if c != "west"]
def settings(round, memory):
    return {"lr": 0.5 / round, "told": "all"}
def aggregate(model, updates, memory):
    before = memory.get("before", np.zeros(3, "f4"))
    memory["before"] = sum(u.model["w"] - model["w"] for u in updates.values())
    return {"w": model["w"] + memory["before"] + before}
"""

WANTED = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture
def code() -> Iterator[dict[str, bytes]]:
    with mock.patch.dict(world.CODE, {"server.py": FUNCTIONS}):
        yield world.CODE


def begun(league: League, **plan: Any) -> str:
    return league.begin(server_functions={"file": "server.py"}, **plan)


def by_hand(rounds: int) -> np.ndarray:
    step = np.array(D["north"], "f4") + np.array(D["south"], "f4")
    model, before = SEED, np.zeros(3, "f4")
    for _ in range(rounds):
        model, before = model + step + before, step
    return model


@pytest.mark.parametrize("said", [{}, {"server_functions": "refused"}])
def test_a_server_runs_none_unless_its_operator_says_so(
    tmp_path: Path, code: dict[str, bytes], said: dict[str, str]
) -> None:
    with in_process(tmp_path, **said) as server:
        league = League(server)
        submission, package, seed = submission_of(
            league.ada, server_functions={"file": "server.py"}
        )
        for blob, ref in ((package, submission.package), (seed, submission.seed_model)):
            assert server.ask(league.ada, "PUT", f"/v1/blobs/{ref.digest}", body=blob).status < 300
        answer = server.ask(league.ada, "POST", "/v1/runs", submission)
        assert answer.code == "function-refused" and answer.status >= 400
        assert not server.state.journal.runs()


def test_without_a_sandbox_none_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hansa.server.submissions.trouble", lambda: "bubblewrap is not installed")
    with pytest.raises(Exception, match="has none: bubblewrap") as caught:
        Serving("sandboxed").place({})
    assert caught.value.code == "function-refused"  # type: ignore[attr-defined]
    assert not Serving("preferred").place({}).confined  # a rehearsal on one's own machine


@WANTED
def test_they_choose_tell_and_aggregate(tmp_path: Path, code: dict[str, bytes]) -> None:
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = begun(league, rounds=2)
        for number in (1, 2):
            task = league.north.task(run, number)
            assert task.settings == {"lr": 0.5 / number, "told": "all"}
            for name in ("north", "south"):
                assert league.send(name, run, number).status == 200
        assert server.ended(run).state == "finished"
        assert np.array_equal(server.model(run, 2), by_hand(2))
        asked = [e["cohort"] for e in server.events(run, "opened") if e["phase"] == "train"]
        assert asked == [["north", "south"]] * 2
        rows = [e["row"] for e in server.events(run, "committed")]
        assert rows[-1]["server_functions"]["selected"] == 2


@WANTED
def test_what_they_remember_survives_the_server(tmp_path: Path, code: dict[str, bytes]) -> None:
    """It is left in round 2 with one update counted; what was told to sites is told again."""
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = begun(league, rounds=3)
        for name in ("north", "south"):
            assert league.send(name, run, 1).status == 200
        assert league.send("north", run, 2).status == 200
        server.restart()
        for site in league.sites.values():
            site.ready(run, 3)
        assert league.south.task(run, 2).settings == {"lr": 0.25, "told": "all"}
        assert league.send("south", run, 2).status == 200
        for name in ("north", "south"):
            assert league.send(name, run, 3).status == 200
        assert server.ended(run).state == "finished"
        assert np.array_equal(server.model(run, 3), by_hand(3))


@WANTED
def test_a_function_that_fails_ends_the_run_with_the_truth(
    tmp_path: Path, code: dict[str, bytes]
) -> None:
    code["server.py"] = b"def aggregate(updates):\n    return updates['nobody']\n"
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = begun(league)
        for name in D:
            assert league.send(name, run).status == 200
        facts = server.ended(run)
        assert facts.state == "failed"
        assert "server.py, line 2, raised KeyError: 'nobody'" in facts.reason
        (end,) = server.events(run, "ended")
        assert end["code"] == "function-failed"


@WANTED
def test_the_plan_may_let_a_failing_function_give_way(
    tmp_path: Path, code: dict[str, bytes]
) -> None:
    code["server.py"] = b"def aggregate(updates):\n    return 1 / 0\n"
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        chosen = {"file": "server.py", "failing": "default"}
        run = league.begin(server_functions=chosen)
        for name in D:
            assert league.send(name, run).status == 200
        assert server.ended(run).state == "finished"
        assert np.array_equal(server.model(run, 1), expected(*D))
        (row,) = [e["row"] for e in server.events(run, "committed") if e["round"] == 1]
        assert "ZeroDivisionError" in row["server_functions"]["failed"]["aggregate"]


def test_a_run_whose_functions_are_refused_after_a_restart_ends_and_says_so(
    tmp_path: Path, code: dict[str, bytes]
) -> None:
    """The operator has thought better of it: no time of waiting lets this run go on."""
    with in_process(tmp_path, server_functions="preferred") as server:
        league = League(server)
        run = begun(league, rounds=2)
        for site in ("north", "south"):
            assert league.send(site, run).status == 200
        server.until(lambda: len(server.events(run, "committed")) == 2, "round 1 is committed")
        settings = server.folder / "server.toml"
        settings.write_text(settings.read_text().replace('"preferred"', '"refused"'))
        league.restart(run)
        facts = server.ended(run)
        assert facts.state == "failed" and "this server runs none" in facts.reason
        assert server.events(run, "ended")[0]["code"] == "function-refused"
        server.until(lambda: league.north.poll([run]).ended == [run], "north is told")


def test_code_of_functions_that_a_killed_server_has_left_is_swept(tmp_path: Path) -> None:
    with in_process(tmp_path, heartbeat_s=30.0) as server:
        scratch = Serving("preferred", folder=server.state.folder).place({}).scratch
        assert scratch is not None and scratch.parent == server.state.folder
        left = scratch / "hansa-functions-x" / "package"
        left.mkdir(parents=True)
        (left / "server.py").write_text("secret = 1")
        server.restart()
        assert not left.exists()
