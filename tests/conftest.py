"""Puts the folders of shared samples on the path; every test starts in its own folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings

FOLDERS = (
    "simulation",
    "web",
    "remote",
    "site",
    "testing",
    "store",
    "protocol",
    "server",
    "workflows",
)
for folder in FOLDERS:
    sys.path.insert(0, str(Path(__file__).parent / folder))

# On a busy machine time says nothing of a test.
settings.register_profile("busy", settings.default, deadline=None)
settings.load_profile("busy")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the current one, with nothing of the user's around."""
    for name in ("HANSA_RUNS", "HANSA_DATA", "HANSA_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path
