"""What a program in the sandbox has, and what is hidden even within what it has.

Attempts to get out are in tests/attacks/test_sandbox.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hansa.hosting.sandbox import environment, sandbox_command, trouble
from hansa.site.policy import Policy
from hansa.site.sandbox import sandbox_told

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bubblewrap")


def shown(words: list[str], **options: object) -> str:
    command = sandbox_command(words, **({"readable": {}} | options))  # type: ignore[arg-type]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=20, check=False
    )
    return done.stdout


@needs_bwrap
def test_a_site_folder_inside_of_declared_data_stays_hidden(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "key.pem").write_text("key")
    (tmp_path / "rows").write_text("rows")
    words = "cat /data/all/rows; ls -A /data/all/site; cat /data/all/site/key.pem"
    told = shown(["/bin/sh", "-c", words], readable={"/data/all": tmp_path}, hidden=[site])
    assert told == "rows"
    link = tmp_path / "link"
    link.symlink_to(site)
    assert "key" not in shown(
        ["/bin/sh", "-c", "cat /data/all/*/key.pem"],
        readable={"/data/all": tmp_path},
        hidden=[link],
    )


@needs_bwrap
def test_python_hansa_and_numpy_work_and_the_environment_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("HANSA_THREADS", "2")
    code = (
        "import hansa, numpy, os; print(*sorted(os.environ)); print(os.environ['OMP_NUM_THREADS'])"
    )
    names, threads = shown([sys.executable, "-P", "-s", "-c", code]).splitlines()
    assert "HOME" in names.split() and "DATABASE_PASSWORD" not in names
    assert threads == "2"  # as in simulation


@needs_bwrap
def test_the_current_folder_is_the_one_named(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("rows")
    assert shown(["/bin/cat", "rows"], readable={"/data": tmp_path}, folder="/data") == "rows"


@needs_bwrap
def test_a_python_below_the_folder_for_temporary_files_is_not_hidden_by_it() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        program = Path(folder) / "venv" / "bin" / "tool"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\necho works > /tmp/new && cat /tmp/new\n")
        program.chmod(0o755)
        venv = Path(folder) / "venv"
        assert shown([str(program)], readable={str(venv): venv}).strip() == "works"
        assert shown(["/bin/ls", "-A", folder], readable={str(venv): venv}).strip() == "venv"
        words = f"echo x > {program} || echo refused"
        assert "refused" in shown(["/bin/sh", "-c", words], readable={str(venv): venv})
        assert not Path("/tmp/new").exists()


def test_a_bubblewrap_that_does_not_work_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: no namespaces for you' >&2\nexit 1\n")
    broken.chmod(0o755)
    for path, words in ((tmp_path, "no namespaces for you"), (tmp_path / "none", "not installed")):
        monkeypatch.setenv("PATH", str(path))
        trouble.cache_clear()
        try:
            assert words in (trouble() or "")
            for wish, so in (("required", "nothing runs"), ("preferred", "rights of the agent")):
                told = sandbox_told(Policy(sandbox=wish))  # type: ignore[arg-type]
                assert told.startswith("NONE: ") and words in told and so in told
        finally:
            trouble.cache_clear()
