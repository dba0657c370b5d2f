"""Goal: what a person does with a federation, with a real server, real sites and real kills.

One server and two sites for all tests; the sites have the names and the data of the first two
simulated clients, so a simulation says what must come out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from projects import make_project

from hansa.remote.connecting import connected
from hansa.runs import RunFolder, find_run
from hansa.server.founding import found
from hansa.server.settings import ServerSettings

SERVE = "from pathlib import Path; from hansa.server.serve import serve; serve(Path('server'))"
TWO = ("--set", "data.clients=2")
SITES = ("client-0", "client-1")


class Wanted(msgspec.Struct):
    name: str
    role: str = "site"


class Line(msgspec.Struct):
    invite: str


class League:
    """A server, its sites, and ada, who submits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "HANSA_HOME": str(folder / "ada")}

    def serve(self) -> None:
        self.start("server", sys.executable, "-c", SERVE)

    def start(self, name: str, *words: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as out:
            self.processes[name] = subprocess.Popen(
                words, cwd=self.folder, stdout=out, stderr=out, env=self.environment
            )

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def hansa(self, *words: str, status: int = 0, failpoint: str = "") -> str:
        more = {"HANSA_FAILPOINT": failpoint} if failpoint else {}
        done = subprocess.run(
            [sys.executable, "-m", "hansa", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=self.environment | more,
            timeout=60,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run(self, name: str) -> RunFolder:
        return find_run(self.folder / "runs", name)

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def league(tmp_path_factory: pytest.TempPathFactory) -> Iterator[League]:
    league = League(tmp_path_factory.mktemp("league"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"https://localhost:{port}"
    settings = ServerSettings(name="league", url=url, host="127.0.0.1", port=port, gather_s=5.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANSA_HOME", str(league.folder / "admin"))
        admin = found(league.folder / "server", settings).admin
    league.serve()
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        with connected(admin) as connection:
            wanted = [*map(Wanted, SITES), Wanted("ada", "submitter")]
            lines = {
                w.name: connection.call("POST", "/v1/invites", w, kind=Line).invite for w in wanted
            }
        for site in SITES:
            league.hansa("site", "join", lines[site], "--folder", site, "--yes")
            (league.folder / site / "site.toml").write_text(
                f'name = "{site}"\n[policy]\nsubmitters = ["ada"]\napprove = "submitters"\n'
                'sandbox = "none"\n'
            )
            league.start(site, sys.executable, "-m", "hansa", "site", "start", "--folder", site)
        assert "You are ada, submitter of league" in league.hansa("join", lines["ada"])
        make_project(league.folder / "study", rounds=5)
        make_project(league.folder / "slow", rounds=8, train="import time; time.sleep(0.15)")
        yield league
    finally:
        league.close()


def test_the_same_project_gives_the_same_model_simulated_and_at_sites(league: League) -> None:
    text = league.hansa("run", "study", "--on", *TWO, "--purpose", "beds")
    assert "Finished: all 5 rounds are done" in text
    league.hansa("run", "study", *TWO, "--new")
    there, here = league.run("steps-1"), league.run("steps-2")
    assert (there.about["engine"], here.about["engine"]) == ("federation", "inline")
    digests = [[commit["model"] for commit in run.commits()] for run in (there, here)]
    assert digests[0] == digests[1] and len(set(digests[0])) == 6
    for keep in there.kept():
        there.check_model(keep["round"])
    assert "steps-1" in league.hansa("compare") and "Wrote" in league.hansa("export", "steps-1")
    sites = json.loads(league.hansa("show", "steps-1", "--on", "--json"))["sites"]
    assert [(s["site"], s["state"]) for s in sites] == [(site, "ready") for site in SITES]


def test_detached_stopped_and_looked_at_again(league: League) -> None:
    text = league.hansa("run", "slow", "--on", "--detach", "--set", "rounds=1000")
    name = text.split()[1].rstrip(",")
    far = str((league.run(name).remote or {})["run"])
    while "committed, 2 of 2" not in league.hansa("log", far, "--on"):
        time.sleep(0.1)
    assert "stopped" in league.hansa("stop", name)
    assert "[run-stopped]" in league.hansa("run", "--resume", name, status=1)
    run = league.run(name)
    assert run.state == "stopped"
    told = league.hansa("log", far, "--on", "--json").splitlines()
    heard = [json.loads(line) for line in told]
    spans = [s for event in heard if event["kind"] == "timed" for s in event.pop("spans")]
    assert heard == run.log.events  # times are in a file of their own
    assert spans == run.spans() and {s["span"] for s in spans} >= {"round", "task", "save"}
    assert "[run-ended]" in league.hansa("stop", name, status=1)


@pytest.mark.slow
def test_a_server_killed_while_one_follows_is_waited_for_and_nothing_is_told_twice(
    league: League,
) -> None:
    words = [sys.executable, "-m", "hansa", "run", "slow", "--on", "--new"]
    follower = subprocess.Popen(
        words, cwd=league.folder, stdout=subprocess.PIPE, text=True, env=league.environment
    )
    assert follower.stdout is not None
    watchdog = threading.Timer(50, follower.kill)
    watchdog.start()
    lines = []
    for line in follower.stdout:
        lines.append(line)
        if line.startswith("round 2/"):
            league.kill("server")
            time.sleep(0.5)
            league.serve()
    watchdog.cancel()
    assert follower.wait(10) == 0, "".join(lines)
    text = "".join(lines)
    assert "The server is away" in text and "The server is back." in text
    rounds = [int(n) for n in re.findall(r"^round (\d+)/", text, re.M)]
    assert rounds == list(range(1, 9))
    run = league.run(lines[0].split()[1].rstrip(","))
    far = str((run.remote or {})["run"])
    told = league.hansa("log", far, "--on", "--json").splitlines()
    heard = [json.loads(line) for line in told]
    assert [{k: v for k, v in e.items() if k != "spans"} for e in heard] == run.log.events


@pytest.mark.parametrize(
    ("seed", "failpoint"),
    [
        (101, "submit_after_accepted"),
        pytest.param(102, "submit_after_folder_made", marks=pytest.mark.slow),
        pytest.param(103, "submit_after_uploaded", marks=pytest.mark.slow),
        pytest.param(104, "follow_after_events_kept", marks=pytest.mark.slow),
        pytest.param(105, "follow_after_events_kept:3", marks=pytest.mark.slow),
        pytest.param(106, "follow_after_models_kept:2", marks=pytest.mark.slow),
    ],
)
def test_a_submitter_killed_anywhere_types_the_same_again_and_has_one_run(
    league: League, seed: int, failpoint: str
) -> None:
    before = json.loads(league.hansa("ls", "--on", "--json"))
    words = ("run", "study", "--on", "--seed", str(seed))
    league.hansa(*words, status=-signal.SIGKILL, failpoint=failpoint)
    assert "Finished" in league.hansa(*words)
    run = find_run(league.folder / "runs", None)
    after = json.loads(league.hansa("ls", "--on", "--json"))
    assert len(after) == len(before) + 1
    told = league.hansa("log", after[-1]["run"], "--on", "--json").splitlines()
    heard = [json.loads(line) for line in told]
    spans = [s for event in heard if event["kind"] == "timed" for s in event.pop("spans")]
    assert heard == run.log.events and spans == run.spans()  # nothing twice, nothing missing
    for keep in run.kept():
        run.check_model(keep["round"])
