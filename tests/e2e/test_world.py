"""Members that share nothing but a network; needs root, and is therefore not part of every run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("world.sh")


def needed() -> str:
    """What is missing for namespaces and users of one's own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    missing = [tool for tool in ("ip", "useradd", "runuser", "bwrap") if not shutil.which(tool)]
    if missing:
        return f"needs {', '.join(missing)}"
    reachable = subprocess.run(
        ["runuser", "-u", "nobody", "--", sys.executable, "-c", ""], capture_output=True
    )
    return "" if reachable.returncode == 0 else "other users cannot run this Python"


@pytest.mark.slow
@pytest.mark.torch
def test_a_federation_of_strangers_trains_through_deaths_and_a_newcomer() -> None:
    if why := needed():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="hansa-world-") as world:
        Path(world).chmod(0o755)  # each member's own folder in it is not
        words = [str(SCRIPT), world, str(Path(sys.executable).parent)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    told = done.stdout
    if done.returncode == 77:
        pytest.skip("namespaces or users cannot be made here")
    assert "exit 0" in told, told + done.stderr
    assert told.count("resumed after an interruption") == 2, told
    assert "hospital-n4 takes part" in told
    assert "clients 4/4" in told, "the newcomer takes part"
    assert "round 60/60" in told
    assert told.count("This ledger and the server's receipts agree.") == 3, told
