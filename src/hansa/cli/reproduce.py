"""`hansa reproduce`: the same plan and code again must give the same model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hansa.cli.options import json_option, print_json, runs_option

if TYPE_CHECKING:
    from hansa.runs import RunFolder
    from hansa.runs.start import Start


@click.command()
@click.argument("run", required=False)
@runs_option
@json_option
def command(run: str | None, runs: Path, as_json: bool) -> None:
    """Run a finished run's own copy of plan and code again, and compare the model digests.

    Exits with 1 if they differ.  The new run is kept apart and removed when the digests agree.

    \b
    Example:
      hansa reproduce digits-1
    """
    from hansa.errors import RunError
    from hansa.runs import find_run
    from hansa.runs.reproduce import saved_project
    from hansa.simulation import Simulation, continue_run, open_run
    from hansa.watch import watching

    folder = find_run(runs, run)
    if folder.state != "finished":
        raise RunError(
            "run-not-finished",
            f"The run {folder.name} has not finished; there is no final model to compare with.",
            f"Let it finish first: hansa run --resume {folder.name}"
            if folder.state == "running"
            else f"It {'failed' if folder.state == 'failed' else 'was stopped'}; see why with "
            "hansa show.",
        )
    project = saved_project(folder)
    with tempfile.TemporaryDirectory(prefix="hansa-reproduce-") as scratch:
        simulation = Simulation(Path(scratch), folder.about["engine"], new=True)
        again, population = open_run(project, simulation, start=_start(folder, runs))
        rounds = project.plan.rounds
        with watching(rounds, project.plan.stop.metric, as_json=as_json) as watcher:
            continue_run(again, project, population, simulation=simulation, watcher=watcher)
        # A run that stops by the clock may end in another round; compare the last common one.
        last = min(folder.commits()[-1]["round"], again.commits()[-1]["round"])
        expected, found = folder.commits()[last]["model"], again.commits()[last]["model"]
    if as_json:
        print_json({"run": folder.name, "same": found == expected, "model": found})
    elif found == expected:
        click.echo(f"Reproduced: {folder.name} again gives {expected} in round {last}")
    if found != expected:
        raise RunError(
            "run-not-reproduced",
            f"{folder.name} has the model {expected}; running it again gave {found}.",
            f"Compare versions and machine with {folder.path / 'environment.json'}: the same "
            "bytes are promised on the same engine, versions and number of threads.",
        )


def _start(folder: RunFolder, runs: Path) -> Start | None:
    """Return the model that a run was begun from; None where its project made it.

    Raises:
      RunError: run-not-reproduced, that model is not there any more.
    """
    from hansa.errors import HansaError, RunError
    from hansa.runs.start import begins_with, read_start

    origin = folder.about["seed_model"].get("origin")
    if origin is None:
        return None
    try:
        start = read_start(origin, runs)
    except HansaError as error:
        start, why = None, error.happened
    else:
        why = "That model has changed since."
    if start is None or not begins_with(folder, start):
        raise RunError(
            "run-not-reproduced",
            f"{folder.name} was begun from {origin}. {why}",
            "Put that model back where it was, and reproduce it again.",
        )
    return start
