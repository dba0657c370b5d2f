"""A rehearsal leaves no process behind, however it ends, and says what a process said last."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from projects import final_model

from hansa.dev import ADMIN, SERVER, Child, Rehearsal, free_port
from hansa.errors import ServerError

PLAN = """
name = "small"
rounds = 2
[data]
set = "digits"
split = { scheme = "iid", clients = 5 }
[cohort]
minimum = 3
"""


def study(folder: Path, plan: str = PLAN) -> Path:
    folder.mkdir()
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
    return folder


def below(folder: Path) -> list[int]:
    """Processes whose command line names a folder; read from the system."""
    if not Path("/proc/self").exists():
        pytest.skip("this system does not list processes")
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and int(path.name) != os.getpid():
            try:
                words = (path / "cmdline").read_text(errors="replace")
            except OSError:
                continue
            if str(folder) in words:
                found.append(int(path.name))
    return found


def gone(folder: Path, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while below(folder):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_a_number_of_sites_makes_as_many_clients_and_a_minimum_that_can_be_met(
    tmp_path: Path,
) -> None:
    rehearsal = Rehearsal(tmp_path / "r", study(tmp_path / "p"), sites=2)
    assert rehearsal.names == ["client-0", "client-1"]
    assert rehearsal.project.plan.cohort.minimum == 2
    assert len(Rehearsal(tmp_path / "r", tmp_path / "p").names) == 5
    assert not (tmp_path / "r").exists(), "nothing is made before it begins"


def test_processes_speak_and_are_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.delenv("HANSA_HOME", raising=False)
    told: list[str] = []
    place = tmp_path / "r"
    with Rehearsal(place, study(tmp_path / "p"), sites=2, told=told.append) as rehearsal:
        states = {m["name"]: m["state"] for m in rehearsal.members()}
        assert states == {ADMIN: "member", "client-0": "active", "client-1": "active"}
        assert below(place), "else the look below sees nothing"
        assert len(told) == 2 and rehearsal.url in told[0]
        first = rehearsal.children["client-0"].pid
        rehearsal.kill("client-0")
        assert rehearsal.children["client-0"].status == -signal.SIGKILL
        rehearsal.start("client-0")
        assert rehearsal.children["client-0"].pid != first
        assert rehearsal.stop("client-1") == 0
        assert not rehearsal.children["client-1"].alive
    assert gone(place)
    assert not (tmp_path / "person").exists(), "a person's own home was touched"
    with pytest.raises(ServerError) as error, Rehearsal(place, tmp_path / "p", sites=2):
        pass
    assert error.value.code == "server-exists"


def test_a_killed_rehearsal_takes_its_processes_with_it(tmp_path: Path) -> None:
    place, project = tmp_path / "r", study(tmp_path / "p")
    code = (
        "import pathlib, threading; from hansa.dev import Rehearsal\n"
        f"with Rehearsal(pathlib.Path({str(place)!r}), pathlib.Path({str(project)!r}), sites=2):\n"
        "    print('up', flush=True); threading.Event().wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert len([pid for pid in below(place) if pid != process.pid]) >= 3
    process.kill()
    process.wait()
    assert gone(place), "a process outlived its rehearsal"


def test_what_a_process_said_last_stands_in_the_error(tmp_path: Path) -> None:
    words = ["server", "start", "--folder", str(tmp_path / "nowhere")]
    child = Child("server", words, log=tmp_path / "server.log", environment={})
    child.start()
    assert child.wait(30) == 1
    with pytest.raises(ServerError) as error:
        child.check()
    assert error.value.code == "dev-process"
    assert "server ended with status 1" in error.value.happened
    assert "server-settings" in error.value.happened
    child.stop()
    child.check()


def test_data_behind_a_path_are_declared_under_a_name_at_the_sites(tmp_path: Path) -> None:
    lines = ["a,b,label"] + [f"{n % 7},{n % 5},{'yes' if n % 2 else 'no'}" for n in range(60)]
    project = study(
        tmp_path / "p",
        'name = "table"\nrounds = 2\n[data]\nset = "rows/my table.csv"\ntarget = "label"\n'
        'split = { scheme = "iid", clients = 2 }\n[cohort]\nminimum = 2\n',
    )
    (project / "rows").mkdir()
    (project / "rows" / "my table.csv").write_text("\n".join(lines), encoding="utf-8")
    with Rehearsal(tmp_path / "r", project) as rehearsal:
        assert rehearsal.data_name == "my-table"
        here, there = rehearsal.run(), rehearsal.simulate()
        assert here.commits()[-1]["model"] == there.commits()[-1]["model"]


def test_a_free_port_can_be_listened_on() -> None:
    import socket

    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_the_server_of_a_rehearsal_answers_only_once_it_is_up(tmp_path: Path) -> None:
    with Rehearsal(tmp_path / "r", study(tmp_path / "p"), sites=["client-3"]) as rehearsal:
        rehearsal.kill(SERVER)
        assert rehearsal.start(SERVER) < 30
        rehearsal.wait_for("client-3")
        rehearsal.add_site("client-1")
        assert rehearsal.names == ["client-3", "client-1"]


def test_a_site_that_is_revoked_ends_and_says_why_in_one_line(tmp_path: Path) -> None:
    with Rehearsal(tmp_path / "r", study(tmp_path / "p"), sites=2) as rehearsal:
        rehearsal.connection.call("POST", "/v1/members/client-0/revoke", b"{}", kind=dict[str, Any])
        assert rehearsal.children["client-0"].wait(20) == 1
        log = (rehearsal.site_folder("client-0") / "agent.log").read_text()
        told = rehearsal.command("site", "status", "--folder", "sites/client-0").stdout
    assert "Traceback" not in log
    first, *_, last = log.splitlines()
    assert re.match(r"20..-..-..T..:..:..\+00:00 INFO the agent of client-0 starts", first)
    assert last.endswith("the agent of client-0 has ended")
    assert log.count("the agent ends: ") == 1
    assert "does not know this site as a member" in told


def test_clients_own_files_are_declared_where_they_lie(tmp_path: Path) -> None:
    study = tmp_path / "study"
    for name in ("north", "south"):
        (study / "hospitals" / name).mkdir(parents=True)
    (study / "plan.toml").write_text(
        '[learner]\nkind = "command"\ntrain = ["true"]\nrows = "path"\n[data]\nset = "hospitals"\n'
    )
    rehearsal = Rehearsal(tmp_path / "r", study, sites=2)
    assert rehearsal.names == ["north", "south"]
    declared = rehearsal._data("south", tmp_path / "site")
    assert declared["hospitals"].path == str((study / "hospitals" / "south").resolve())


def test_code_that_reads_files_beside_it_finds_them_at_rehearsed_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a simulation the current folder has them, and the same code runs everywhere."""
    project = study(
        tmp_path / "p",
        'name = "own"\nrounds = 1\n[learner]\nkind = "function"\nmodule = "model.py"\n'
        "[data]\nclients = 2\n",
    )
    (project / "model.py").write_text(
        "import numpy as np\n"
        "def data(client):\n    return np.loadtxt(f'rows/{client}.csv')\n"
        "def init(rng, sample):\n    return {'w': np.zeros(2, np.float32)}\n"
        "def train(params, data, ctx):\n"
        "    scale = np.loadtxt('scale.csv')\n"
        "    return {'w': params['w'] + np.float32(scale * np.mean(data))}\n",
        encoding="utf-8",
    )
    (project / "rows").mkdir()
    (project / "rows" / "client-0.csv").write_text("1\n-3\n", encoding="utf-8")
    (project / "rows" / "client-1.csv").write_text("5\n7\n", encoding="utf-8")
    (project / "scale.csv").write_text("-0.5\n", encoding="utf-8")
    monkeypatch.chdir(project)
    with Rehearsal(project / "kept", project) as rehearsal:
        assert sorted(rehearsal._data("client-0", tmp_path)) == ["rows", "scale.csv"]
        model = final_model(rehearsal.run())
    assert model["w"].tolist() == [-1.25, -1.25]  # the mean of -0.5 * -1 and -0.5 * 6
