"""`hansa console` without a terminal: lines from -c or a pipe, and its exit status."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from desks import Members
from stand_in import StandIn, unreachable

from hansa.cli import main


class Call:
    """Runs the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys, self._patch = capsys, patch

    def __call__(self, *words: str, typed: str = "", status: int = 0) -> str:
        self._patch.setattr("sys.stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as end:
            main(["console", *words])
        captured = self._capsys.readouterr()
        assert end.value.code == status, captured.out + captured.err
        return captured.out + captured.err


@pytest.fixture
def console(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Call:
    return Call(capsys, monkeypatch)


def test_lines_are_done_in_order_and_the_workspace_remembers(
    console: Call, server: StandIn, members: Members
) -> None:
    text = console("-c", "upload_app hello", "-c", "> set_run_number 1")
    assert "Created a new run folder: run_1" in text
    console(typed="deploy_app hello all\n# then\n\nstart_app all\n")
    assert len(server.submissions) == 1
    assert "Current run number: 1" in console("--on", "hansa.test", "-c", "check_status server")
    assert console(typed="bye\nnonsense\n") == "Bye bye\n"
    assert console(typed="") == ""


def test_the_exit_status_tells_what_was_wrong(
    console: Call, server: StandIn, members: Members
) -> None:
    text = console(typed="set_run_number 1\nstrat_app all\nset_run_number 2\n", status=2)
    assert "Did you mean start_app?" in text and "run_2" not in text
    assert "[console-order]" in console("-c", "start_app all", status=1)
    assert "[console-refused]" in console("-c", "delete_job far-7", status=1)
    server.trouble = [unreachable()]
    assert "[server-unreachable]" in console("-c", "list_jobs", status=1)
    assert "[console-verb]" in console(typed="x" * 100_000, status=2)


def test_ctrl_c_in_a_script_is_an_interruption(console: Call, server: StandIn) -> None:
    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    server.before_answer = interrupt
    assert "Interrupted" in console("-c", "list_jobs", status=130)


def test_without_a_membership_or_with_two_places_it_says_so(console: Call, home: Path) -> None:
    assert "[identity-membership]" in console("-c", "info", status=1)
    assert "[server-settings]" in console("--server", "nowhere", "-c", "info", status=1)
    assert "[usage]" in console("--on", "a", "--server", "b", "-c", "info", status=2)
