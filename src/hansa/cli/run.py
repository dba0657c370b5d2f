"""`hansa run`: a project to its end, or from where it was interrupted."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.options import json_option, runs_option


@click.command()
@click.argument("project", type=click.Path(path_type=Path), default=Path("."))
@click.option("--clients", type=click.IntRange(1), help="Simulate so many clients.")
@click.option("--rounds", type=click.IntRange(1), help="Run at most so many rounds.")
@click.option("--seed", type=int, help="The number behind every random draw.")
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change any key of the plan."
)
@click.option(
    "--engine",
    type=click.Choice(["inline", "processes"]),
    default="inline",
    show_default=True,
    help="Run clients in this process, or in warm worker processes.",
)
@click.option("--workers", type=click.IntRange(1), help="Worker processes; by default one a core.")
@click.option("--resume", metavar="RUN", help="Continue this run with its own plan and code.")
@click.option("--new", is_flag=True, help="Start anew although an unfinished run is there.")
@click.option("--open", "open_page", is_flag=True, help="Open the report page when done.")
@runs_option
@json_option
def command(
    project: Path,
    clients: int | None,
    rounds: int | None,
    seed: int | None,
    sets: tuple[str, ...],
    engine: str,
    workers: int | None,
    resume: str | None,
    new: bool,
    open_page: bool,
    runs: Path,
    as_json: bool,
) -> None:
    """Run a project in simulation.

    PROJECT is a folder with a plan.toml; by default this folder.  Ctrl-C is safe: the same
    command continues from the last committed round and gives the same model.

    \b
    Examples:
      hansa run
      hansa run --clients 100 --set data.split.alpha=0.1
      hansa run my-study --set algorithm=scaffold --engine processes
      hansa run --resume my-study-1
    """
    from hansa.cli.session import run_project
    from hansa.plan.load import PLAN_FILE, load_plan
    from hansa.project import open_project
    from hansa.runs import find_run
    from hansa.runs.reproduce import saved_project
    from hansa.simulation import Simulation

    simulation = Simulation(runs, engine, workers, new)  # type: ignore[arg-type]
    if resume is not None:
        if sets or clients or rounds or seed is not None or new:
            raise click.UsageError("--resume continues a run as it is; it takes no changes.")
        unfinished = find_run(runs, resume)
        run_project(saved_project(unfinished), simulation, folder=unfinished, as_json=as_json)
        return
    changes = list(sets)
    if clients is not None:
        splits = load_plan(project / PLAN_FILE, sets).plan.data.set is not None
        changes.append(f"data.{'split.' if splits else ''}clients={clients}")
    changes += [f"rounds={rounds}"] if rounds is not None else []
    changes += [f"seed={seed}"] if seed is not None else []
    opened = open_project(project, changes)
    folder = run_project(opened, simulation, as_json=as_json)
    if open_page:
        click.launch(str(folder.path / "report.html"))
