"""`hansa stop`: end a run of a federation for good."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.options import json_option, on_option, print_json, runs_option


@click.command()
@click.argument("run")
@on_option("RUN is its name at this federation's server, not that of a run folder here.")
@runs_option
@json_option
def command(run: str, on: str | None, runs: Path, as_json: bool) -> None:
    """End a run at its server for good; the rounds that are committed stay.

    RUN is a run folder of `hansa run --on`, or with --on the run's name at the server.  A
    simulation is interrupted with Ctrl-C instead, and can go on.

    \b
    Examples:
      hansa stop my-study-1
      hansa stop digits-12 --on hansa.example.org
    """
    from hansa.remote import asking
    from hansa.remote.connecting import connected, place_of

    server, name = place_of(run, on, runs=runs)
    with connected(server) as connection:
        facts = asking.stop(connection, name)
    if as_json:
        print_json(asking.facts_record(facts))
    else:
        done = f"after round {facts.rounds_done} of {facts.rounds}"
        click.echo(f"{facts.run} at {server.url}: {facts.state} {done}.")
        if on is None:
            click.echo(f"Bring what it has done here with: hansa run --resume {run}")
