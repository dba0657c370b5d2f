"""Where the scripts of this folder keep what they make, and how they call Hansa.

All is below the current folder: data/, federation/ and runs/.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STUDY = Path(__file__).resolve().parent / "study"
FEDERATION = Path("federation")
SERVER = FEDERATION / "server"
INVITES = FEDERATION / "invites"
ADDRESS = FEDERATION / "address.txt"
HANSA = [sys.executable, "-m", "hansa"]


def client_name(given: str) -> str:
    """Return a client's name as Hansa writes it: client_0 is client-0."""
    return given.replace("_", "-")


def environment() -> dict[str, str]:
    """Return an environment in which the memberships of this demo are kept apart from yours."""
    return {**os.environ, "HANSA_HOME": str((FEDERATION / "home").resolve())}


def hansa(*words: str | Path) -> None:
    """Run a command of Hansa as it would be typed; end like it if it fails."""
    print("$ hansa", *words, flush=True)
    done = subprocess.run([*HANSA, *map(str, words)], env=environment(), check=False)
    if done.returncode:
        sys.exit(done.returncode)


def answer(*words: str | Path) -> str:
    """Run a command of Hansa and return what it prints; end like it if it fails."""
    done = subprocess.run(
        [*HANSA, *map(str, words)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout
