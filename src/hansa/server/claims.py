"""The marks of claims on blobs that were uploaded and not submitted; see `unsubmitted`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

UNSUBMITTED_FOLDER = "unsubmitted"
"""In a server's folder: an empty file for each claim, which is its name."""

_MARK = re.compile(r"([0-9a-f]{64})\.([0-9]{1,18})\.(.+)", re.ASCII)


class Claim(NamedTuple):
    """A blob that somebody sends, or has sent, and the bytes that it has by their word."""

    digest: str
    size: int
    owner: str

    @property
    def name(self) -> str:
        """Return the name of the claim's mark."""
        return f"{self.digest.removeprefix('blake3:')}.{self.size}.{self.owner}"


def claims_in(folder: Path) -> list[Claim]:
    """Return the claims that have their marks in a folder."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if mark := _MARK.fullmatch(path.name):
            found.append(Claim(f"blake3:{mark[1]}", int(mark[2]), mark[3]))
    return found
