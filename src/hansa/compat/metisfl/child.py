"""`python -P -m hansa.compat.metisfl.child SCRIPT ...`: a program that ends with its parent."""

from __future__ import annotations

import runpy
import sys
import threading

from hansa.dev.child import end_with_parent


def main() -> None:
    """Run the script as Python would, without its folder at the head of the path."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
