"""One run of a federation in front of a person: followed, and detached from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hansa.cli.hand_over import again, place
from hansa.cli.options import print_json, where_option
from hansa.cli.session import closing, outcome
from hansa.errors import CODES, HansaError, RunError
from hansa.identity import Membership
from hansa.remote.connecting import check_not_rehearsed, connected, membership_at
from hansa.remote.follow import follow
from hansa.remote.submit import hand_over
from hansa.runs import RunFolder
from hansa.runs.record import relative, write_report
from hansa.watch import watching


def follow_run(
    folder: RunFolder,
    *,
    runs: Path,
    as_json: bool = False,
    membership: Membership | None = None,
) -> RunFolder:
    """Follow a run that is at its server, from where it was left, to its end.

    Raises:
      RunError: the run has ended and is all here, or it fails or is stopped.
      HansaError: the server does not know one, or not the run.
    """
    remote = folder.remote or {}
    if folder.state != "running" and not folder.lacks_model():
        raise RunError(
            "run-ended",
            f"The run {folder.name} has {_ended(folder)}, and all of it is here.",
            "Start another with: hansa run --on SERVER --new",
        )
    if membership is None:
        check_not_rehearsed(folder)
        membership = membership_at(remote["url"])
    plan = folder.plan()
    rounds, metric = plan["rounds"], plan["stop"]["metric"]
    if remote["run"] is None:
        with connected(membership) as connection:
            hand_over(folder, connection, membership=membership)
    try:
        if not as_json:
            click.echo(_opening(folder))
        with (
            connected(membership) as connection,
            watching(rounds, metric, as_json=as_json) as view,
        ):
            follow(folder, connection, membership=membership, view=view)
    except KeyboardInterrupt:
        write_report(folder)
        if as_json:
            raise
        click.echo(f"\nThe run goes on at the server.\n{again(folder, runs)}")
        raise click.exceptions.Exit(130) from None
    except HansaError:
        write_report(folder)
        raise
    write_report(folder)
    return _end(folder, runs, as_json=as_json)


def _end(folder: RunFolder, runs: Path, *, as_json: bool) -> RunFolder:
    """Say how a run ended."""
    if folder.state != "finished":
        if not as_json:
            click.echo(f"Report: {relative(folder.path / 'report.html')}", err=True)
        raise ended_badly(folder, runs)
    if as_json:
        facts = {"run": folder.name, "path": str(folder.path), "remote": folder.remote}
        print_json({**facts, **outcome(folder)})
    else:
        click.echo(closing(folder, runs))
    return folder


def ended_badly(folder: RunFolder, runs: Path) -> RunError:
    """Return an error that says how and why a run ended before its end."""
    ended: dict[str, Any] = folder.log.last("ended") or {}
    code, reason = ended.get("code") or "", str(ended.get("reason") or "no reason was given")
    look = f"See what happened with: hansa log {folder.name}{where_option(runs)}"
    rounds = f"after round {len(folder.rows())}"
    if folder.state == "stopped":
        return RunError("run-stopped", f"{folder.name} was stopped {rounds}: {reason}", look)
    told = reason.removesuffix(f"[{code}]").rstrip()
    known = code if code in CODES else "server-refused"
    return RunError(known, f"{folder.name} failed {rounds}: {told}", look)


def _ended(folder: RunFolder) -> str:
    return {"stopped": "been stopped"}.get(folder.state, folder.state)


def _opening(folder: RunFolder) -> str:
    plan, done = folder.plan(), len(folder.rows())
    algorithm = plan["algorithm"]
    name = algorithm if isinstance(algorithm, str) else algorithm["name"]
    rounds = f"{plan['rounds']} round{'s' * (plan['rounds'] != 1)}"
    begun = f" {done} of them were here before." if done else ""
    return (
        f"{place(folder)} is for {rounds} of {name}.{begun} "
        "Ctrl-C only stops looking; the run goes on."
    )
