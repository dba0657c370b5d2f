"""A script of FEDn's API, run with our `fedn` in the place of the real one.

    python -m hansa.compat.fedn script.py ARGUMENTS

Nothing is installed: the stand-in is on the path of this process alone.
"""

from __future__ import annotations

import os
import runpy
import sys

from hansa.compat.fedn.call import SHIM
from hansa.errors import HansaError


def main() -> None:
    """Run the script that the command line names; an error of Hansa's is a sentence."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m hansa.compat.fedn SCRIPT [ARGUMENT]...")
    script = sys.argv[1]
    if not os.path.isfile(script):
        sys.exit(f"There is no script {script}. Nothing was run.\nName a Python file.")
    sys.argv[:] = sys.argv[1:]
    sys.path[:0] = [str(SHIM), os.path.dirname(os.path.abspath(script))]
    try:
        runpy.run_path(script, run_name="__main__")
    except HansaError as error:
        sys.exit(f"{error.happened}\n{error.hint}  [{error.code}]")


if __name__ == "__main__":
    main()
