"""Two runs at once, one stopped, one looked away from and looked at again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from federations import FAST, check_books, digest, eventually, project, rows

from hansa.dev import Rehearsal
from hansa.runs import find_run

LONG = "rounds=2000"


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("several")
    with Rehearsal(folder / "r", project(folder / "tiny"), settings=FAST) as rehearsal:
        yield rehearsal


def test_two_runs_at_once_give_the_models_that_they_give_alone(federation: Rehearsal) -> None:
    one, other = ["rounds=8"], ["rounds=8", "learner.optimizer.lr=0.05"]
    first, second = federation.submit(sets=one), federation.submit(sets=other)
    assert federation.follow(first) == "finished"
    assert federation.follow(second) == "finished"
    assert digest(first) == digest(federation.simulate(sets=one))
    assert digest(second) == digest(federation.simulate(sets=other))
    assert digest(first) != digest(second)
    spans = [[e["at"] for e in f.log.events if e["kind"] == "committed"] for f in (first, second)]
    assert spans[1][0] <= spans[0][-1], "they did not run at the same time"
    for folder in (first, second):
        check_books(federation, folder)


def test_a_run_that_is_stopped_keeps_its_rounds_and_takes_no_more(federation: Rehearsal) -> None:
    folder = federation.submit(sets=[LONG])
    run = (folder.remote or {})["run"]
    query = f"select count(*) from events where run = '{run}' and kind = 'committed'"
    eventually(lambda: rows(federation, query)[0][0] > 2)
    done = federation.command("stop", folder.name, "--runs", str(federation.runs))
    assert done.returncode == 0, done.stderr
    assert "stopped" in done.stdout
    assert federation.follow(folder) == "stopped"
    rounds = len(folder.rows())
    assert 0 < rounds < 2000
    assert rows(federation, query)[0][0] == rounds + 1
    again = federation.command("stop", folder.name, "--runs", str(federation.runs))
    assert again.returncode == 1 and "run-ended" in again.stderr


def test_a_detached_run_goes_on_and_is_taken_up_again(federation: Rehearsal) -> None:
    words = federation.run_words("--new", "--detach", "--set", "rounds=30")
    done = federation.command(*words)
    assert done.returncode == 0, done.stderr
    folder = find_run(federation.runs, None)
    run = (folder.remote or {})["run"]
    query = f"select count(*) from events where run = '{run}' and kind = 'committed'"
    eventually(lambda: rows(federation, query)[0][0] > 1, what="nobody looks, and nothing is done")
    assert not folder.rows()
    seen = federation.command("run", "--resume", folder.name, "--runs", str(federation.runs))
    assert seen.returncode == 0, seen.stderr
    folder.reload()
    assert len(folder.rows()) == 30
    assert digest(folder) == digest(federation.simulate(sets=["rounds=30"]))
    over = federation.command("run", "--resume", folder.name, "--runs", str(federation.runs))
    assert over.returncode == 1 and "run-ended" in over.stderr
