"""One run in front of a person: what it prints before, while and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hansa.cli.options import print_json, where_option
from hansa.errors import HansaError, RunError
from hansa.project import Project
from hansa.runs import RunFolder, all_runs
from hansa.runs.record import relative, run_record, write_report
from hansa.runs.start import Start
from hansa.simulation import (
    Population,
    Simulation,
    continue_run,
    open_run,
    project_population,
)
from hansa.text import clean
from hansa.watch import watching
from hansa.web.words import byte_size


def run_project(
    project: Project,
    simulation: Simulation,
    *,
    population: Population | None = None,
    folder: RunFolder | None = None,
    start: Start | None = None,
    as_json: bool = False,
) -> RunFolder:
    """Run a project to its end and say so; the report page is written whatever happens.

    Args:
      project: what to run.
      simulation: how and where.
      population: the clients; by default those of the plan.
      folder: the run to continue; by default an unfinished one of this plan and code, or a new one.
      start: model that a new run starts from.
      as_json: print for programs.

    Raises:
      RunError: the folder's run has ended already, or this one fails.
    """
    if folder is None:
        folder, population = open_run(project, simulation, population, start=start)
    elif folder.state != "running":
        raise RunError(
            "run-ended",
            f"The run {folder.name} has {folder.state}; there is nothing to continue.",
            "Start another with: hansa run --new",
        )
    population = population or project_population(project)
    if not as_json and not folder.is_locked():  # the work itself says who has it
        click.echo(_opening(folder, project, simulation))
    plan = project.plan
    try:
        with watching(plan.rounds, plan.stop.metric, as_json=as_json) as watcher:
            continue_run(folder, project, population, simulation=simulation, watcher=watcher)
    except KeyboardInterrupt:
        write_report(folder)
        if as_json:
            raise
        again = f"hansa run --resume {folder.name}{where_option(simulation.runs)}"
        click.echo(
            f"\nInterrupted after round {len(folder.rows())}. Continue with: {again}"
            f"\nReport: {relative(folder.path / 'report.html')}"
        )
        raise click.exceptions.Exit(130) from None
    except HansaError:
        write_report(folder)
        if not as_json:
            click.echo(f"Report: {relative(folder.path / 'report.html')}", err=True)
        raise
    write_report(folder)
    if as_json:
        print_json({"run": folder.name, "path": str(folder.path), **outcome(folder)})
    else:
        click.echo(closing(folder, simulation.runs))
    return folder


def _forgotten(folder: RunFolder, runs: Path) -> str:
    """Name an unfinished run of the same name that this one is not: other plan, other code."""
    if folder.rows():
        return ""
    others = (r for r in all_runs(runs) if r.name != folder.name and r.state == "running")
    plan = folder.plan()["name"]
    found = [
        r
        for r in others
        if r.rows() and not r.rehearsed and r.plan()["name"] == plan and not r.is_locked()
    ]
    if not found:
        return ""
    last = found[-1]
    return (
        f"\nUnfinished: {last.name}, after round {len(last.rows())}, has another plan or code; "
        f"continue it with: hansa run --resume {last.name}"
    )


def _opening(folder: RunFolder, project: Project, simulation: Simulation) -> str:
    done = len(folder.rows())
    plan = project.plan
    what = f"Continuing {folder.name} after round {done}" if done else f"Run {folder.name}"
    name = project.method.algorithm.name
    rounds = f"{plan.rounds} round{'s' * (plan.rounds != 1)}"
    clients = folder.about["clients"]
    size = f"{clients} client{'s' * (clients != 1)}, {rounds} of {name}"
    return f"{what}: {size}, engine {simulation.engine}. Ctrl-C is safe." + (
        _forgotten(folder, simulation.runs)
    )


def outcome(folder: RunFolder) -> dict[str, Any]:
    """Return how a run ended, for programs."""
    record = run_record(folder)
    keys = ("state", "reason", "seconds", "best", "model_digest")
    return {key: record[key] for key in keys} | {"rounds": len(record["rounds"])}


def _measured(folder: RunFolder, where: str) -> str:
    """Say where the metrics are of a run whose clients measured others than the plan's one."""
    names = sorted({name for row in folder.rows() for name in row.get("validation", {})})
    shown = ", ".join(clean(name) for name in names[:_METRICS_TOLD])
    more = ", ..." if len(names) > _METRICS_TOLD else ""
    look = f"hansa show {folder.name}{where} --validations"
    return f"At clients: {shown}{more}  ({look})\n" if names else ""


_METRICS_TOLD = 4


def closing(folder: RunFolder, runs: Path) -> str:
    """Say what was reached, where things are, and what to type next."""
    record = run_record(folder)
    where = where_option(runs)
    moved = sum(sum(row["bytes"].values()) for row in folder.rows())
    best = record["best"]
    reached = (
        f"best {best['metric']} {best['value']:.4f} in round {best['round']}; " if best else ""
    )
    return (
        f"\nFinished: {record['reason']}; {reached}{record['seconds']:.1f} s, "
        f"{byte_size(moved)} exchanged.\n"
        f"{'' if best else _measured(folder, where)}"
        f"Model:  {record['model_digest'][:19]}  (hansa export {folder.name}{where} --to npz)\n"
        f"Report: {relative(folder.path / 'report.html')}\n"
        f"Next:   hansa show {folder.name}{where} · hansa compare{where} · "
        "hansa run --set KEY=VALUE"
    )
