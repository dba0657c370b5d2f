"""The walkthrough of examples/mnist, from its first line to its last, on little data."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hansa.data import load
from hansa.errors import DataError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_script_runs_server_and_clients_by_one_command_and_on_separate_terminals(
    tmp_path: Path,
) -> None:
    try:
        load("mnist5k")
    except DataError as error:
        pytest.skip(str(error))
    shell = shutil.which("sh")
    if shell is None:
        pytest.skip("there is no sh")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HANSA_")}
    done = subprocess.run(
        [shell, str(EXAMPLES / "mnist" / "run.sh"), "2", "1", str(port)],
        cwd=tmp_path,
        env=environment | {"PYTHON": sys.executable, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2, done.stdout
    scores = []
    for run in runs:
        row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        assert row["clients"]["accepted"] == 2
        assert {"f1", "roc_auc", "accuracy"} <= row["validation"].keys()
        assert sum(map(sum, row["confusion"]["validation"])) == 1000  # a fifth of all images
        scores.append(row["validation"]["accuracy"]["mean"])
    assert min(scores) > 0.5, scores  # chance is 0.1
    own = row["validation"]["f1"]["by_client"]
    assert set(own) == {"client-0", "client-1"}


def test_nothing_that_an_example_needs_is_ignored() -> None:
    git = shutil.which("git")
    if git is None or not (EXAMPLES.parent / ".git").exists():
        pytest.skip("this is no checkout")
    files = [str(p) for p in EXAMPLES.rglob("*") if p.suffix in (".py", ".sh", ".toml", ".md")]
    told = subprocess.run(
        [git, "check-ignore", *files], cwd=EXAMPLES, capture_output=True, text=True, check=False
    )
    assert files and told.stdout == ""
