"""`hansa site requests`, `approve` and `deny`: the owner's word on each plan."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import click

from hansa.cli.options import at_folder, json_option, print_json
from hansa.cli.site import folder_option

_STATES = {"run": "runs", "ask": "waits", "refuse": "refused"}


@click.command()
@folder_option
@json_option
def requests(folder: Path, as_json: bool) -> None:
    """List plans that ask to run here, or have asked, with what this site does about each.

    A plan whose runs have all ended is over: nobody waits for your word on it.

    \b
    Example:
      hansa site requests
    """
    from hansa.clock import wall
    from hansa.site.decision import cannot_run, decision_on, decision_told
    from hansa.site.requests import list_requests
    from hansa.site.settings import load_settings
    from hansa.table import Table
    from hansa.text import TEXT_CHARS, clean

    settings = load_settings(folder)
    rows, reasons, failures = Table(), {}, cannot_run(folder)
    for request in list_requests(folder):
        decision = decision_on(folder, request, settings, at=wall())
        failed = failures.get(request.offer.run)
        stuck = decision.state == "run" and failed is not None and bool(request.wanted)
        told = decision_told(request, decision)
        reasons[request.short] = told + (f" Cannot run: {failed}" if stuck else "")
        state = _STATES[decision.state] if request.wanted else "over"
        rows.append(
            {
                "id": request.short,
                "state": "cannot run" if stuck else state,
                "plan": request.offer.plan.get("name", ""),
                "rounds": request.offer.plan.get("rounds"),
                "runs": len(request.offers),
                "submitter": request.offer.submitter,
                "came": request.offers[-1].at,
            }
        )
    if as_json:
        print_json([{**row, "reason": reasons[row["id"]]} for row in rows])
        return
    if not rows:
        click.echo("No plan has asked to run here.")
        return
    click.echo(str(rows))
    for row in (row for row in rows if row["state"] != "over"):
        click.echo(f"{row['id']}: {clean(reasons[row['id']], TEXT_CHARS)}")
    if waiting := [row["id"] for row in rows if row["state"] == "waits"]:
        click.echo(f"Look at one with: hansa site review {waiting[-1]}{at_folder(folder)}")


@click.command()
@click.argument("request", metavar="ID")
@click.option("--until", metavar="DATE", help="The approval ends when this day begins, in UTC.")
@click.option("--max-rounds", type=click.IntRange(1), help="Rounds of this site, in all its runs.")
@folder_option
def approve(request: str, until: str | None, max_rounds: int | None, folder: Path) -> None:
    """Allow the plan with this ID to run here, with exactly the code that you reviewed.

    ID is the start of what `hansa site requests` shows.  A plan or code that differs in a single
    letter has another ID and asks anew.

    \b
    Example:
      hansa site approve 7f3a --until 2027-01-01 --max-rounds 50
    """
    from hansa.clock import seconds_of, wall
    from hansa.site import requests as kept
    from hansa.site.decision import decision_on
    from hansa.site.policy import fewer_told
    from hansa.site.settings import load_settings, nothing_at

    ends = None
    if until is not None:
        try:
            ends = seconds_of(until)
        except ValueError:
            raise click.UsageError(f"--until {until!r} is no date; write 2027-01-01.") from None
        if ends <= wall():
            raise click.UsageError(f"--until {until!r} is over already.")
    settings = load_settings(folder)
    found = kept.find_request(folder, request)
    word = kept.approve(folder, found.identity, until=ends, max_rounds=max_rounds, by=_who())
    click.echo(f"{found.short} {kept.told(word)}.")
    if fewer := fewer_told(max_rounds, found.offer.plan.get("rounds")):
        click.echo(fewer)
    if missing := nothing_at(folder, settings, found.offer.plan):
        click.echo(missing)
    if not found.wanted:
        click.echo("No run of it goes on now; what you approved holds for the next one.")
    decision = decision_on(folder, found, settings, at=wall())
    if decision.state != "run":
        click.echo(f"It does not run all the same: {decision.reason}")
        click.echo(f"Change the policy with: hansa site policy edit{at_folder(folder)}")
    click.echo(f"Take it back at any time with: hansa site deny {found.short}{at_folder(folder)}")


@click.command()
@click.argument("request", metavar="ID")
@click.option("--reason", default="", help="One sentence; the submitter sees it.")
@folder_option
def deny(request: str, reason: str, folder: Path) -> None:
    """Refuse the plan with this ID, whatever the policy says, until you approve it.

    \b
    Example:
      hansa site deny 7f3a --reason "We hold no images of this kind."
    """
    from hansa.limits import MESSAGE_CHARS_MAX
    from hansa.site import requests as kept
    from hansa.site.settings import SITE_FILE, load_settings
    from hansa.text import clean

    if not (folder / SITE_FILE).exists():  # a refusal needs no settings that are right
        load_settings(folder)
    found = kept.find_request(folder, request)
    reason = clean(reason, MESSAGE_CHARS_MAX // 2)
    word = kept.deny(folder, found.identity, reason=reason, by=_who())
    click.echo(f"{found.short} {kept.told(word)}.")
    click.echo(
        "It gets no further task, and an agent at work ends what it does for it within seconds. "
        f"To end all that is at work here: hansa site stop --now{at_folder(folder)}"
    )


def _who() -> str:
    """Return who gives the word: in a container an id may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown"
