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
import msgspec
import numpy as np
import pytest
from in_process import SEED, in_process, submission_of
from league import D, League, N, expected

from hansa.plan import Plan
from hansa.server.combining import judged
from hansa.server.upkeep import wanted_blobs

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
    "commits models that break pages": (
        "await federation.commit(commit._replace(round=2, row={'round': 2, 'cross_site': 3}), [])",
        "function-failed",
        "nobody can read",
    ),
    "gives numbers that cannot travel": (
        "await federation.commit(commit._replace(round=2, row={'round': 2, 'n': 2**70}), [])",
        "function-failed",
        "What the workflow gives to commit cannot be used",
    ),
    "returns what cannot travel": (
        "return Progress(ended='over', best=2**70)",
        "function-failed",
        "What it returned cannot be used",
    ),
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
def test_a_state_that_the_algorithm_cannot_send_is_told_to_whoever_wrote_the_workflow(
    tmp_path: Path, code: dict[str, bytes]
) -> None:
    """It ended as a defect of Hansa: scaffold's message has the c that this state has lost."""
    code["turns.py"] = (
        turns(
            "lost = commit.state._replace(algorithm={'x': commit.state.algorithm.x})\n"
            "await federation.evaluate(2, lost, await federation.roster(2))"
        )
        .replace(b"commit.round == 1", b"commit.round == 0")
        .replace(b"(2, lost", b"(1, lost")
    )
    code["turns.py"] = code["turns.py"].replace(b"roster(2)", b"roster(1)")
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(workflow="turns.py:turns", algorithm="scaffold")
        facts = server.ended(run)
        assert facts.state == "failed" and "a state without the c of scaffold" in facts.reason
        (end,) = server.events(run, "ended")
        assert end["code"] == "function-failed"


@WANTED
@pytest.mark.parametrize("by", ["a stop", "the end of the server"])
def test_a_workflow_that_computes_is_ended_with_its_run(
    tmp_path: Path, code: dict[str, bytes], by: str
) -> None:
    """It went on for all the time that its plan allows, ten minutes here."""
    code["turns.py"] = turns("while True: pass")
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(workflow="turns.py:turns", rounds=3, server_functions={"time_s": 600.0})
        rounds(league, run, 1)
        server.until(lambda: len(server.events(run, "committed")) == 2, "it computes")
        if by == "a stop":
            assert league.stop(run).status == 200
        else:
            server.state.runs.leave(patience_s=0.0)
        server.until(lambda: not server.state.runs._threads, "nothing is computed any more")
        assert not list((server.state.folder / "functions").glob("*"))
        assert server.facts(run).state == ("stopped" if by == "a stop" else "running")
        assert not server.events(run, "raised")


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


@WANTED
def test_a_workflow_that_asks_for_ever_is_ended(
    tmp_path: Path, code: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is denied it may ask for again, and no call takes long: only a count ends it."""
    monkeypatch.setattr("hansa.own.answering.OWN_CALLS_MAX", 50)
    for body in (
        "while True: federation.elapsed()",
        "while True:\n    try: federation.recall(-1)\n    except Exception: pass",
    ):
        code["turns.py"] = turns(body)
        with in_process(tmp_path / str(len(body)), server_functions="sandboxed") as server:
            league = League(server)
            run = league.begin(workflow="turns.py:turns", rounds=3)
            rounds(league, run, 1)
            facts = server.ended(run)
            assert facts.state == "failed" and "asks for ever" in facts.reason


@WANTED
def test_a_decoder_that_refuses_an_update_refuses_that_client(
    tmp_path: Path, code: dict[str, bytes]
) -> None:
    body = b"lambda v: {n: a if a[0] > 0 else 1 // 0 for n, a in v.items()}"
    code["scaled.py"] = SCALED.replace(
        b"lambda v: {n: a * np.float32(by) for n, a in v.items()}", body
    )
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(transforms=["scaled.py:scaled"])
        assert [league.send(name, run).status for name in D] == [200, 422, 200]
        assert server.ended(run).state == "finished"
        (problem,) = server.events(run, "problem")
        assert problem["client"] == "south" and "ZeroDivisionError" in problem["message"]
        assert np.array_equal(server.model(run, 1), expected("north", "west"))


@WANTED
def test_a_decoder_that_dies_ends_its_run(tmp_path: Path, code: dict[str, bytes]) -> None:
    """Nobody waits for the deadline of a round whose updates nobody can decode any more."""
    code["scaled.py"] = SCALED.replace(
        b"lambda v: {n: a * np", b"lambda v: __import__('os')._exit(4) or {n: a * np"
    )
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(transforms=["scaled.py:scaled"])
        assert league.send("north", run).status >= 400
        facts = server.ended(run)
        assert facts.state == "failed" and "status 4" in facts.reason
        (end,) = server.events(run, "ended")
        assert end["code"] == "function-failed"


LIES = {
    "a vector that is too short": ("{n: v[:-1] for n, v in made.items()}", "is [2] float"),
    "no vector at all": ("{}", "delta is missing"),
    "whole numbers": ("{n: v.astype('i4') for n, v in made.items()}", "int32"),
    "text": ("{n: v.astype('U9') for n, v in made.items()}", "cannot travel"),
    "NaN": ("{n: v * np.nan for n, v in made.items()}", "diverged"),
}


@WANTED
@pytest.mark.parametrize("what", LIES)
def test_a_rule_that_returns_what_nobody_can_use_ends_its_run(
    tmp_path: Path, code: dict[str, bytes], what: str
) -> None:
    made, words = LIES[what]
    code["trimmed.py"] = TRIMMED_SUM.replace(b"return made", f"return {made}".encode())
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(aggregator="trimmed.py:trimmed_sum")
        rounds(league, run, 1)
        facts = server.ended(run)
        assert facts.state == "failed" and words in facts.reason
        assert not list((server.state.folder / "functions").glob("*/shown/*"))


@WANTED
@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"import nowhere", "nowhere, which is not installed"),
        (b"momentum = 7", "gives int instead of Algorithm"),
        (b"def other(): pass", "does not exist"),
        (MOMENTUM.replace(b"init=init", b"init=init, sends=('x',) * 9"), "no server can do that"),
        (MOMENTUM.replace(b"init=init", b"init=init, sends=('buffers',)"), "no server can do that"),
    ],
)
def test_parts_that_cannot_be_made_end_their_run(
    tmp_path: Path, code: dict[str, bytes], file: bytes, words: str
) -> None:
    """At the door nothing of them is executed."""
    code["momentum.py"] = file
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(algorithm="momentum.py:momentum")
        facts = server.ended(run)
        assert facts.state == "failed" and words in facts.reason


@WANTED
@pytest.mark.parametrize("named", ["nowhere.py:momentum", "broken.py:momentum"])
def test_files_that_are_none_are_refused_at_the_door(
    tmp_path: Path, code: dict[str, bytes], named: str
) -> None:
    code["broken.py"] = b"def momentum(:"
    files = dict(sorted(code.items()))
    code.clear()
    code.update(files)
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        assert answered(league, algorithm=named)[:2] == (422, "plan-bad-value")
        assert not server.state.journal.runs()


@WANTED
def test_server_functions_and_own_parts_act_together(
    tmp_path: Path, code: dict[str, bytes]
) -> None:
    code["server.py"] = b"def select(clients):\n    return [c for c in clients if c != 'west']\n"
    files = dict(sorted(code.items()))
    code.clear()
    code.update(files)
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        own = {"algorithm": "momentum.py:momentum", "server_functions": {"file": "server.py"}}
        run = league.begin(rounds=1, **own)
        for name in ("north", "south"):
            assert league.send(name, run).status == 200
        assert server.ended(run).state == "finished"
        assert np.array_equal(server.model(run, 1), expected("north", "south"))


def test_a_combiner_runs_no_code_of_a_project() -> None:
    _, method, why = judged(msgspec.to_builtins(Plan(algorithm="momentum.py:momentum")))
    assert method is None and "code of the project" in why


IN_ORDER = b"""
from hansa.aggregators import Aggregate, mean
def _finish(acc):
    found, names = acc
    assert names == sorted(names) == ["north", "south", "west"], names
    return mean.finish(found)
in_order = mean._replace(
    name="in_order",
    zero=lambda spec: (mean.zero(spec), []),
    add=lambda acc, one: (mean.add(acc[0], one), [*acc[1], one.client]),
    finish=_finish,
)
"""


@WANTED
def test_an_own_sum_folds_in_canonical_order(tmp_path: Path, code: dict[str, bytes]) -> None:
    """A linear rule, to which updates come in another order; it is the exact mean."""
    code["trimmed.py"] = IN_ORDER
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        run = league.begin(aggregator="trimmed.py:in_order")
        for name in ("west", "north", "south"):
            assert league.send(name, run, 1).status == 200
        facts = server.ended(run)
        assert facts.state == "finished", facts.reason
        assert np.array_equal(server.model(run, 1), expected(*D))


@WANTED
def test_what_a_workflow_holds_and_never_commits_goes_with_its_run(
    tmp_path: Path, code: dict[str, bytes]
) -> None:
    code["turns.py"] = turns(
        "import numpy as np\n"
        "federation.hold('north', 1, {'v': np.float32([1, -2])})\n"
        "federation.hold('south', 1, {'x': commit.state.algorithm.x})\n"
        "return Progress(ended='over')"
    )
    with in_process(tmp_path, server_functions="sandboxed") as server:
        league = League(server)
        before = set(server.state.blobs.digests())
        run = league.begin(workflow="turns.py:turns", rounds=3)
        rounds(league, run, 1)
        assert server.ended(run).state == "finished"
        server.until(lambda: not server.state.runs._threads)
        known = {w.digest for w in wanted_blobs(server.state.database)}
        assert set(server.state.blobs.digests()) - before <= known
