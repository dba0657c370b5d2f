"""A project handed to a federation from the command line; what only that takes, and no more.

`hansa run --on SERVER --detach` is over in the time of a question: what runs the user's code, looks
on or draws pages is imported where it is needed.
"""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.options import print_json, where_option
from hansa.code import Draft
from hansa.remote.connecting import membership_at
from hansa.remote.submit import submit
from hansa.remote.trail import start_at
from hansa.runs import RunFolder


def run_remotely(
    project: Draft,
    on: str,
    *,
    runs: Path,
    purpose: str = "",
    origin: str | None = None,
    priority: int = 0,
    new: bool = False,
    detach: bool = False,
    as_json: bool = False,
) -> RunFolder:
    """Hand a project to a federation, and follow its run unless that is not wanted.

    Raises:
      RunError: the run fails or is stopped.
      HansaError: it cannot be handed over; the message says why.
    """
    membership = membership_at(on)
    start = start_at(membership, origin, runs) if origin is not None else None
    known = list[RunFolder]()
    folder = submit(
        project,
        membership,
        runs=runs,
        purpose=purpose,
        priority=priority,
        start=start,
        new=new,
        on_known=known.append,
    )
    if known and not as_json:
        click.echo(
            f"{place(folder)} was handed over before and has not been followed to its end, so "
            "nothing was sent now. Start another with --new."
        )
    if not detach:
        from hansa.cli.remote import follow_run  # with all that it takes to tell of a run

        return follow_run(folder, runs=runs, as_json=as_json, membership=membership)
    if as_json:
        facts = {"run": folder.name, "path": str(folder.path), "remote": folder.remote}
        print_json(facts | {"fresh": not known})
    else:
        told = "" if known else f"{place(folder)} has been handed over.\n"
        click.echo(told + again(folder, runs))
    return folder


def place(folder: RunFolder) -> str:
    """Return which run it is, and where."""
    remote = folder.remote or {}
    if remote["run"] == folder.name:
        return f"Run {folder.name} at {remote['url']}"
    return f"Run {folder.name}, which is {remote['run']} at {remote['url']},"


def again(folder: RunFolder, runs: Path) -> str:
    """Return what to type to look on, and to stop it."""
    where = where_option(runs)
    return (
        f"Follow it with:  hansa run --resume {folder.name}{where}\n"
        f"Stop it with:    hansa stop {folder.name}{where}"
    )
