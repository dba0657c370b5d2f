"""What the verbs do and answer, against a server's side in memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from desks import PLAN, Desk, Members, make_app
from stand_in import StandIn, event, unreachable

from hansa.console.answers import error
from hansa.errors import ConsoleError, HansaError, RequestRefused, RunError
from hansa.limits import CONSOLE_VIEW_BYTES

START = ("upload_app hello", "set_run_number 1", "deploy_app hello all", "start_app all")


def refused(desk: Desk, line: str, code: str, *said: str) -> HansaError:
    with pytest.raises(HansaError) as told:
        desk.do(line)
    assert told.value.code == code, told.value
    for text in said:
        assert text in str(told.value)
    return told.value


def test_four_steps_are_one_signed_submission(admin: Desk, server: StandIn) -> None:
    text = admin.do(*START)
    assert "Created folder" in text and "Created a new run folder: run_1" in text
    assert 'deployed app "hello" to Server' in text and "Server app is starting...." in text
    assert "| north  | Start the client app..." in text
    assert "| south  | No Reply; it begins when it is back" in text
    assert "Run number 1 is far-7 at https://hansa.test:8443." in text
    assert text.count("Done [") == 4
    assert len(server.submissions) == 1
    assert server.submissions[0].plan["name"] == "hello"
    assert server.submissions[0].package.digest in server.blobs


def test_the_package_is_at_the_server_before_the_run_is(admin: Desk, server: StandIn) -> None:
    admin.do("upload_app hello")
    assert len(server.blobs) == 1 and not server.submissions


def test_what_runs_is_what_was_uploaded_not_what_became_of_it(
    admin: Desk, server: StandIn, home: Path
) -> None:
    admin.do("upload_app hello", "set_run_number 1")
    (home / "hello" / "plan.toml").write_text(PLAN.replace("rounds = 3", "rounds = 9"))
    admin.do("deploy_app hello all", "start_app all")
    assert server.submissions[0].plan["rounds"] == 3


def test_each_step_says_what_it_needs_before_it(admin: Desk, server: StandIn) -> None:
    refused(
        admin, "deploy_app hello all", "console-order", "Please set a run number", "run_number 1"
    )
    refused(admin, "start_app all", "console-order", "Please set a run number")
    refused(admin, "abort all", "console-order", "No run number was set")
    refused(admin, "ls server", "console-order", "set_run_number")
    admin.do("set_run_number 1")
    refused(admin, "deploy_app hello all", "console-order", "does not exist", "upload_app hello")
    refused(admin, "deploy_app ../hello all", "console-order", "does not exist")
    refused(admin, "start_app all", "console-order", "No app is deployed")
    refused(admin, "check_status client nobody", "console-order", "north, south, west")
    refused(admin, "delete_run_number 4", "console-order", "Those that are: 1")
    for text in ("0", "x", "1.5", "9" * 12):
        refused(admin, f"set_run_number {text}", "console-verb", "above 0, at most 999999999")
    assert not server.submissions


def test_after_the_highest_run_number_a_free_one_is_proposed(admin: Desk, home: Path) -> None:
    admin.do("set_run_number 999999998", "set_run_number 1")
    assert admin.seat.workspace.next_number() == 999_999_999
    admin.do("set_run_number 999999999")
    assert admin.seat.workspace.next_number() == 2


def test_an_error_of_the_server_advises_the_consoles_own_command() -> None:
    told = error(RequestRefused("run-not-found", "No run.", "hansa ls --on URL", status=404))
    assert told == "Error: No run.\nList them with: list_jobs  [run-not-found]"


def test_a_number_runs_once_and_a_repeated_start_runs_nothing_twice(
    admin: Desk, server: StandIn
) -> None:
    admin.do(*START)
    refused(admin, "start_app all", "console-order", "already starting or started", "run_number 2")
    refused(admin, "deploy_app hello all", "console-order", "on record")
    refused(admin, "delete_run_number 1", "console-order", "is going on")
    assert "run number already exists. Set the FL run number to 1." in admin.do("set_run_number 1")
    assert "Run number 1 goes on meanwhile" in admin.do("set_run_number 2")
    server.run(3)
    admin.do("set_run_number 1")
    refused(admin, "start_app all", "console-order", "It has run to its end")
    assert len(server.submissions) == 1
    assert "Deleted run folder: run_1" in admin.do("delete_run_number 1")
    assert not admin.seat.workspace.place(1).exists()


def test_a_start_that_was_cut_off_is_taken_up_again(admin: Desk, server: StandIn) -> None:
    admin.do(*START[:3])
    answer = server._answer

    def cut(method: str, path: str, body: bytes | None) -> Any:
        made = answer(method, path, body)
        if method == "POST" and path == "/v1/runs":
            server._answer = answer  # type: ignore[method-assign]
            raise unreachable()
        return made

    server._answer = cut  # type: ignore[method-assign]
    refused(admin, "start_app all", "server-unreachable")
    assert "Run number 1 is far-7" in admin.do("start_app all")
    assert len({submission.id for submission in server.submissions}) == 1


@pytest.mark.parametrize("line", ["deploy_app hello server", "deploy_app hello client north",
                                  "start_app server", "start_app client"])  # fmt: skip
def test_half_a_deed_is_refused_with_the_whole_one(admin: Desk, line: str) -> None:
    admin.do("upload_app hello", "set_run_number 1")
    refused(admin, line, "console-refused", "is not split", f"{line.split()[0]} ")


def test_what_is_no_project_is_not_uploaded(admin: Desk, server: StandIn, home: Path) -> None:
    refused(admin, "upload_app nowhere", "console-app", "no folder 'nowhere'")
    (home / "empty").mkdir()
    refused(admin, "upload_app empty", "console-app", "no plan.toml", "hansa init")
    make_app(home / "it's wrong")
    refused(admin, 'upload_app "it\'s wrong"', "console-app", "Rename the folder")
    assert not server.blobs
    make_app(home / "typo", plan=PLAN.replace("rounds", "ronds"))
    refused(admin, "upload_app typo", "plan-unknown-key")
    assert not server.submissions


def test_status_tells_the_round_who_is_silent_and_since_when(admin: Desk, server: StandIn) -> None:
    text = admin.do("check_status server")
    assert "Engine status: stopped" in text and "Run number has not been set." in text
    admin.do(*START)
    server.run(1)
    server.events[-1:] = [
        event("opened", round=2, phase="train", cohort=["north", "south"]),
        event("result", round=2, phase="train", client="north", state="accepted"),
    ]
    text = admin.do("check_status server")
    assert "FL_app name: hello" in text and "Current run number: 1" in text
    assert "Engine status: started" in text and "Registered clients: 3" in text
    assert "Run: far-7 of ada, running; round 1 of 3 is committed" in text
    assert "Round 2: 2 asked to train since 2026-01-01T00:00:00+00:00, 1 answered" in text
    assert "not yet: south" in text
    assert "No Reply since 20" in text and "No Reply; never connected" in text
    text = admin.do("check_status client north")
    assert "| north  | hello    | 1" in text and "round 2: update counted since" in text
    assert "south" not in text
    refused(admin, "check_status server north", "console-verb")


def test_todays_verbs(admin: Desk, server: StandIn) -> None:
    assert "No jobs." in admin.do("list_jobs")
    text = admin.do("submit_job hello")
    assert "Submitted job: far-7" in text and "run number 1" in text
    server.run(2)
    server.events.insert(-1, event("problem", round=2, phase="train", client="south", what="failed",
                                   code="client-failed", message="NaN"))  # fmt: skip
    text = admin.do("list_jobs -d")
    assert "| far-7  |" in text and "FINISHED" in text and "one site is missing" in text
    assert "far-7  south  waiting, not heard of: nobody has decided" in text
    assert "None of 1 jobs fits." in admin.do("list_jobs x")
    assert "None of 1 jobs fits." in admin.do("list_jobs -n other")
    assert "Algorithm: fed_avg" in admin.do("get_job_meta far-7")
    text = admin.do("get_job_log far-7")
    assert "handed over by ada" in text and "finished: all 2 rounds are done" in text
    assert "status: FINISHED" in admin.do("monitor_job")
    assert "2/2" in admin.do("show_stats server")
    assert "south failed: NaN [client-failed]" in admin.do("show_errors")
    text = admin.do("download_job far-7")
    assert "2 rounds" in text and "report.html" in text and "hansa export hello-1" in text
    folder = admin.seat.workspace.run(1)
    assert folder is not None and (folder.path / "report.html").is_file()
    admin.do("clone_job far-7")
    assert admin.seat.workspace.number == 2
    first, second = server.submissions
    assert first.identity == second.identity and first.id != second.id
    refused(admin, "get_job_log other", "run-not-found")
    refused(admin, "abort_job other", "run-not-found")


def test_a_job_that_is_cloned_leaves_a_newer_upload_as_it_is(
    admin: Desk, server: StandIn, home: Path
) -> None:
    admin.do("submit_job hello")
    server.run(3)
    (home / "hello" / "plan.toml").write_text(PLAN.replace("rounds = 3", "rounds = 9"))
    admin.do("upload_app hello", "clone_job far-7")
    assert server.submissions[-1].plan["rounds"] == 3
    admin.do("set_run_number 3", "deploy_app hello all", "start_app all")
    assert server.submissions[-1].plan["rounds"] == 9


def test_a_project_of_hansa_is_no_app_of_flare_whatever_lies_in_it(
    admin: Desk, server: StandIn, home: Path
) -> None:
    imported: list[Path] = []

    def importer(app: Path, made: Path) -> list[tuple[str, str]]:
        imported.append(app)
        make_app(made)
        return [("meta.json", "a job")]

    admin.seat.importer = importer
    (home / "hello" / "meta.json").write_text("{}")
    assert "READ AS" not in admin.do("upload_app hello") and not imported
    (home / "flare").mkdir()
    (home / "flare" / "meta.json").write_text("{}")
    assert "READ AS" in admin.do("upload_app flare") and len(imported) == 1


def test_a_run_of_another_workspace_is_looked_at_but_not_copied(
    admin: Desk, server: StandIn, home: Path
) -> None:
    admin.do(*START)
    other = Desk(admin.seat.membership, home / "elsewhere")
    assert "far-7" in other.do("list_jobs")
    assert "Also: far-7 of ada, running" in other.do("check_status server")
    refused(other, "download_job far-7", "console-refused", "was not started from")
    refused(other, "clone_job far-7", "console-refused")


def test_what_sites_lend_is_told(
    admin: Desk, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = Members(server, monkeypatch)
    members.rows[0]["resources"] = {"gpu": 2}
    text = admin.do("report_resources")
    assert re.search(r"north +\| active +\| 2 gpu", text) and "nothing by name" in text
    assert "south" not in admin.do("report_resources north")
    refused(admin, "report_resources far", "console-order", "no client 'far'")


def test_a_job_is_submitted_with_a_priority(admin: Desk, server: StandIn) -> None:
    admin.do("submit_job -p 3 hello")
    assert server.submissions[-1].priority == 3
    server.blobs.clear()
    refused(admin, "submit_job -p much hello", "console-verb", "'much' is no priority")
    assert not server.blobs  # nothing was done


def test_abort_ends_the_run_everywhere_and_says_so(admin: Desk, server: StandIn) -> None:
    """Contract 2.1: `abort client` leaves FLARE's server "started" until its train_timeout."""
    admin.do(*START)
    server.run(1)
    server.events.pop()
    refused(admin, "abort client north", "console-refused", "for north alone")
    text = admin.do("abort client")
    assert "Abort signal has been sent to the client App." in text
    assert "neither goes on without the other" in text and "far-7: stopped after round 1" in text
    assert "Engine status: stopped" in admin.do("check_status server")
    with pytest.raises(RunError) as told:
        admin.do("monitor_job")
    assert told.value.code == "run-stopped"


def test_members_are_told_and_removed_by_an_admin(
    admin: Desk, submitter: Desk, members: Members
) -> None:
    text = admin.do("list_clients")
    assert "north" in text and "silent" in text and "ada" not in text
    assert "| ada  | admin |" in admin.do("show_users")
    assert "| north   | 0.1" in admin.do("report_version")
    refused(admin, "remove_client nobody", "console-order", "north, south, west")
    assert "is no member any more" in admin.do("remove_client south")
    assert members.revoked == ["south"]
    refused(submitter, "list_clients", "console-refused", "is a submitter")


def test_a_submitter_sees_the_sites_of_its_own_run(submitter: Desk, server: StandIn) -> None:
    text = submitter.do(*START)
    assert "told to viewers and admins" in text
    text = submitter.do("check_status server")
    assert "Registered clients: told to viewers and admins" in text
    assert "| north  | hello" in text and "No Reply" in text


def test_a_viewer_looks_and_its_refusals_are_the_servers(
    server: StandIn, home: Path, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = Desk(server.membership._replace(role="viewer"), home / "c")  # type: ignore[attr-defined]
    assert "Registered clients: 3" in viewer.do("check_status server")

    def no(*_: Any, **__: Any) -> Any:
        raise RequestRefused("identity-role", "A viewer may not.", "Ask an admin.", status=403)

    monkeypatch.setattr("hansa.console.apps.upload", no)
    refused(viewer, "upload_app hello", "identity-role")
    assert not viewer.seat.workspace.apps()


def test_shutdown_ends_only_what_is_the_admins_own(admin: Desk, home: Path) -> None:
    refused(admin, "shutdown client", "console-refused", "its data owner decides", "remove_client")
    refused(admin, "shutdown client north", "console-refused", "north is not the admin's own")
    refused(admin, "shutdown server", "console-refused", "not ended over the network")
    refused(admin, "shutdown server north", "console-verb")
    refused(admin, "restart server", "console-refused", "service manager")


def test_file_views_show_the_runs_own_files_and_nothing_else(
    admin: Desk, server: StandIn, home: Path
) -> None:
    admin.do(*START)
    server.run(2)
    root = admin.seat.workspace.place(1)
    assert "app/plan.toml" in admin.do("ls -R server") and "hello-1/events.jsonl" in admin.do(
        "ls -R server"
    )
    assert 'name = "hello"' in admin.do("cat server app/plan.toml")
    assert "     2  name" in admin.do("cat -n server app/plan.toml")
    assert admin.do("head -n 2 server app/plan.toml").splitlines()[:2] == ["", 'name = "hello"']
    assert admin.do("tail -n 1 server app/plan.toml").splitlines()[0] == "minimum = 2"
    assert "10:minimum = 2" in admin.do("grep -n -i server MINIMUM app/plan.toml")
    assert admin.do("grep -c server kind app/plan.toml").splitlines()[0] == "1"
    assert str(root) in admin.do("pwd server")
    assert len(admin.do("cat server hello-1/events.jsonl").splitlines()) == len(server.events) + 1
    (home / "secret.txt").write_text("secret")
    (root / "link").symlink_to(home / "secret.txt")
    (root / "raw").write_bytes(b"a\0b")
    (root / "evil").write_bytes(b"  \x1b[2Jx")
    (root / "huge").write_bytes(b"")
    os.truncate(root / "huge", CONSOLE_VIEW_BYTES + 1)
    os.mkfifo(root / "pipe")
    for name in ("link", "../../secret.txt", str(home / "secret.txt"), "app/../../../secret.txt"):
        refused(admin, f"cat server {name}", "console-file", "not one of the run's own files")
    refused(admin, "cat server none", "console-file", "does not exist")
    refused(admin, "cat server app", "console-file", "is no file")
    refused(admin, "cat server pipe", "console-file", "is no file")
    refused(admin, "cat server raw", "console-file", "holds no text")
    refused(admin, "cat server huge", "console-file", "4,194,305 bytes")
    refused(admin, "ls server raw", "console-file", "is no folder")
    refused(admin, "cat north agent.log", "console-refused", "stays with its owner")
    refused(admin, "tail -n x server raw", "console-verb", "no number of lines")
    assert "  \\u001b[2Jx" in admin.do("cat server evil")
    assert "link" not in admin.do("ls server")


def test_a_workspace_is_about_one_server_and_says_when_it_is_damaged(
    admin: Desk, home: Path
) -> None:
    admin.do("set_run_number 3")
    with pytest.raises(ConsoleError, match="not at https://other") as told:
        Desk(admin.seat.membership._replace(url="https://other:1"), home / "console")
    assert told.value.code == "console-workspace"
    assert Desk(admin.seat.membership, home / "console").seat.workspace.number == 3
    for text in ("{", '{"runs": {"x": {}}}', '{"number": -1}'):
        (home / "console" / "console.json").write_text(text)
        with pytest.raises(ConsoleError, match="is damaged"):
            Desk(admin.seat.membership, home / "console")


def test_an_error_or_ctrl_c_ends_a_command_and_not_the_conversation(
    admin: Desk, server: StandIn
) -> None:
    text = admin.converse(["nonsense", KeyboardInterrupt, "lpwd", "bye"])
    assert text.startswith("Type ? to list commands")
    assert "Error: There is no verb 'nonsense'" in text and "[console-verb]" in text
    assert 'Type "bye" to leave.' in text and text.endswith("Bye bye")

    def interrupt(path: str) -> None:
        server.before_answer = lambda path: None
        raise KeyboardInterrupt

    server.before_answer = interrupt
    text = admin.converse(["list_jobs", "list_jobs"])
    assert "Interrupted; what runs goes on." in text and "No jobs." in text
    server.trouble = [unreachable()]
    assert "[server-unreachable]" in admin.converse(["list_jobs"])


def test_the_end_of_input_leaves(admin: Desk) -> None:
    assert admin.converse([EOFError]).endswith("\n")


def test_what_cannot_be_taken_back_asks_for_ones_name(
    server: StandIn, members: Members, home: Path
) -> None:
    said = ["no", "ada"]
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return said.pop(0)

    membership = server.membership._replace(role="admin")  # type: ignore[attr-defined]
    desk = Desk(membership, home / "console", ask=ask)
    refused(desk, "remove_client south", "console-refused", "was not confirmed")
    assert not members.revoked
    desk.do("remove_client south")
    assert members.revoked == ["south"] and asked[0] == "Enter your name to confirm (ada): "


def test_a_script_ends_at_the_first_line_that_is_not_done(admin: Desk) -> None:
    with pytest.raises(ConsoleError):
        admin.do("set_run_number 1", "start_app all", "set_run_number 2")
    assert admin.seat.workspace.number == 1
    admin.do("bye", "set_run_number 2")
    assert admin.seat.workspace.number == 1


def test_completion_knows_what_was_seen(admin: Desk, server: StandIn) -> None:
    admin.do(*START, "list_jobs", "? bye", "help", "info")
    assert admin.session.complete("deploy_app h") == ["hello"]
    assert admin.session.complete("remove_client s") == ["south"]
    assert admin.session.complete("abort_job ") == ["far-7"]
    assert "app/plan.toml" in admin.session.complete("cat server app/")


def test_help_on_what_is_no_verb_says_what_is_near(admin: Desk) -> None:
    refused(admin, "? deploy", "console-verb", "Did you mean deploy_app?")
    for word in ("''", "' '", "'#x'", "'bye '"):
        refused(admin, f"help {word}", "console-verb", "There is no verb", "Type ? to list")
