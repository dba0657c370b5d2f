"""`hansa run`: a project to its end, or from where it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from hansa.cli.options import json_option, on_option, runs_option, where_option
from hansa.limits import PRIORITY_MAX

if TYPE_CHECKING:
    from hansa.runs import RunFolder
    from hansa.simulation import Simulation


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
@on_option("Run it on the sites of this federation, by its server's address or host.")
@click.option("--purpose", default="", help="With --on: what it is for; data owners read it.")
@click.option(
    "--priority",
    type=click.IntRange(-PRIORITY_MAX, PRIORITY_MAX),
    default=0,
    help="With --on: before or behind other runs; a step is worth ten minutes of waiting.",
)
@click.option("--detach", is_flag=True, help="With --on: hand it over and do not follow it.")
@click.option(
    "--from",
    "origin",
    metavar="MODEL",
    help="Start from a model of the trail, RUN or RUN:ROUND, or from a file of tensors.",
)
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
    on: str | None,
    purpose: str,
    priority: int,
    detach: bool,
    origin: str | None,
    runs: Path,
    as_json: bool,
) -> None:
    """Run a project in simulation, or with --on at the sites of a federation.

    PROJECT is a folder with a plan.toml; by default this folder.  Ctrl-C is safe: the same
    command continues from the last committed round and gives the same model.  A federation goes
    on by itself, and the same command looks on again.

    PROJECT may be MetisFL's federation environment, a YAML file with learner.py beside it: then
    all that it places on this machine is started, and run to the end.

    \b
    Examples:
      hansa run
      hansa run --clients 100 --set data.split.alpha=0.1
      hansa run my-study --set algorithm=scaffold --engine processes
      hansa run --resume my-study-1
      hansa run --from my-study-1:5 --set learner.optimizer.lr=0.01
      hansa run environment.yaml
      hansa run --on hansa.example.org --purpose "Which wards are short of beds?"
    """
    if resume is not None:
        _check_no_project(resume, project, runs)
    if project.suffix in (".yaml", ".yml"):
        from hansa.cli.run_environment import run_yaml

        run_yaml(project)
        return
    _check_words(on, purpose=purpose, detach=detach or bool(priority))
    if resume is not None:
        if sets or clients or rounds or seed is not None or new or on is not None or origin:
            raise click.UsageError("--resume continues a run as it is; it takes no changes.")
        _resume(resume, _simulation(runs, engine, workers, new=new), as_json)
        return
    changes = _changes(project, sets, clients=clients, rounds=rounds, seed=seed)
    if on is None:
        simulation = _simulation(runs, engine, workers, new=new)
        folder = _simulate(project, changes, simulation, origin=origin, as_json=as_json)
    else:
        from hansa.cli.hand_over import run_remotely
        from hansa.code import read_draft

        folder = run_remotely(
            read_draft(project, changes),
            on,
            runs=runs,
            purpose=purpose,
            origin=origin,
            priority=priority,
            new=new,
            detach=detach,
            as_json=as_json,
        )
    if open_page:
        if detach:  # nobody has written it
            from hansa.runs.record import write_report

            write_report(folder)
        click.launch(str(folder.path / "report.html"))


def _changes(
    project: Path,
    sets: tuple[str, ...],
    *,
    clients: int | None,
    rounds: int | None,
    seed: int | None,
) -> list[str]:
    """Return all changes of the plan as --set takes them."""
    changes = list(sets)
    if clients is not None:
        from hansa.plan.load import PLAN_FILE, load_plan, with_clients

        changes.append(with_clients(load_plan(project / PLAN_FILE, sets).plan.data, clients))
    changes += [f"rounds={rounds}"] if rounds is not None else []
    return changes + ([f"seed={seed}"] if seed is not None else [])


def _simulation(runs: Path, engine: str, workers: int | None, *, new: bool) -> Simulation:
    from hansa.simulation import Simulation  # and NumPy, which handing over can do without

    return Simulation(runs, engine, workers, new)  # type: ignore[arg-type]


def _simulate(
    project: Path,
    changes: list[str],
    simulation: Simulation,
    *,
    origin: str | None,
    as_json: bool,
) -> RunFolder:
    from hansa.cli.session import run_project
    from hansa.project import open_project
    from hansa.runs.start import read_start

    opened = open_project(project, changes)
    start = read_start(origin, simulation.runs) if origin is not None else None
    return run_project(opened, simulation, start=start, as_json=as_json)


def _check_words(on: str | None, *, purpose: str, detach: bool) -> None:
    """Refuse options of a simulation with --on, and those of a federation without it."""
    if on is None:
        if purpose or detach:
            raise click.UsageError("--purpose, --priority and --detach belong to --on.")
        return
    context = click.get_current_context()
    for name in ("engine", "workers", "clients"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name} is of a simulation; with --on the clients are the federation's sites."
            )


def _check_no_project(resume: str, project: Path, runs: Path) -> None:
    """Refuse a project beside --resume: nothing of it would be read."""
    if click.get_current_context().get_parameter_source("project") is not ParameterSource.DEFAULT:
        raise click.UsageError(
            f"--resume continues {resume} with the plan and code that it began with, so {project} "
            "would not be read. Continue it with: "
            f"hansa run --resume {resume}{where_option(runs)}; "
            f"or start another run of the project with: hansa run {project} --new"
        )


def _resume(name: str, simulation: Simulation, as_json: bool) -> None:
    from hansa.cli.session import run_project
    from hansa.runs import find_run
    from hansa.runs.reproduce import saved_project

    unfinished = find_run(simulation.runs, name)
    if unfinished.remote is not None:
        from hansa.cli.remote import follow_run

        follow_run(unfinished, runs=simulation.runs, as_json=as_json)
    else:
        run_project(saved_project(unfinished), simulation, folder=unfinished, as_json=as_json)
