"""Goal: `kill -9` at any instant, then the same command, gives the undisturbed model's digest.

Method: real processes.  The short form kills in named rounds; the long one (`-m slow`) twenty times
on each engine, at instants drawn from a fixed seed over the whole run, start-up included.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "hansa"]
SETS = ("--set", "algorithm=scaffold", "--set", "cohort.fraction=0.5")


def hansa(home: Path, *words: str) -> str:
    done = subprocess.run([*COMMAND, *words], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def result(home: Path, runs: str) -> dict[str, object]:
    record: dict[str, object] = json.loads(hansa(home, "show", "--runs", runs, "--json"))
    return record


def killed_in_a_round(home: Path, words: list[str], number: int) -> None:
    """Run until a round has been told of, and kill it there."""
    process = subprocess.Popen(words, cwd=home, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(f"round {number}/" in line for line in process.stdout), "it ended before"
    process.kill()
    process.wait()
    process.stdout.close()


def killed_at_any_time(home: Path, words: list[str], seconds: float) -> None:
    process = subprocess.Popen(
        words, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds)
    process.kill()
    process.wait()


def test_a_killed_run_continues_to_the_same_model(home: Path) -> None:
    hansa(home, "init", "study")
    run = ("run", "study", *SETS, "--rounds", "10")
    hansa(home, *run, "--runs", "undisturbed")
    wanted = result(home, "undisturbed")
    for number in (1, 6):
        runs = ("--runs", f"killed-{number}")
        killed_in_a_round(home, [*COMMAND, *run, *runs], number)
        assert "Continuing" in hansa(home, *run, *runs)
        again = result(home, runs[1])
        assert again["model_digest"] == wanted["model_digest"], number
        assert [row["round"] for row in again["rounds"]] == list(range(1, 11)), number


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_run_killed_at_any_time_continues_to_the_same_model(home: Path, engine: str) -> None:
    hansa(home, "init", "study")
    run = ("run", "study", "--engine", engine, *SETS, "--rounds", "25")
    began = time.monotonic()
    hansa(home, *run, "--runs", "undisturbed")
    seconds = time.monotonic() - began
    wanted = result(home, "undisturbed")
    instants = random.Random(20)
    continued = 0
    for number in range(20):
        runs = ("--runs", f"killed-{number}")
        killed_at_any_time(home, [*COMMAND, *run, *runs], instants.uniform(0.1, 1.0) * seconds)
        continued += "Continuing" in hansa(home, *run, *runs)
        again = result(home, runs[1])
        assert again["model_digest"] == wanted["model_digest"], number
        assert [row["round"] for row in again["rounds"]] == list(range(1, 26)), number
    assert continued, "no kill fell into a round: the test has tested nothing"


@pytest.mark.parametrize(
    ("workflow", "number"),
    [
        ('{name = "semi_synchronous", multiple = 2.0}', 4),
        ('{name = "cyclic", order = "random"}', 7),
        ('{name = "cross_site_evaluation", own_models = true}', 9),
    ],
)
def test_a_killed_run_of_another_workflow_ends_in_the_same_record(
    home: Path, workflow: str, number: int
) -> None:
    hansa(home, "init", "study")
    sets = ("--set", f"workflow={workflow}", "--set", "cohort.minimum=1", "--rounds", "10")
    run = ("run", "study", *sets)
    hansa(home, *run, "--runs", "undisturbed")
    wanted = result(home, "undisturbed")
    killed_in_a_round(home, [*COMMAND, *run, "--runs", "killed"], number)
    assert "Continuing" in hansa(home, *run, "--runs", "killed")
    again = result(home, "killed")
    assert again["model_digest"] == wanted["model_digest"]
    assert again["cross_site"] == wanted["cross_site"]
    plain = [[{**row, "seconds": 0} for row in found["rounds"]] for found in (again, wanted)]
    assert plain[0] == plain[1]


def test_a_killed_simulation_leaves_no_worker_behind(home: Path) -> None:
    hansa(home, "init", "study")
    words = ("run", "study", "--engine", "processes", "--rounds", "5000")
    process = subprocess.Popen([*COMMAND, *words], cwd=home, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "round 2/" not in process.stdout.readline():
        pass
    workers = _children(process.pid)
    assert workers
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its simulation"
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    task = Path(f"/proc/{pid}/task/{pid}/children")
    if not task.exists():
        pytest.skip("this system does not list child processes")
    return [int(child) for child in task.read_text().split()]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_ctrl_c_does_not_wait_for_a_client_that_never_ends(home: Path) -> None:
    hansa(home, "init", "study")
    text = (home / "study" / "model.py").read_text(encoding="utf-8")
    slow = 'import time\n\n\ndef metrics(params, x, y):\n    print("here", flush=True)\n'
    slow += "    time.sleep(600)\n"
    (home / "study" / "model.py").write_text(text + slow, encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, "run", "study", "--engine", "processes", "--workers", "1"],
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Whoever runs the tests in the background has them started with it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    log = home / "runs" / "study-1" / "workers.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and b"here" in log.read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
