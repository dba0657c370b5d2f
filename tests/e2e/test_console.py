"""The seed's session on real processes, and what a person meets at the prompt."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from federations import CALM, eventually

from hansa.dev import SERVER, Rehearsal
from hansa.identity import parse_invite
from hansa.protocol.enrolment import enrol
from hansa.remote.asking import invite
from hansa.store.files import load_params

sys.path.insert(0, str(Path(__file__).parents[1] / "console"))
sys.path.insert(0, str(Path(__file__).parents[1] / "compat"))

from desks import PLAN, make_app
from flare_apps import write_app

COMMAND = [sys.executable, "-P", "-m", "hansa", "console"]


@pytest.fixture
def poc(tmp_path: Path) -> Iterator[Rehearsal]:
    """The seed's layout: a server, site-1 and site-2, and an app in transfer/."""
    app = make_app(tmp_path / "transfer" / "hello-numpy-sag")
    sites = ["site-1", "site-2"]
    with Rehearsal(tmp_path / "poc", app, sites=sites, settings=CALM) as rehearsal:
        yield rehearsal


def words(poc: Rehearsal) -> list[str]:
    place = ["--server", str(poc.folder / SERVER), "--sites", str(poc.folder / "sites")]
    return [*COMMAND, *place]


def console(poc: Rehearsal, *lines: str, status: int = 0, home: Path | None = None) -> str:
    """Type lines into a pipe and return what was printed."""
    place = words(poc) if home is None else [*COMMAND, "--on", poc.url, "--workspace", "other"]
    environment = {**poc.environment, **({"HANSA_HOME": str(home)} if home else {})}
    done = subprocess.run(
        place,
        input="".join(f"{line}\n" for line in lines),
        cwd=poc.folder.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_the_seeds_session_word_for_word(poc: Rehearsal) -> None:
    console(
        poc,
        "> upload_app hello-numpy-sag",
        "> set_run_number 1",
        "> deploy_app hello-numpy-sag all",
        "> start_app all",
    )

    def over() -> bool:
        return "Engine status: stopped" in console(poc, "> check_status server")

    eventually(over, seconds=90, what="the run did not end")
    text = console(poc, "> check_status server", "> check_status client", "download_job hello-1")
    assert "FL_app name: hello-numpy-sag" in text and "Current run number: 1" in text
    assert "round 3 of 3 is committed" in text and "Registered clients: 2" in text
    found = list((poc.folder.parent / "console").glob("run_1/hello-1/models/*000003.safetensors"))
    model = load_params(found[0])["numpy_key"]
    # Contract 3.2, after three rounds of adding one.
    np.testing.assert_array_equal(model, np.array([[4, 5, 6], [7, 8, 9], [10, 11, 12]], np.float32))
    text = console(poc, "> shutdown client", "> shutdown server", "> bye")
    assert text.count("Shutdown the client...") == 2
    assert "FL app has been shutdown." in text and "Bye bye" in text
    for name in ("site-1", "site-2", SERVER):
        assert poc.children[name].wait(30) == 0, name
    assert "No server runs" in console(poc, "shutdown server")
    assert "[server-unreachable]" in console(poc, "check_status server", status=1)


def test_the_seeds_session_runs_the_seeds_own_app(poc: Rehearsal) -> None:
    """An app folder of FLARE as it is: contract 3.2 and 3.3, saved as its persistor would."""
    write_app(poc.folder.parent / "transfer" / "sag")
    text = console(poc, "upload_app sag", "set_run_number 1", "deploy_app sag all", "start_app all")
    assert "np_trainer.NPTrainer" in text, "it says how the app was read"
    assert "FINISHED" in console(poc, "monitor_job")
    run = console(poc, "check_status server").split("Run: ")[1].split()[0]
    console(poc, f"download_job {run}")
    (saved,) = (poc.folder.parent / "console").glob("run_1/*/models/server.npy")
    model = np.load(saved, allow_pickle=False)
    np.testing.assert_array_equal(model, np.array([[4, 5, 6], [7, 8, 9], [10, 11, 12]], np.float32))
    assert model.dtype == np.float32


def test_a_silent_site_is_named_and_an_aborted_run_says_it_has_stopped(poc: Rehearsal) -> None:
    slow = make_app(poc.folder.parent / "slow", plan=PLAN.replace("rounds = 3", "rounds = 5000"))
    poc.kill("site-2")
    poc.wait_for("site-2", state="silent")
    console(poc, f"submit_job {slow}")

    def status() -> str:
        return console(poc, "check_status server", "check_status client site-2")

    eventually(lambda: "Waiting: 1 of 2 sites" in status(), seconds=60)
    text = status()
    assert "Engine status: starting" in text
    assert re.search(r"\| site-2 \|[^\n]*No Reply since 20", text), text
    poc.start("site-2")
    eventually(lambda: "Engine status: started" in console(poc, "check_status server"), seconds=60)
    text = console(poc, "show_stats server", "abort all", "check_status server")
    assert "stopped after round" in text and "Engine status: stopped" in text
    assert "[run-stopped]" in console(poc, "monitor_job", status=1)


def test_wrong_words_and_a_viewer_get_a_code_and_a_status(poc: Rehearsal) -> None:
    assert "[console-verb]" in console(poc, "chek_status server", "bye", status=2)
    assert "[console-verb]" in console(poc, "upload_app", status=2)
    assert "[console-order]" in console(poc, "start_app all", "bye", status=1)
    assert "[console-refused]" in console(poc, "restart server", status=1)
    line = invite(poc.connection, "vera", role="viewer")
    home = poc.folder.parent / "vera"
    enrol(parse_invite(line), home / "federations" / f"localhost-{poc.port}", kind="person")
    assert "Registered clients: 2" in console(poc, "check_status server", home=home)
    app = poc.folder.parent / "transfer" / "hello-numpy-sag"
    assert "[identity-role]" in console(poc, f"upload_app {app}", status=1, home=home)
    assert "[identity-role]" in console(poc, "remove_client site-1", status=1, home=home)
    assert "[console-refused]" in console(poc, "shutdown client", status=1, home=home)
    assert "Registered clients: 2" in console(poc, "check_status server")


class Terminal:
    """A person at a terminal."""

    def __init__(self, poc: Rehearsal) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(poc.folder.parent)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.execve(sys.executable, words(poc), {**os.environ, **poc.environment, "TERM": "dumb"})
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def sees(self, wanted: str, seconds: float = 60.0) -> str:
        """Wait until something is shown; return all up to it, and forget that."""
        until = time.monotonic() + seconds
        while wanted not in self.shown:
            assert time.monotonic() < until, f"{wanted!r} is not in {self.shown!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._fd, 65_536).decode("utf-8", "replace")
                except OSError:
                    assert wanted in self.shown, self.shown
        before, _, self.shown = self.shown.partition(wanted)
        return before + wanted

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_at_a_terminal_there_is_a_prompt_completion_history_and_a_confirmation(
    poc: Rehearsal,
) -> None:
    pytest.importorskip("readline")
    person = Terminal(poc)
    person.sees("Type ? to list commands")
    person.sees("> ")
    person.type("check_st\tse\t\n")
    person.sees("Registered clients: 2")
    person.sees("Done [")
    person.type("nonsense\n")
    person.sees("[console-verb]")
    person.sees("> ")
    person.type("half a li\x03")
    person.sees('Type "bye" to leave.')
    person.type("shutdown client\n")
    person.sees("Enter your name to confirm (admin): ")
    person.type("no\n")
    person.sees("was not confirmed")
    person.sees("> ")
    person.type("\x04")
    assert person.status() == 0
    history = poc.folder / "home" / "console-history"
    assert "nonsense" in history.read_text() and history.stat().st_mode & 0o077 == 0
    assert all(child.alive for child in poc.children.values())


def test_an_idle_console_goes_on_after_its_server_was_restarted(poc: Rehearsal) -> None:
    """NVFlare#189: a console that was left alone for a while is logged out."""
    person = Terminal(poc)
    person.sees("> ")
    person.type("list_jobs\n")
    person.sees("Done [")
    poc.kill(SERVER)
    person.type("list_jobs\n")
    person.sees("[server-unreachable]")
    poc.start(SERVER)
    poc.wait_for("site-1", "site-2")
    person.type("check_status server\n")
    person.sees("Registered clients: 2")
    person.type("bye\n")
    person.sees("Bye bye")
    assert person.status() == 0
