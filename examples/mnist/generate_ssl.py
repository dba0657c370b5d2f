"""Make the server's own certificate authority, and its certificate for a host name.

    python generate_ssl.py
    python generate_ssl.py --host=fl.example.org --port=8443

Clients need no file of it: the line that invites one names the authority by its fingerprint.
"""

from __future__ import annotations

import argparse
import sys

from places import ADDRESS, SERVER, hansa


def generate(host: str, port: int) -> None:
    """Make the server's folder, which holds authority, keys and settings."""
    url = f"https://{host}:{port}"
    hansa("server", "init", "--folder", SERVER, "--name", "mnist", "--url", url)
    ADDRESS.write_text(f"{host}:{port}\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="localhost", help="name by which clients reach it")
    parser.add_argument("--port", type=int, default=8765)
    given = parser.parse_args()
    if ADDRESS.exists():
        sys.exit(f"{SERVER} is there already; remove the folder federation to begin anew.")
    generate(given.host, given.port)
