"""Small programs for tests of command learners; in sh, Perl and Python without Hansa."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hansa.learners.command import CommandLearner, Commands
from hansa.learners.learner import Seed
from hansa.params import Params, encode
from hansa.params.model import ModelLayout

INIT = ("sh", "-c", 'cp seed.safetensors "$HANSA_MODEL_OUT"')
COPY = 'cp "$HANSA_MODEL_IN" "$HANSA_UPDATE_OUT"'

ADD = """
import os, struct
raw = open(os.environ["HANSA_MODEL_IN"], "rb").read()
head = 8 + int.from_bytes(raw[:8], "little")
values = struct.unpack(f"<{(len(raw) - head) // 4}f", raw[head:])
body = struct.pack(f"<{len(values)}f", *[v + float(os.environ["HANSA_LR"]) for v in values])
open(os.environ["HANSA_UPDATE_OUT"], "wb").write(raw[:head] + body)
open(os.environ["HANSA_RESULT_OUT"], "w").write('{"metrics": {"loss": 0.25}}')
"""
"""Adds the learning rate to all numbers, of 32 bits each; the standard library alone."""


def tensors(arrays: dict[str, Any]) -> bytes:
    header, body = encode(Params.of(arrays))
    return bytes(header) + bytes(body)


def learner(
    train: str | tuple[str, ...], code: dict[str, bytes], *, time_s: float = 60.0, **words: Any
) -> CommandLearner:
    """Return a learner whose train command is a line for sh, or words."""
    own = ("sh", "-c", train) if isinstance(train, str) else train
    rows = words.pop("rows", "npz")
    return CommandLearner(Commands({"train": own, "init": INIT} | words, code, rows, time_s))


def seed_of(arrays: dict[str, Any]) -> Seed:
    params = Params.of(arrays)
    return Seed(params, ModelLayout(params.layout))


def alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


LINUX = sys.platform == "linux"
