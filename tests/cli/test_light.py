"""Commands that ask a server load what asking takes, and no more."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hansa.dev.poc import lay_out

HEAVY = {"numpy", "sqlalchemy", "starlette", "granian", "asyncio", "rich", "filelock"}
X509 = "cryptography.x509"

CODE = f"""
import sys
from hansa.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(sorted({HEAVY | {X509}!r} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder with a server that runs, a site and the admin's kit."""
    place = tmp_path_factory.mktemp("light") / "poc"
    lay_out(place, sites=1)
    words = [sys.executable, "-m", "hansa", "server", "start", "--folder", place / "server"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        assert any("serving on" in line for line in server.stderr)
        yield place
        server.terminate()


def loaded(place: Path, *words: str) -> str:
    """Return which of the heavy modules a command has loaded that does what it should."""
    home = {"HANSA_HOME": str(place / "admin" / "startup"), "HOME": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], cwd=place, env=os.environ | home,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr.splitlines()[-1]


STUDY = """
name = "study"
[learner]
kind = "function"
module = "model.py"
[data]
clients = 2
"""

MODEL = """
import numpy as np
def data(client): return {"train": [client]}
def init(rng, sample): return {"w": np.float32([1, -2])}
def train(params, data, ctx): return params, {}
"""


def make_study(place: Path, name: str) -> None:
    (place / name).mkdir(exist_ok=True)
    (place / name / "plan.toml").write_text(STUDY)
    (place / name / "model.py").write_text(MODEL)


CONSOLE = ("console", "--server", "server", "--workspace", "admin", "-c")


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "--on"),
        ("models", "ls", "--on"),
        ("server", "sites", "--folder", "server"),
        ("server", "runs", "--folder", "server"),
        ("site", "ledger", "--folder", "site-1", "--verify"),
        (*CONSOLE, "check_status server"),
        (*CONSOLE, "check_status client"),
        (*CONSOLE, "list_jobs"),
        (*CONSOLE, "list_clients"),
        (*CONSOLE, "show_users"),
    ],
    ids=" ".join,
)
def test_what_asks_a_server_loads_no_arrays_database_or_certificates(
    place: Path, words: tuple[str, ...]
) -> None:
    assert loaded(place, *words) == "[]"


def test_an_owners_word_on_a_plan_loads_no_arrays(place: Path) -> None:
    # Only the certificate of whoever submitted a plan is looked at.
    assert loaded(place, "site", "requests", "--folder", "site-1") == f"['{X509}']"


@pytest.mark.parametrize(
    "words", [("run", "study", "--new", "--detach", "--on"), (*CONSOLE, "submit_job study")]
)
def test_a_project_is_handed_over_with_what_its_code_takes(
    place: Path, words: tuple[str, ...]
) -> None:
    make_study(place, "study")
    assert loaded(place, *words) == "['filelock', 'numpy']"


def test_a_server_is_looked_over_without_arrays(place: Path) -> None:
    found = loaded(place, "server", "doctor", "--folder", "server")
    assert "numpy" not in found and "starlette" not in found


def test_a_command_that_ends_is_not_searched_for_garbage() -> None:
    code = (
        "import atexit, gc, sys\nfrom hansa.cli import main\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        "sys.argv = ['hansa', '--version']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize(
    "module", ["show", "log", "stop", "predict", "models_look", "site_requests", "site_review"]
)
def test_help_of_a_verb_loads_none_of_it(module: str) -> None:
    code = f"import sys, hansa.cli.{module}; print(sorted({HEAVY | {X509}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
