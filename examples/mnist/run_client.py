"""Join the federation with a client's prepared rows, and take part until Ctrl-C.

python run_client.py client_0 data/mnist_iid
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from places import FEDERATION, HANSA, INVITES, client_name, environment, hansa

INVITE_S = 60
POLICY = """
[policy]
submitters = ["admin"]         # whose plans may come: whoever made the server
approve    = "submitters"      # theirs run unasked; "ask": you approve each
sandbox    = "preferred"       # "required" where bubblewrap is installed
"""


def awaited(name: str) -> str:
    """Return the invitation that the server script writes on this machine."""
    until = time.monotonic() + INVITE_S
    if not (INVITES / name).exists():
        print(f"{name} waits {INVITE_S} s for {INVITES / name}, from run_server.py", flush=True)
    while not (INVITES / name).exists():
        if time.monotonic() > until:
            sys.exit(f"There is no invitation {INVITES / name}; start run_server.py first.")
        time.sleep(0.1)
    return (INVITES / name).read_text(encoding="utf-8").strip()


def make_site(folder: Path, rows: Path, invite: str) -> None:
    """Join, declare the rows, and say what may run on them."""
    hansa("site", "join", invite, "--folder", folder, "--yes")
    with open(folder / "site.toml", "a", encoding="utf-8") as settings:
        settings.write(POLICY)
    hansa("site", "data", "add", rows, "--as", "mnist", "--folder", folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="such as client_0")
    parser.add_argument("data", type=Path, help="such as data/mnist_iid")
    parser.add_argument("--invite", help="the line from the server, on another machine")
    given = parser.parse_args()
    name = client_name(given.name)
    site = FEDERATION / name
    if not (given.data / name).exists():
        sys.exit(f"There are no data {given.data / name}; make them with prepare_data.py.")
    if not (site / "site.toml").exists():
        make_site(site, (given.data / name).resolve(), given.invite or awaited(name))
    command = [*HANSA, "site", "start", "--folder", str(site)]
    os.execve(command[0], command, environment())
