"""`python -P -m hansa.dev.child WORDS...`: the command `hansa WORDS`, that ends with its parent.

Standard input is a pipe whose other end the parent holds and never writes to: when the parent
dies, however it dies, the system closes it, and this process ends itself and its group.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def end_with_parent() -> None:
    """Wait for the end of standard input, then end this process and those it has started."""
    try:
        while os.read(0, 1):
            pass
    except OSError:
        pass
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main() -> None:
    """Run the command line with this process's words."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.argv = ["hansa", *sys.argv[1:]]
    runpy.run_module("hansa", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
