"""Which process serves from a folder, and its orderly end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from hansa.errors import ServerError
from hansa.holding import born, is_held
from hansa.server.presence import (
    PROCESS_FILE,
    announced,
    find_process,
    stop_process,
)

SERVES = """
import sys, signal, pathlib
from hansa.server.state import held
signal.signal(signal.SIGTERM, {handler})
with held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    while True:
        signal.pause()
"""


def serving(folder: Path, handler: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SERVES.replace("{handler}", handler), str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_folder_that_nobody_serves_from(tmp_path: Path) -> None:
    assert find_process(tmp_path) is None and stop_process(tmp_path, seconds=1) is None
    with announced(tmp_path):
        assert not is_held(tmp_path), "the file alone says nothing"
        assert find_process(tmp_path) is None
    assert not (tmp_path / PROCESS_FILE).exists()


def test_the_process_is_known_told_to_end_and_waited_for(tmp_path: Path) -> None:
    process = serving(tmp_path, "lambda *_: sys.exit(0)")
    found = find_process(tmp_path)
    assert found is not None and found.pid == process.pid
    assert stop_process(tmp_path, seconds=30) == found
    assert process.wait(30) == 0
    assert not is_held(tmp_path) and not (tmp_path / PROCESS_FILE).exists()


def test_one_that_does_not_end_is_told(tmp_path: Path) -> None:
    process = serving(tmp_path, "signal.SIG_IGN")
    try:
        with pytest.raises(ServerError, match="still runs") as told:
            stop_process(tmp_path, seconds=0.2)
        assert told.value.code == "server-busy"
    finally:
        process.kill()
        process.wait()
    assert find_process(tmp_path) is None, "what is left of a killed process says nothing"


@pytest.mark.parametrize("text", [None, "{", '{"pid": 1, "started": ""}'])
def test_a_server_that_does_not_say_which_process_it_is(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / PROCESS_FILE).write_text(text)
    with filelock.FileLock(tmp_path / "lock"):
        with pytest.raises(ServerError) as told:
            find_process(tmp_path)
        assert told.value.code == "server-busy"


def test_a_process_that_has_got_the_number_of_a_dead_one_is_left_alone(tmp_path: Path) -> None:
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        facts = {"pid": innocent.pid, "started": "", "born": born(os.getpid())}
        (tmp_path / PROCESS_FILE).write_text(json.dumps(facts))
        with filelock.FileLock(tmp_path / "lock"), pytest.raises(ServerError) as told:
            stop_process(tmp_path, seconds=1)
        assert told.value.code == "server-busy" and innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_another_persons_process_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = serving(tmp_path, "lambda *_: sys.exit(0)")

    def no(pid: int, number: int) -> None:
        assert (pid, number) == (process.pid, signal.SIGTERM)
        raise PermissionError

    try:
        monkeypatch.setattr(os, "kill", no)
        with pytest.raises(ServerError, match="of another user"):
            stop_process(tmp_path, seconds=1)
        assert process.poll() is None
    finally:
        monkeypatch.undo()
        process.kill()
        process.wait()
