"""What a person waits for at a desk: one command, and what it costs.

CPU seconds (user and system) of the command's process and those it started, which a busy machine
changes less than the wall clock; for what is awaited from other processes, wall seconds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks.measure import HANSA, PYTHON, Cost, Row, cost, once

CALL_S, POC_S, HELLO_S, HELLO_MB, WARM_S = 0.3, 2.0, 1.0, 100.0, 1.0

QUIET_S = 60.0  # for the run before to end

FLOOR = "import ssl, http.client, msgspec, click"
"""Without which nobody asks a server."""

PLAN = """
name = "hello"
rounds = 3
[learner]
kind = "function"
module = "model.py"
[data]
clients = 2
[cohort]
minimum = 2
"""

MODEL = """
import numpy as np


def data(client):
    return {"train": [client], "validation": [client]}


def init(rng, sample):
    return {"numpy_key": np.arange(1, 10, dtype=np.float32).reshape(3, 3)}


def train(params, data, ctx):
    params["numpy_key"] += 1
    return params, {}


def evaluate(params, data):
    return {"sum": float(params["numpy_key"].sum())}
"""


def desk(folder: Path) -> list[Row]:
    """Measure commands at a running server, the layout of a federation, and the first run."""
    app = folder / "hello-numpy"
    app.mkdir(parents=True)
    (app / "plan.toml").write_text(PLAN, encoding="utf-8")
    (app / "model.py").write_text(MODEL, encoding="utf-8")
    return [*_simulated(app), *_laid_out(folder, app)]


def _simulated(app: Path) -> list[Row]:
    run = cost([HANSA, "run", str(app), "--new"], runs=5, cwd=app)
    told = f"{run.cpu_s:.2f} s CPU, {run.wall_s:.2f} s wall"
    what = "hello-numpy, 2 clients x 3 rounds, simulator"
    return [
        Row(what, f"<= {HELLO_S:g} s", told, run.cpu_s <= HELLO_S),
        Row(f"{what}, memory", f"<= {HELLO_MB:g} MB", f"{run.peak_mb:.0f} MB",
            run.peak_mb <= HELLO_MB),
    ]  # fmt: skip


def _laid_out(folder: Path, app: Path) -> list[Row]:
    port = _free_port()
    words = [HANSA, "poc", "-n", "2", "--folder", "poc", "--port", str(port)]
    laid = once(words, folder)
    told = f"{laid.cpu_s:.2f} s CPU, {laid.wall_s:.2f} s wall"
    rows = [Row("hansa poc -n 2, laid out", f"<= {POC_S:g} s", told, laid.cpu_s <= POC_S)]
    place = folder / "poc"
    os.environ["HANSA_HOME"] = str(place / "admin" / "startup")
    began, processes = time.monotonic(), []
    try:
        for name in ("server", "site-1", "site-2"):
            processes.append(
                subprocess.Popen([place / name / "startup" / "start.sh"], stdout=subprocess.DEVNULL)
            )
        ready_s = _ready(place, began)
        rows.append(
            Row("its server and sites started and ready, wall", "", f"{ready_s:.2f} s", True)
        )
        rows += _calls(place)
        rows.append(_warm(app))
        rows += _submissions(folder, place, app)
    finally:
        del os.environ["HANSA_HOME"]
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    return rows


def _calls(place: Path) -> list[Row]:
    """Measure commands that ask a running server one thing."""
    server = str(place / "server")
    console = [HANSA, "console", "--server", server, "--workspace", str(place / "admin"), "-c"]
    commands = {
        "hansa ls --on SERVER": [HANSA, "ls", "--on", "localhost"],
        "hansa models ls --on SERVER": [HANSA, "models", "ls", "--on", "localhost"],
        "hansa server sites": [HANSA, "server", "sites", "--folder", server],
        "hansa server runs": [HANSA, "server", "runs", "--folder", server],
        "hansa server status": [HANSA, "server", "status", "--folder", server],
        "hansa server members": [HANSA, "server", "members", "--folder", server],
        "hansa server audit": [HANSA, "server", "audit", "--folder", server],
        "hansa server invite": [HANSA, "server", "invite", "ada", "--folder", server],
        "hansa server token": [HANSA, "server", "token", "eyes", "--folder", server],
        "hansa server doctor, which reads all": [HANSA, "server", "doctor", "--folder", server],
        "hansa console -c 'check_status server'": [*console, "check_status server"],
        "hansa console -c list_jobs": [*console, "list_jobs"],
    }
    floor = cost([PYTHON, "-c", FLOOR], runs=9)
    rows = [Row(f"python -c '{FLOOR}'", "", f"{floor.cpu_s:.2f} s CPU", True)]
    return rows + [_call(what, words, floor) for what, words in commands.items()]


def _call(what: str, words: list[str], floor: Cost) -> Row:
    spent = cost(words, runs=9)
    told = f"{spent.cpu_s:.2f} s CPU ({spent.cpu_s / floor.cpu_s:.1f}x), "
    told += f"{spent.wall_s:.2f} s wall, {spent.peak_mb:.0f} MB"
    return Row(what, f"<= {CALL_S:g} s", told, spent.cpu_s <= CALL_S)


def _submissions(folder: Path, place: Path, app: Path) -> list[Row]:
    """Measure projects that are handed over: each time their code makes the seed model.

    Wall seconds: a FLARE app makes it in a process of its own, beside the command's.
    """
    flare = Path(__file__).parent.parent / "examples" / "hello-numpy-sag"
    once([HANSA, "import", "nvflare", str(flare), "--to", "sag"], folder)
    projects = {"hello-numpy": app, "FLARE's hello-numpy-sag": folder / "sag"}
    for template in ("numpy", "torch"):
        if template == "numpy" or importlib.util.find_spec(template):
            once([HANSA, "init", template, "--template", template], folder)
            projects[f"the template {template}"] = folder / template
    console = [HANSA, "console", "--server", str(place / "server")]
    console += ["--workspace", str(place / "admin"), "-c", f"submit_job {flare}"]
    commands = {
        f"hansa run --detach --on SERVER, {what}": [
            HANSA, "run", str(project), "--new", "--detach", "--on", "localhost"
        ]
        for what, project in projects.items()
    } | {"hansa console -c 'submit_job hello-numpy-sag'": console}  # fmt: skip
    rows = []
    for what, words in commands.items():
        spent = [_alone(place, words) for _ in range(6)][1:]
        wall_s, cpu_s, peak_mb = (statistics.median(values) for values in zip(*spent, strict=True))
        told = f"{wall_s:.2f} s wall, {cpu_s:.2f} s CPU, {peak_mb:.0f} MB"
        rows.append(Row(what, f"<= {CALL_S:g} s", told, wall_s <= CALL_S))
    return rows


def _alone(place: Path, words: list[str]) -> Cost:
    """Measure a submission while no other run uses the machine's cores."""
    asked = [HANSA, "server", "runs", "--json", "--folder", str(place / "server")]
    until = time.monotonic() + QUIET_S
    while True:
        told = subprocess.run(asked, capture_output=True, check=True).stdout
        if all(run["state"] != "running" for run in json.loads(told)["runs"]):
            break
        if time.monotonic() > until:
            raise RuntimeError(f"a run has not ended within {QUIET_S:g} seconds")
        time.sleep(0.2)
    time.sleep(2.0)  # in which the sites get their next workers ready
    return once(words)


def _warm(app: Path) -> Row:
    """Measure a run at the sites once an equal one has gone before: from submission to its end."""
    from hansa.project import open_project
    from hansa.remote.connecting import connected, membership_at
    from hansa.remote.follow import follow
    from hansa.remote.submit import submit
    from hansa.simulation import Unwatched

    class Silent(Unwatched):
        def told(self, text: str) -> None:
            """Say nothing."""

    membership, project, times = membership_at("localhost"), open_project(app), []
    for _ in range(4):
        began = time.monotonic()
        run = submit(project, membership, runs=app / "runs", new=True)
        with connected(membership) as connection:
            follow(run, connection, membership=membership, view=Silent())
        times.append(time.monotonic() - began)
    best = min(times[1:])
    told = f"{best:.2f} s wall; the first {times[0]:.2f} s"
    return Row("hello-numpy at 2 sites, from submission to its end", f"<= {WARM_S:g} s", told,
               best <= WARM_S)  # fmt: skip


def _ready(place: Path, began: float) -> float:
    """Wait until both sites are active; return the seconds since `began`."""
    words = [HANSA, "server", "sites", "--folder", str(place / "server")]
    while True:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.stdout.count(" active ") == 2:
            return time.monotonic() - began
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
