"""What FEDn's server functions do, and must not happen here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hansa.errors import RunError, ServerError
from hansa.server.settings import ServerSettings
from hansa.server.submissions import Serving

sys.path.insert(0, str(Path(__file__).parents[1] / "functions"))
from projects import run
from served_projects import model, written


def test_server_functions_do_not_run_unless_the_operator_allows_them() -> None:
    assert ServerSettings().server_functions == "refused"
    with pytest.raises(ServerError) as caught:
        Serving(ServerSettings().server_functions).place({"server.py": b"raise SystemExit"})
    assert caught.value.code == "function-refused"


def test_a_failing_server_function_is_not_retired_in_silence(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", "def select(clients): return clients[7]")
    with pytest.raises(RunError) as caught:
        run(folder, tmp_path / "runs")
    assert caught.value.code == "function-failed"
    made = run(folder, tmp_path / "others", "server_functions.failing=default", "rounds=1")
    assert "IndexError" in made.rows()[-1]["server_functions"]["failed"]["select"]


def test_two_runs_do_not_share_what_server_functions_remember(tmp_path: Path) -> None:
    code = (
        "seen = []\n"
        "def select(round, clients, memory):\n"
        "    seen.append(round)\n"
        "    memory['calls'] = memory.get('calls', 0) + 1\n"
        "    assert len(seen) == memory['calls'] == round\n"
        "    return clients\n"
    )
    folder = written(tmp_path / "p", code)
    first, second = (run(folder, tmp_path / name) for name in ("a", "b"))
    assert (model(first) == model(second)).all()
