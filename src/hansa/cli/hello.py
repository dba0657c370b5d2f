"""`hansa hello`: a first federated model on real data, and what each client reaches alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hansa.cli.options import json_option, runs_option

_PLAN: dict[str, Any] = {
    "name": "hello",
    "rounds": 10,
    "seed": 7,
    "learner": {
        "kind": "numpy",
        "model": "mlp",
        "hidden": [64],
        "optimizer": {"name": "sgd", "lr": 0.2},
        "epochs": 2,
        "batch_size": 16,
    },
    "data": {
        "set": "digits",
        "split": {"scheme": "dirichlet", "alpha": 0.3, "clients": 5},
        "validation": 0.1,
    },
    "cohort": {"minimum": 3},
}


@click.command()
@click.option("--open", "open_page", is_flag=True, help="Open the report page when done.")
@runs_option
@json_option
def command(open_page: bool, runs: Path, as_json: bool) -> None:
    """Train one model of handwritten digits over five clients whose data never meets.

    Needs no ML framework, no account and no network.  Each client then trains alone as long, to
    show what the federation is good for.

    \b
    Example:
      hansa hello --open
    """
    from hansa.cli.session import run_project
    from hansa.plan import read_plan
    from hansa.project import build_project
    from hansa.runs.record import relative, write_report
    from hansa.simulation import Simulation, project_population
    from hansa.simulation.alone import train_alone

    project = build_project(read_plan(_PLAN, origin="hansa hello").plan)
    population = project_population(project)
    if not as_json:
        shared = f"{population.examples:,} of UCI's handwritten digits"
        click.echo(f"Five clients share {shared}, very unevenly; no client sees another's.")
    folder = run_project(
        project, Simulation(runs, new=True), population=population, as_json=as_json
    )
    metric = project.plan.stop.metric
    alone = {
        name: train_alone(project, population, name)[metric].value for name in population.names
    }
    best = max(alone, key=lambda name: alone[name])
    folder.log.append(
        "baseline", name="best single client", metric=metric, value=alone[best], by_client=alone
    )
    page = write_report(folder)
    together = folder.rows()[-1]["test"][metric]["mean"]
    if not as_json:
        click.echo(
            f"\nOn {population.test.examples} digits that nobody trained on:\n"
            f"  together        {together:.1%}\n"
            f"  best alone      {alone[best]:.1%}  ({best})\n"
            f"  others alone    "
            + ", ".join(f"{value:.1%}" for name, value in alone.items() if name != best)
            + f"\n\nLook at {relative(page)}, then make your own: hansa init my-study"
        )
    if open_page:
        click.launch(str(page))
