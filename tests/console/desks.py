"""A console before a stand-in of a server, and an app to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stand_in import StandIn

from hansa.console.seat import Seat
from hansa.console.session import Session
from hansa.console.workspace import Workspace
from hansa.identity import Membership

PLAN = """
name = "hello"
rounds = 3
[learner]
kind = "function"
module = "model.py"
[data]
clients = 2
[cohort]
minimum = 2
"""

MODEL = """
import numpy as np


def data(client):
    return {"train": [client], "validation": [client]}


def init(rng, sample):
    return {"numpy_key": np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)}


def train(params, data, ctx):
    params["numpy_key"] += 1
    return params, {}


def evaluate(params, data):
    return {"sum": float(params["numpy_key"].sum())}
"""
"""What the seed's example does: each site adds one, the server averages."""


def make_app(folder: Path, *, plan: str = PLAN) -> Path:
    folder.mkdir(parents=True)
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    return folder


class Members:
    """Adds members to a stand-in, which knows runs alone."""

    def __init__(self, server: StandIn, monkeypatch: Any) -> None:
        self.rows: list[dict[str, Any]] = [
            _member("north", state="active", heard_s=1.0),
            _member("south", state="silent", heard_s=90.0),
            _member("west", state="silent", heard_s=None),
            _member("ada", kind="person", role="admin", state="member"),
        ]
        self.revoked: list[str] = []
        answer = server._answer

        def answered(method: str, path: str, body: bytes | None) -> Any:
            if path == "/v1/members":
                return {"members": self.rows}
            if path.endswith("/revoke"):
                self.revoked.append(path.split("/")[3])
                return {}
            return answer(method, path, body)

        monkeypatch.setattr(server, "_answer", answered)


def _member(name: str, **facts: Any) -> dict[str, Any]:
    plain = {
        "kind": "site",
        "role": "site",
        "org": "",
        "joined_at": "2026",
        "version": "0.1",
        "resources": {},
    }
    return {"name": name, **plain, **facts}


class Desk:
    """A session whose answers are kept."""

    def __init__(self, membership: Membership, folder: Path, **options: Any) -> None:
        self.told: list[str] = []
        ask = options.pop("ask", None)
        self.seat = Seat(membership, Workspace(folder, membership.url), **options)
        self.session = Session(self.seat, told=self.told.append, ask=ask)

    def do(self, *lines: str) -> str:
        """Do lines and return what they answered."""
        self.told.clear()
        self.session.script(lines)
        return "\n".join(self.told)

    def converse(self, lines: Sequence[str | type[BaseException]]) -> str:
        """Let a person type lines; an exception stands for Ctrl-C or the end of input."""
        left = list(lines)

        def read(prompt: str) -> str:
            assert prompt == "> "
            line = left.pop(0) if left else EOFError
            if isinstance(line, str):
                return line
            raise line

        self.told.clear()
        self.session.converse(read)
        assert not left
        return "\n".join(self.told)
