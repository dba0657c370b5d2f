"""`hansa predict`: what a model predicts of the clients' own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hansa.cli.options import json_option, on_option, runs_option

if TYPE_CHECKING:
    from hansa.errors import RunError
    from hansa.runs import RunFolder


@click.command()
@click.argument("model")
@on_option("Ask the sites of this federation; MODEL then has its name there.")
@click.option("--purpose", default="", help="With --on: what it is for; data owners read it.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for the predictions.  [default: predictions/ of the run]")  # fmt: skip
@runs_option
@json_option
def command(
    model: str, on: str | None, purpose: str, output: Path | None, runs: Path, as_json: bool
) -> None:
    """Have each client predict with MODEL, RUN or RUN:ROUND, on its own data.

    It is a run of its own with the plan and code of RUN, whose package answers the task `predict`:
    a command of that name, or a function marked @hansa.task("predict").  At a federation each data
    owner decides on it, and what it predicts leaves the site.

    \b
    Examples:
      hansa predict study-1
      hansa predict study-1:5 --on hansa.example.org --purpose "Who needs a bed tomorrow?"
    """
    from hansa.runs.predicting import FOLDER, predictions_of, write_predictions
    from hansa.runs.record import relative
    from hansa.table import Table

    if on is not None:
        folder = _at_sites(model, on, runs, purpose=purpose, as_json=as_json)
    elif purpose:
        raise click.UsageError("--purpose belongs to --on.")
    else:
        folder = _simulated(model, runs, as_json=as_json)
    folder.reload()
    files = write_predictions(output or folder.path / FOLDER, predictions_of(folder.log.events))
    if not as_json:
        click.echo(str(Table({"client": c, "predictions": relative(p)} for c, p in files.items())))


def _simulated(model: str, runs: Path, *, as_json: bool) -> RunFolder:
    from hansa.cli.session import run_project
    from hansa.project import build_project
    from hansa.runs import find_run
    from hansa.runs.predicting import prediction_plan
    from hansa.runs.reproduce import saved_project
    from hansa.runs.start import read_start
    from hansa.simulation import Simulation

    name, colon, number = model.partition(":")
    made_by = find_run(runs, name)
    if made_by.remote is not None:
        raise _at_its_sites(made_by, colon + number)
    saved = saved_project(made_by)
    plan = prediction_plan(saved.plan)
    project = build_project(plan, made_by.path / "code", sources=saved.sources)
    project = project._replace(data_folder=saved.data_folder)
    start = read_start(model, runs)
    return run_project(project, Simulation(runs, new=True), start=start, as_json=as_json)


def _at_its_sites(made_by: RunFolder, at_round: str) -> RunError:
    """Return the error of a run whose clients' data are elsewhere."""
    from hansa.errors import RunError

    remote = made_by.remote or {}
    there = f"{remote['run'] or made_by.name}{at_round}"
    return RunError(
        "run-not-reproduced",
        f"The run {made_by.name} was done by the sites of {remote['url']}, and their data are not "
        "here. Nothing was started.",
        f"Ask the sites, where the federation goes on: hansa predict {there} --on {remote['url']}",
    )


def _at_sites(model: str, on: str, runs: Path, *, purpose: str, as_json: bool) -> RunFolder:
    from hansa.cli.remote import follow_run
    from hansa.remote.connecting import membership_at
    from hansa.remote.predicting import submit_prediction

    membership = membership_at(on)
    folder = submit_prediction(membership, model, runs=runs, purpose=purpose)
    return follow_run(folder, runs=runs, as_json=as_json, membership=membership)
