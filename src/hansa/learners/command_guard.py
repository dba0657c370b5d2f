"""A program that outlives its parent for a moment: it ends commands, and removes their folder.

Started by path, without Hansa's imports, in a session of its own.  It reads `+GROUP` and `-GROUP`
from its input; when that closes, in whatever way the parent ended, every process group that is
still there is killed and the folder it was given goes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys


def main(folder: str) -> None:
    """Watch until the input closes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    alive: set[int] = set()
    for line in sys.stdin:
        (alive.add if line[0] == "+" else alive.discard)(int(line[1:]))
    for group in alive:
        with contextlib.suppress(OSError, AttributeError):  # gone; or a system without groups
            os.killpg(group, signal.SIGKILL)

    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
