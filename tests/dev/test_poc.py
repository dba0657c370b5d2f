"""`hansa poc`: folders and scripts as in the walkthrough, made without starting anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hansa.cli import main
from hansa.dev.poc import lay_out
from hansa.errors import ServerError
from hansa.identity import check_certificate, load_membership
from hansa.server.opening import opened
from hansa.site.settings import load_settings


def test_the_layout_is_the_walkthroughs_and_every_member_has_its_own_key(home: Path) -> None:
    url = lay_out(home / "poc", 2, port=8002)
    assert url == "https://localhost:8002"
    keys = set()
    for name in ("site-1", "site-2"):
        place = home / "poc" / name
        membership = load_membership(place)
        certified = check_certificate(membership.certificate(), membership.authority_pem, at=None)
        assert (certified.name, certified.public) == (name, membership.key().public)
        assert membership.url == url and membership.role == "site"
        policy = load_settings(place).policy
        assert policy is not None and policy.submitters == ("admin",)
        assert (place / "key.pem").stat().st_mode & 0o077 == 0
        keys.add(membership.key().public)
    assert len(keys) == 2
    for script in ("server/startup/start.sh", "site-1/startup/start.sh", "stop_fl.sh",
                   "admin/startup/fl_admin.sh"):  # fmt: skip
        assert os.access(home / "poc" / script, os.X_OK)
    with opened(home / "poc" / "server") as server:
        assert server.settings.port == 8002 and server.settings.name == "poc"
    assert not (home / ".config").exists(), "a person's own memberships were touched"
    with pytest.raises(ServerError) as told:
        lay_out(home / "poc", 2)
    assert told.value.code == "server-exists"


def test_the_command_names_what_to_start(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["poc", "-n", "1", "--folder", "here"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "here/site-1/startup/start.sh" in text and "site-2" not in text
    done = subprocess.run(
        [home / "here" / "admin" / "startup" / "fl_admin.sh", "localhost"],
        input="info\nbye\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "You: admin, admin of here" in done.stdout
    assert "Sites of this machine: site-1" in done.stdout


def test_a_folder_with_a_space_is_quoted_in_what_is_to_be_typed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["poc", "-n", "1", "--folder", "p c"])
    typed = [line.strip() for line in capsys.readouterr().out.splitlines() if "start.sh" in line]
    assert typed == ["'p c'/server/startup/start.sh", "'p c'/site-1/startup/start.sh"]
