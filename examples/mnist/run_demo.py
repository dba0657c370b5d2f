"""Prepare data, then run a server and all clients as processes of this machine.

python run_demo.py
python run_demo.py 5 --scheme=biased --rounds=20
"""

from __future__ import annotations

import argparse
import json

import prepare_data
from places import STUDY, hansa

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clients", type=int, nargs="?", default=3, metavar="NB_CLIENTS")
    parser.add_argument("--rounds", type=int, default=10)
    prepare_data.arguments(parser)
    given = parser.parse_args()
    folder = prepare_data.prepare(given.clients, scheme=given.scheme, seed=given.seed)
    hansa(
        *("dev", STUDY, "--rounds", str(given.rounds)),
        *("--set", f"data.set={json.dumps(str(folder.resolve()))}"),
        *("--set", 'data.split={scheme="files"}'),
    )
