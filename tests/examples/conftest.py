"""Runs the script of a walkthrough as a new user would: in an empty folder, which is also home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from walks import EXAMPLES, WALK_S, Walk, processes


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    """Run `examples/NAME/run.sh` with words in the empty folder; return what it prints."""
    shell = shutil.which("sh")
    if shell is None:
        pytest.skip("there is no sh")
    outer = {k: v for k, v in os.environ.items() if not k.startswith(("HANSA_", "FEDN_"))}

    def run(name: str, *words: object, **variables: str) -> str:
        done = subprocess.run(
            [shell, str(EXAMPLES / name / "run.sh"), *map(str, words)],
            cwd=tmp_path,
            env=outer | {"PYTHON": sys.executable, "HOME": str(tmp_path)} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WALK_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    yield run
    left = [line for line in processes() if str(tmp_path) in line]
    assert not left, left
