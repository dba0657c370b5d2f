"""Puts this folder's samples on the path, and sits a person down."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import importlib

from desks import Desk, Members, make_app
from stand_in import StandIn, join


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    make_app(home / "hello")
    server, membership = join(monkeypatch, home / "league")
    apps = importlib.import_module("hansa.console.apps")
    jobs = importlib.import_module("hansa.remote.fetch")
    monkeypatch.setattr(apps, "upload", server.upload)
    monkeypatch.setattr(jobs, "download", server.download)
    server.membership = membership  # type: ignore[attr-defined]
    return server


@pytest.fixture
def members(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> Members:
    return Members(server, monkeypatch)


@pytest.fixture
def admin(server: StandIn, members: Members, home: Path) -> Desk:
    membership = server.membership._replace(role="admin")  # type: ignore[attr-defined]
    return Desk(membership, home / "console")


@pytest.fixture
def submitter(server: StandIn, home: Path) -> Desk:
    return Desk(server.membership, home / "console")  # type: ignore[attr-defined]
