"""The temporary folder of a rehearsal is gone after it, and at the latest before the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from test_rehearsal import PLAN, study

from hansa.cli import main
from hansa.dev.place import remove_leftovers, temporary_place
from hansa.runs import find_run

HOLD = """
import sys
from hansa.dev.place import temporary_place
with temporary_place() as place:
    print(place, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return place


def test_what_a_killed_rehearsal_left_is_removed_and_nothing_else(temporary: Path) -> None:
    kept = temporary / "hansa-dev-kept"
    kept.mkdir()
    (kept / "ca-key.pem").touch()
    with (
        subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
        temporary_place() as own,
    ):
        assert process.stdout is not None
        place = Path(process.stdout.readline().strip())
        assert place.parent == temporary
        remove_leftovers()
        assert place.is_dir() and own.is_dir(), "they are in use"
        process.kill()
        process.wait()
        assert place.is_dir()
        remove_leftovers()
        assert not place.exists()
    assert list(temporary.iterdir()) == [kept]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_told_to_end_leaves_no_keys_behind(
    home: Path, temporary: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    study(home / "study", PLAN.replace("rounds = 2", "rounds = 5000"))
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "hansa", "dev", "study", "--sites", "2"],
        cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # nohup, say, has it ignored
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("round 2/"):
                break
        assert len(list(temporary.glob("hansa-dev-*/rehearsal/server/ca-key.pem"))) == 1
        os.kill(process.pid, number)
        try:
            text, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130, text
    assert "Traceback" not in text
    assert not list(temporary.glob("hansa-dev-*"))
    run = find_run(home / "runs", None)
    assert run.rehearsed and run.state == "stopped"
    (run.path / "events.jsonl").write_text("")  # as after kill -9 before anything was said
    for words in (["run", "--resume", run.name], ["stop", run.name]):
        with pytest.raises(SystemExit) as end:
            main([*words, "--runs", str(home / "runs")])
        assert end.value.code == 1
        assert "was of a rehearsal" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["ls", "--runs", str(home / "runs")])
    assert "stopped" in capsys.readouterr().out
