"""Serve, invite so many clients, and train once they are there.

    python run_server.py 3

The line that lets a client in is written to federation/invites; on other machines, send it as you
would send a password, and start the client with --invite.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from generate_ssl import generate
from places import ADDRESS, HANSA, INVITES, SERVER, STUDY, answer, environment, hansa


def invited(name: str) -> str:
    """Return the line that lets a client in once."""
    told = answer("server", "invite", name, "--folder", SERVER)
    return next(word for word in told.replace("'", " ").split() if word.startswith("https://"))


def started() -> subprocess.Popen[str]:
    """Start the server, and return once it listens."""
    process = subprocess.Popen(
        [*HANSA, "server", "start", "--folder", str(SERVER)],
        env=environment() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        print("server:", line.rstrip(), flush=True)
        if "https://" in line:
            return process
    sys.exit(process.wait() or 1)


def write_invite(name: str) -> None:
    """Write a client's line whole or not at all, for it may be waiting."""
    INVITES.mkdir(parents=True, exist_ok=True)
    whole = INVITES / f".{name}"
    whole.write_text(invited(name) + "\n", encoding="utf-8")
    os.replace(whole, INVITES / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clients", type=int, metavar="NB_CLIENTS")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--host", default="localhost", help="name by which clients reach it")
    parser.add_argument("--port", type=int, default=8765)
    given = parser.parse_args()
    if not ADDRESS.exists():
        generate(given.host, given.port)
    server = started()
    try:
        for number in range(given.clients):
            write_invite(f"client-{number}")
        hansa(
            *("run", STUDY, "--on", ADDRESS.read_text(encoding="utf-8").strip()),
            *("--rounds", str(given.rounds), "--set", f"cohort.minimum={given.clients}"),
            *("--runs", Path("runs")),
        )
    finally:
        server.terminate()
        server.wait()
