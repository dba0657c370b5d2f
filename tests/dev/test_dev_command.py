"""`hansa dev`: from nothing to a model in one command, and nothing left when it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_rehearsal import PLAN, gone, study

from hansa.runs import find_run

COMMAND = [sys.executable, "-P", "-m", "hansa"]


def hansa(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], cwd=home, capture_output=True, text=True, timeout=120, check=False
    )


def seconds_of(text: str, words: str) -> float:
    found = re.search(rf"^ *([0-9.]+) s  {words}", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def test_one_command_runs_a_project_on_a_server_and_sites_and_removes_them(home: Path) -> None:
    study(home / "study")
    began = time.monotonic()
    done = hansa(home, "dev", "study", "--sites", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 30, "10 s on a quiet machine, to the first round"
    assert seconds_of(done.stdout, "server at https://localhost:") <= seconds_of(
        done.stdout, "2 sites: client-0, client-1"
    )
    assert "round 2/2" in done.stdout and "Finished: all 2 rounds are done" in done.stdout
    assert "server and sites have ended" in done.stdout
    run = find_run(home / "runs", None)
    assert run.state == "finished" and (run.path / "report.html").is_file()
    simulated = hansa(home, "run", "study", "--clients", "2", "--set", "cohort.minimum=2")
    assert simulated.returncode == 0, simulated.stderr
    again = find_run(home / "runs", None)
    assert again.name != run.name
    assert again.commits()[-1]["model"] == run.commits()[-1]["model"]
    assert not (home / ".config").exists(), "a person's own memberships were touched"


def test_chaos_is_refused_where_no_simulation_gives_the_same_model(home: Path) -> None:
    study(home / "study")
    done = hansa(home, "dev", "study", "--chaos", "--set", "workflow=semi_synchronous")
    assert done.returncode == 1
    assert "a simulation draws. Nothing was started." in done.stderr
    assert not (home / "runs").exists()


def test_ctrl_c_ends_everything_and_says_how_far_it_was(home: Path) -> None:
    study(home / "study", PLAN.replace("rounds = 2", "rounds = 5000"))
    folder = home / "kept"
    process = subprocess.Popen(
        [*COMMAND, "dev", "study", "--sites", "2", "--folder", str(folder)],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Whoever runs the tests in the background has them started with it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("round 2/"):
            break
    process.send_signal(signal.SIGINT)
    try:
        text, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, text
    assert "Interrupted after round" in text and "Traceback" not in text
    assert gone(folder)
    assert find_run(home / "runs", None).state == "stopped"
    assert (folder / "server" / "hansa.db").is_file(), "a folder that was named stays"


def test_a_run_that_fails_is_an_error_with_its_reason(home: Path) -> None:
    project = study(
        home / "study",
        PLAN + '[learner]\nkind = "function"\nmodule = "model.py"\n',
    )
    (project / "model.py").write_text(
        "import numpy as np\n"
        "def init(rng, sample): return {'w': np.zeros(2, np.float32)}\n"
        "def train(params, data, ctx): raise ValueError('no scanner')\n"
    )
    done = hansa(home, "dev", "study", "--sites", "2", "--folder", "place")
    assert done.returncode == 1
    assert "no scanner" in done.stderr and "client-" in done.stderr
    assert "Traceback" not in done.stderr
    again = hansa(home, "dev", "study", "--sites", "2", "--folder", "place")
    assert again.returncode == 1 and "server-exists" in again.stderr
    assert gone(home / "place")


@pytest.mark.slow
def test_chaos_kills_and_cuts_and_the_model_is_that_of_an_undisturbed_simulation(
    home: Path,
) -> None:
    plan = PLAN.replace("rounds = 2", "rounds = 60").replace('name = "small"', 'name = "chaos"')
    study(home / "study", f'algorithm = "scaffold"\n{plan}')
    done = hansa(home, "dev", "study", "--sites", "3", "--chaos", "--folder", "place")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("chaos: ") >= 3, done.stdout
    assert "the same model as an undisturbed simulation" in done.stdout
    assert gone(home / "place")
