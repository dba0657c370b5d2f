"""Goal: a project's own algorithm, rule, transform and workflow act at a server as in a simulation,
where its operator says so and nowhere else (L1), and harm nothing but their own run (L6).

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
from league import D, League, N

MOMENTUM = b"""
import numpy as np
from hansa.algorithms import Algorithm, Vectors
def momentum(beta: float = 0.5):
    def client(work, message, mine, key):
        return Vectors(delta=work.train(message.x) - message.x), mine
    def init(x):
        return Vectors(x=x, m=np.zeros_like(x))
    def server(state, mean, share):
        m = beta * state.m + mean.delta
        return Vectors(x=state.x + m, m=m)
    return Algorithm("momentum", client=client, server=server, init=init)
"""

TRIMMED_SUM = b"""
import numpy as np
from hansa.aggregators import collected
def trimmed_sum(away: int = 1):
    def rule(spec, each):
        assert [c.client for c in each] == sorted(c.client for c in each)
        made = {}
        for name in spec.vectors:
            rows = np.sort([np.array(c.vectors[name]) for c in each], axis=0)
            made[name] = rows[away:len(rows) - away].sum(axis=0)
        return made
    return collected.aggregator("trimmed_sum", rule, needs=2 * away + 1)
"""

SCALED = b"""
import numpy as np
from hansa.transforms import Transform
def scaled(by: float = 4.0):
    return Transform("scaled", lambda v, key: {n: a / np.float32(by) for n, a in v.items()},
                     lambda v: {n: a * np.float32(by) for n, a in v.items()})
"""

WANTED = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
MINE = {
    "algorithm": "momentum.py:momentum",
    "aggregator": "trimmed.py:trimmed_sum",
    "transforms": ["scaled.py:scaled"],
    "workflow": "turns.py:turns",
}


@pytest.fixture
def code() -> Iterator[dict[str, bytes]]:
    files = {"momentum.py": MOMENTUM, "scaled.py": SCALED, "trimmed.py": TRIMMED_SUM}  # sorted
    with mock.patch.dict(world.CODE, {**files, "turns.py": b""}):
        yield world.CODE


def answered(league: League, **plan: Any) -> tuple[int, str, str]:
    submission, package, seed = submission_of(league.ada, **plan)
    league.server.upload(league.ada, package, seed)
    answer = league.server.ask(league.ada, "POST", "/v1/runs", submission)
    return answer.status, answer.code, answer.message


def rounds(league: League, run: str, last: int, first: int = 1) -> None:
    for number in range(first, last + 1):
        for name in D:
            assert league.send(name, run, number).status == 200


@pytest.mark.parametrize("key", MINE)
def test_a_server_runs_no_code_of_a_project_unless_its_operator_says_so(
    tmp_path: Path, code: dict[str, bytes], key: str
) -> None:
    with in_process(tmp_path) as server:
        league = League(server)
        status, refusal, message = answered(league, **{key: MINE[key]})
        assert status >= 400 and refusal == "function-refused"
        assert "code of the project, and this server runs none" in message
        assert not server.state.journal.runs()


@WANTED
def test_an_own_algorithm_steps_at_the_server(tmp_path: Path, code: dict[str, bytes]) -> None:
    """Two rounds of momentum one half: x + d, then x + d + (d / 2 + d)."""
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(algorithm={"name": "momentum.py:momentum", "beta": 0.5}, rounds=2)
        rounds(league, run, 2)
        assert server.ended(run).state == "finished"
        mean = sum(N[n] * np.array(D[n]) for n in D) / sum(N.values())
        assert np.array_equal(server.model(run, 2), SEED + np.float32(2.5) * mean.astype("f4"))


@WANTED
def test_an_own_rule_sees_every_update_in_order(tmp_path: Path, code: dict[str, bytes]) -> None:
    """Of three clients the trimmed sum is the one in the middle, coordinate by coordinate."""
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(aggregator="trimmed.py:trimmed_sum")
        for name in reversed(D):
            assert league.send(name, run, 1).status == 200
        assert server.ended(run).state == "finished"
        middle = np.median([D[n] for n in D], axis=0)
        assert np.array_equal(server.model(run, 1), SEED + middle.astype("f4"))


@WANTED
def test_an_own_transform_is_undone_at_the_server(tmp_path: Path, code: dict[str, bytes]) -> None:
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(transforms=["scaled.py:scaled"])
        rounds(league, run, 1)
        assert server.ended(run).state == "finished"
        mean = sum(N[n] * np.array(D[n]) for n in D) / sum(N.values())
        assert np.array_equal(server.model(run, 1), SEED + np.float32(4) * mean.astype("f4"))


def turns(body: str) -> bytes:
    """Return a workflow that does something in its second round."""
    lines = "\n".join(f"            {line}" for line in body.splitlines())
    return f"""
import os, sys, time
from hansa.rounds import Terms
from hansa.workflows import Commit, Progress, Workflow
from hansa.workflows.synchronous import one_round
async def _run(federation, plan, algorithm):
    commit = federation.resume()
    while Progress(**commit.progress).ended is None:
        if commit.round == 1:
{lines}
        commit, problems = await one_round(federation, plan, algorithm, commit)
        await federation.commit(commit, problems)
    return Progress(**commit.progress)
turns = Workflow("turns", _run)
""".encode()


HOSTILE = {
    "raises": ("return {}['nobody']", "function-failed", "turns.py, line 10, raised KeyError"),
    "hangs": ("while True: pass", "function-time", "took more than 6 s"),
    "exits": ("os._exit(3)", "function-failed", "ended with status 3"),
    "raises SystemExit": ("sys.exit(3)", "function-failed", "raised SystemExit"),
    "prints for ever": ("while True: print('x' * 2**16)", "function-time", "took more than 6 s"),
    "writes what is no frame": (
        "for number in range(3, 20):\n    try: os.write(number, b'\\xff' * 64)\n"
        "    except OSError: pass\ntime.sleep(60)",
        "function-failed",
        "",
    ),
    "answers for ever": (
        "import hansa.own.messages as m, hansa.hosting.wire as w, gc\n"
        "pipe = next(o for o in gc.get_objects() if type(o).__name__ == 'BufferedWriter'\n"
        "            and o.fileno() > 2)\n"
        "while True: w.send_with(pipe, m.Returned(['x' * 2**16]), {})",
        "function-failed",
        "",
    ),
    "forks": (
        "for _ in range(3000):\n    try:\n        if os.fork() == 0: time.sleep(60)\n"
        "    except OSError: raise RuntimeError('no more')\ntime.sleep(60)",
        "function-",  # few of them by the system, many by the count, or in vain
        "",
    ),
    "takes all memory": ("bytearray(2**40)", "function-failed", "MemoryError"),
    "commits a round twice": ("await federation.commit(commit, [])", "function-failed", "round 1"),
    "skips a round": (
        "await federation.commit(commit._replace(round=9), [])",
        "function-failed",
        "wants round 9",
    ),
    "asks a stranger": (
        "await federation.train(2, commit.state, ['nobody'], terms=Terms())",
        "function-failed",
        "'nobody', who is not there",
    ),
    "recalls what is not there": ("federation.recall(-7)", "function-failed", "round -7"),
    "commits rows that break pages": (
        "await federation.commit(commit._replace(round=2, row={'round': 2, 'clients': 7}), [])",
        "function-failed",
        "nobody can read",
    ),
}


@WANTED
@pytest.mark.parametrize("what", HOSTILE)
def test_a_workflow_that_does_harm_fails_alone(
    tmp_path: Path, code: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The next run of the same server is as sound as ever."""
    body, wanted, words = HOSTILE[what]
    code["turns.py"] = turns(body)
    monkeypatch.setattr("hansa.hosting.process.WORKER_PROCESSES_MAX", 100)
    limits = {"time_s": 6.0 if wanted == "function-time" else 20.0}
    with in_process(tmp_path, server_functions="sandboxed", server_functions_memory_mb=512) as own:
        league = League(own)
        run = league.begin(workflow="turns.py:turns", rounds=3, server_functions=limits)
        rounds(league, run, 1)
        facts = own.ended(run)
        assert facts.state == "failed" and words in facts.reason
        (end,) = own.events(run, "ended")
        assert end["code"].startswith(wanted)
        code["turns.py"] = turns("pass")
        run = league.begin(workflow="turns.py:turns", rounds=2)
        rounds(league, run, 2)
        assert own.ended(run).state == "finished"


@WANTED
def test_whoever_submitted_gets_the_traceback(tmp_path: Path, code: dict[str, bytes]) -> None:
    code["turns.py"] = turns("return {}['nobody']")
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(workflow="turns.py:turns", rounds=3)
        rounds(league, run, 1)
        assert server.ended(run).state == "failed"
        (raised,) = server.events(run, "raised")
        assert "Traceback (most recent call last)" in raised["trace"]
        assert "return {}['nobody']" in raised["trace"] and str(tmp_path) not in raised["trace"]
