"""`hansa log`: what happened in a run, and why, in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hansa.cli.options import json_option, on_option, runs_option

if TYPE_CHECKING:
    from hansa.identity import Membership


@click.command()
@click.argument("run", required=False)
@on_option("RUN is its name at this federation's server, which is asked.")
@click.option("--follow", is_flag=True, help="Go on until the run ends; asks its server.")
@runs_option
@json_option
def command(run: str | None, on: str | None, follow: bool, runs: Path, as_json: bool) -> None:
    """Print what happened in a run, one line an event: who was asked, what counted, what did not.

    By default it is the newest run here, as far as it has been followed.

    \b
    Examples:
      hansa log
      hansa log my-study-1 --follow
      hansa log digits-12 --on hansa.example.org
    """
    from hansa.remote.connecting import place_of
    from hansa.runs import find_run

    if on is None and not follow:
        found = find_run(runs, run)
        _print(found.log.events, as_json=as_json)
        if not found.log.events and not as_json:
            click.echo(f"Nothing has happened in {found.name} yet.", err=True)
        return
    if run is None and on is not None:
        raise click.UsageError("Name the run; hansa ls --on lists them.")
    server, name = place_of(run, on, runs=runs)
    for events in _pages(server, name, follow=follow):
        _print(events, as_json=as_json)


def _pages(server: Membership, run: str, *, follow: bool) -> Iterator[Sequence[dict[str, Any]]]:
    from hansa.limits import FOLLOW_WAIT_S
    from hansa.remote import asking
    from hansa.remote.connecting import connected

    after = 0
    with connected(server) as connection:
        while True:
            wait_s = FOLLOW_WAIT_S if follow else 0.0
            page = asking.events(connection, run, after=after, wait_s=wait_s)
            yield page.events
            after = page.next
            ended = any(event["kind"] == "ended" for event in page.events)
            # A page of a run that is over may not be the last one.
            if ended or (not page.events and (not follow or page.state not in _GOING_ON)):
                return


_GOING_ON = ("waiting", "running")


def _print(events: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    from hansa.remote.words import sentence
    from hansa.text import clean

    for event in events:
        if as_json:
            click.echo(json.dumps(event))
        elif event["kind"] != "timed":  # spans, for programs; hansa show --timing is for people
            click.echo(f"{clean(event.get('at', ''))}  {sentence(event)}")
