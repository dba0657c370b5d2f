"""Apps and run numbers: uploaded, deployed, started; and a job, which is all three at once.

FLARE's four steps become one submission.  `upload_app` keeps a copy and sends the package to the
server; `set_run_number` makes a workspace; `deploy_app` puts the copy there and checks the plan
whole; `start_app` signs it and hands it over.  Sites hear of a run when it starts, and their owners
decide.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from hansa.console.answers import table
from hansa.console.parsing import Command
from hansa.console.seat import Seat
from hansa.errors import ConsoleError, PlanError
from hansa.limits import PRIORITY_MAX, RUN_NUMBER_MAX
from hansa.packages import build_archive
from hansa.plan import PLAN_FILE
from hansa.project import Project, open_project
from hansa.protocol.transfer import upload
from hansa.remote.deployable import check_deployable
from hansa.remote.submit import submit
from hansa.runs import RunFolder
from hansa.runs.making import project_files
from hansa.web.words import byte_size

_FLARE_CONFIG = "config_fed_server.json"


def upload_app(seat: Seat, command: Command) -> Iterator[str]:
    """Stage a project here, and its package at the server."""
    name, read = _upload(seat, command.words[0])
    yield f"Created folder {seat.workspace.staged(name)}"
    files = _staged_files(seat, name)
    size = byte_size(sum(map(len, files.values())))
    yield f'App "{name}": {len(files)} files, {size}, are at {seat.url}'
    if read:
        yield table(["OF THE APP", "READ AS"], [[what, told] for what, told in read])


def set_run_number(seat: Seat, command: Command) -> Iterator[str]:
    """Make a run number current."""
    number = _number(command.words[0])
    before = seat.workspace.number
    going = seat.workspace.run(before) if before else None
    new = seat.workspace.set_number(number)
    if new:
        yield f"Created a new run folder: run_{number}"
    else:
        yield f"run number already exists. Set the FL run number to {number}."
    if going is not None and before != number and seat.is_going(going):
        yield f"Run number {before} goes on meanwhile; runs do not disturb each other."


def delete_run_number(seat: Seat, command: Command) -> Iterator[str]:
    """Remove a run's workspace."""
    number = _number(command.words[0])
    if str(number) not in seat.workspace.memory.runs:
        raise ConsoleError(
            "console-order",
            f"There is no run number {number} in {seat.workspace.folder}. Nothing was removed.",
            "Those that are: " + (", ".join(seat.workspace.memory.runs) or "none yet"),
        )
    folder = seat.workspace.run(number)
    if folder is not None and seat.is_going(folder):
        raise ConsoleError(
            "console-order",
            f"Run number {number} is going on. Nothing was removed.",
            "End it first: abort all",
        )
    seat.workspace.forget(number)
    yield f"Deleted run folder: run_{number}"


def deploy_app(seat: Seat, command: Command) -> Iterator[str]:
    """Put an uploaded app under the current run number, and check it."""
    name, target = command.words[:2]
    _check_whole("deploy_app NAME all", target, command.words[2:])
    number = _current(seat)
    _deploy(seat, name, seat.workspace.staged(name), number)
    yield f'deployed app "{name}" to Server'
    yield from _client_table(seat, "OK", "No Reply; it begins when it is back")
    yield "Sites fetch the package when the run starts, and each owner's policy decides on it."


def start_app(seat: Seat, command: Command) -> Iterator[str]:
    """Submit the app of the current run number."""
    _check_whole("start_app all", command.words[0], command.words[1:])
    number = _current(seat)
    if not seat.workspace.app(number):
        raise ConsoleError(
            "console-order",
            f"No app is deployed under run number {number}. Nothing was started.",
            "Deploy one first: deploy_app NAME all",
        )
    folder = _start(seat, number)
    yield "Server app is starting...."
    yield from _client_table(seat, "Start the client app...", "No Reply; it begins when it is back")
    yield f"Run number {number} is {(folder.remote or {})['run']} at {seat.url}."


def submit_job(seat: Seat, command: Command) -> Iterator[str]:
    """Upload, deploy and start under the next free number."""
    priority = _priority(command.options.get("-p", "0"))
    name, _ = _upload(seat, command.words[0])
    yield from _submitted(seat, name, seat.workspace.staged(name), priority=priority)


def clone_job(seat: Seat, command: Command) -> Iterator[str]:
    """Start once more what a run of this workspace ran."""
    number, _ = seat.own_run(command.words[0])
    app = seat.workspace.place(number) / "app"
    yield from _submitted(seat, seat.workspace.app(number), app)


def read_app(folder: Path) -> Project:
    """Open a project that is uploaded as an app.

    Raises:
      ConsoleError: console-app, it is no project of Hansa.
      PlanError: its plan cannot run at a federation.
    """
    if not (folder / PLAN_FILE).is_file():
        raise ConsoleError(
            "console-app",
            f"There is no {PLAN_FILE} in {folder}. Nothing was uploaded.",
            "A project has one; hansa init NAME makes a project.",
        )
    project = open_project(folder)
    check_deployable(project)
    return project


def _upload(seat: Seat, name: str) -> tuple[str, Sequence[tuple[str, str]]]:
    """Stage an app; return its name, and what was read of one that is no project of Hansa."""
    folder = _find_app(seat, name)
    app = seat.workspace.app_name(folder)
    read: Sequence[tuple[str, str]] = ()
    if seat.importer is not None and _is_flare(folder):
        made = seat.workspace.folder / "imported" / app
        shutil.rmtree(made, ignore_errors=True)
        made.parent.mkdir(parents=True, exist_ok=True)
        read = seat.importer(folder, made)
        folder = made
    files = project_files(read_app(folder))
    upload(seat.connection, build_archive(files), to="blobs")
    seat.workspace.stage(app, files)
    return app, read


def _is_flare(folder: Path) -> bool:
    if (folder / PLAN_FILE).is_file():
        return False  # a project of Hansa, whatever else lies in it
    places = (".", "config", "app", "app/config")
    return (folder / "meta.json").is_file() or any(
        (folder / place / _FLARE_CONFIG).is_file() for place in places
    )


def _find_app(seat: Seat, name: str) -> Path:
    """Return the folder that is meant by a name or a path."""
    places = [Path(name), Path("transfer") / name, seat.workspace.folder / "transfer" / name]
    for place in places:
        if place.is_dir():
            return place
    raise ConsoleError(
        "console-app",
        f"There is no folder {name[:200]!r}, here or in transfer/. Nothing was uploaded.",
        "Give the path of a project folder; lpwd tells where one is.",
    )


def _priority(text: str) -> int:
    try:
        priority = int(text)
    except ValueError:
        priority = PRIORITY_MAX + 1
    if abs(priority) > PRIORITY_MAX:
        raise ConsoleError(
            "console-verb",
            f"{text[:20]!r} is no priority. Nothing was done.",
            f"It is a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}; a step is worth ten "
            "minutes of waiting.",
        )
    return priority


def _submitted(seat: Seat, name: str, source: Path, *, priority: int = 0) -> Iterator[str]:
    number = seat.workspace.next_number()
    seat.workspace.set_number(number)
    _deploy(seat, name, source, number)
    folder = _start(seat, number, priority=priority)
    yield f"Submitted job: {(folder.remote or {})['run']}"
    yield f"It is run number {number}; look at it with: check_status server"


def _deploy(seat: Seat, name: str, source: Path, number: int) -> None:
    if seat.workspace.run(number) is not None:
        raise ConsoleError(
            "console-order",
            f"Run number {number} was started; what it runs is on record. Nothing was changed.",
            f"Set another number first: set_run_number {seat.workspace.next_number()}",
        )
    read_app(source)
    seat.workspace.deploy(number, name, source)


def _start(seat: Seat, number: int, *, priority: int = 0) -> RunFolder:
    place = seat.workspace.place(number)
    known = seat.workspace.run(number)
    if known is not None and (known.remote or {}).get("run") is not None:
        going, following = seat.is_going(known), seat.workspace.next_number()
        what = "Server already starting or started." if going else "It has run to its end."
        raise ConsoleError(
            "console-order",
            f"{what} Run number {number} is {(known.remote or {})['run']}; nothing was started.",
            f"Run the app again under another number: set_run_number {following}",
        )
    project = read_app(place / "app")
    try:
        return submit(project, seat.membership, runs=place, priority=priority)
    except PlanError as error:
        if "--from" not in error.hint:
            raise
        raise ConsoleError(
            "console-app",
            error.happened,
            f"Hand it over with a model to start from: hansa run {place / 'app'} --on {seat.url} "
            "--from FILE; list_jobs and check_status show it as well.",
        ) from None


def _client_table(seat: Seat, there: str, away: str) -> Iterator[str]:
    sites = seat.sites()
    if sites is None:
        yield "Which sites there are is told to viewers and admins."
        return
    rows = [[s["name"], there if s["state"] == "active" else away] for s in sites]
    yield table(["CLIENT", "RESPONSE"], rows) if rows else "No client has joined yet."


def _staged_files(seat: Seat, name: str) -> dict[str, bytes]:
    place = seat.workspace.staged(name)
    return {str(p): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def _check_whole(typed: str, target: str, more: tuple[str, ...]) -> None:
    """Refuse half a deed: one plan is for the server and its sites together."""
    if target != "all" or more:
        raise ConsoleError(
            "console-refused",
            "A plan is for the server and all sites together; it is not split. Nothing was done.",
            f"Type: {typed}; which sites take part, their owners decide, and cohort.count of the "
            "plan says how many.",
        )


def _current(seat: Seat) -> int:
    if not seat.workspace.number:
        raise ConsoleError(
            "console-order", "Please set a run number. Nothing was done.", "Type: set_run_number 1"
        )
    return seat.workspace.number


def _number(text: str) -> int:
    known = text.isascii() and text.isdecimal() and len(text) <= len(str(RUN_NUMBER_MAX))
    if not (known and 0 < int(text) <= RUN_NUMBER_MAX):
        raise ConsoleError(
            "console-verb",
            f"{text[:20]!r} is no run number. Nothing was done.",
            f"A run number is a whole number above 0, at most {RUN_NUMBER_MAX}: set_run_number 1",
        )
    return int(text)
