"""Seed models made, or used again, each in a process of its own, as each command is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hansa.params import Params

PLAN = """
name = "kept"
[learner]
kind = "function"
module = "model.py"
[data]
clients = 2
"""

MODEL = """
import numpy as np

{before}


def data(client):
    return {{"train": [client]}}


def init(rng, sample):
    return {{"w": np.array([{value}], np.float32)}}


def train(params, data, ctx):
    return params, {{}}
"""

CODE = """
import json, sys
from pathlib import Path
import hansa.limits
for name, value in json.loads(sys.argv[2]).items():
    setattr(hansa.limits, name, value)
from hansa.code import read_draft
from hansa.remote.remembered import seed_of
seed = seed_of(read_draft(Path(sys.argv[1]), sys.argv[3:]))
print(json.dumps({
    "digest": seed.digest, "made": "hansa.project" in sys.modules, "tensors": seed.tensors,
    "model": b"".join(map(bytes, seed.parts)).hex(), "environment": seed.environment,
}))
"""


class Seeds:
    """Makes seed models, each in a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.environment = home, dict(os.environ)
        self.limits: dict[str, int] = {}

    def __call__(self, folder: Path, *sets: str) -> dict[str, Any]:
        words = [sys.executable, "-c", CODE, str(folder), json.dumps(self.limits), *sets]
        done = subprocess.run(
            words, cwd=self.home, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def kept(self) -> list[Path]:
        return sorted((self.home / ".cache" / "hansa" / "seed-models").glob("*"))


def study(folder: Path, value: str = "-1.5, 4.0", before: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.toml").write_text(PLAN)
    (folder / "model.py").write_text(MODEL.format(value=value, before=before))
    return folder


def weights(*values: float) -> str:
    return Params.of({"w": np.array(values, np.float32)}).digest()
