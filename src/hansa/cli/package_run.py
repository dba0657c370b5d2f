"""`hansa package run`: one command of a package on some data, exactly as a client does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hansa.cli.options import json_option, print_json
from hansa.cli.package import digest_option, opened, path_argument

if TYPE_CHECKING:
    from hansa.learners.learner import ClientData, Seed
    from hansa.project import Project


@click.command()
@click.argument("task", type=click.Choice(["train", "validate", "init", "predict"]))
@path_argument
@click.option("--data", type=click.Path(exists=True, path_type=Path),
              help="Data of the client, as a site would declare it.")  # fmt: skip
@click.option("--client", help="Without --data: this client of the simulation; else its name.")
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Tensors to start from; by default the seed model.")  # fmt: skip
@click.option("--round", "number", type=click.IntRange(1), default=1, show_default=True,
              help="Whose hyper-parameters count.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
              help="Keep what came out: a model, or predictions.")  # fmt: skip
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change any key.")
@digest_option
@json_option
def command(
    task: str,
    package: Path,
    data: Path | None,
    client: str | None,
    model: Path | None,
    number: int,
    output: Path | None,
    sets: tuple[str, ...],
    digest: str | None,
    as_json: bool,
) -> None:
    """Do one TASK of PACKAGE, a project folder or a file, and show what came out.

    The same files, variables, limits and checks as in a run, for one client; only the sandbox of
    a site is missing.  Without --data the first simulated client's are taken.

    \b
    Examples:
      hansa package run train
      hansa package run train my-study --data north.npz -o trained.safetensors
      hansa package run validate --model trained.safetensors
    """
    from hansa.learners.learner import close
    from hansa.project import open_project

    with opened(package, digest) as found:
        project = open_project(found.folder, sets)
        if not package.is_dir():  # a relative data.set is not in the archive
            project = project._replace(data_folder=Path.cwd())
        try:
            facts = _done(project, task, data, client=client, model=model, number=number,
                          output=output)  # fmt: skip
        except BaseException:
            _echo_output(project, err=True)
            raise
        finally:
            close(project.learner)
    if as_json:
        print_json(facts)
        return
    _echo_output(project, err=False)
    _tell(facts)


def _done(
    project: Project,
    task: str,
    data: Path | None,
    *,
    client: str | None,
    model: Path | None,
    number: int,
    output: Path | None,
) -> dict[str, Any]:
    """Do the task and return what is to be told of it."""
    from hansa.clock import monotonic
    from hansa.seeds import Key
    from hansa.store.files import save_params

    facts: dict[str, Any] = {"task": task}
    began = monotonic()
    if task == "init":
        seed = project.learner.init(_sample(project), Key.root(project.plan.seed).child("model"))
        facts |= {"tensors": _tensors(seed.params), "seconds": monotonic() - began}
        if output is not None:
            save_params(output, seed.params)
        return facts | ({"output": str(output)} if output else {})
    name, own = _data(project, data, client)
    seed = _seed(project, model)
    facts |= {"client": name, "examples": project.learner.examples(own.train)}
    began = monotonic()
    match task:
        case "train":
            facts |= _trained(project, own.train, seed, name=name, number=number, output=output)
        case "validate":
            measured = own.train if own.validation is None else own.validation
            metrics = project.learner.evaluate(seed.params, measured)
            facts["metrics"] = {name: mean.value for name, mean in metrics.items()}
        case "predict":
            facts |= _predicted(project, own.train, seed, output)
    return facts | {"seconds": monotonic() - began} | ({"output": str(output)} if output else {})


def _data(project: Project, data: Path | None, client: str | None) -> tuple[str, ClientData]:
    """Return a client's name and data: a site's with this path declared, or a simulated one's."""
    from hansa.errors import DataError
    from hansa.simulation import project_population

    if data is None:
        population = project_population(project)
        name = population.names[0] if client is None else client
        if name not in population.names:
            raise DataError(
                "data-missing",
                f"The simulation has no client {name!r}.",
                f"Its first is {population.names[0]!r}; or give the data with --data PATH.",
            )
        return name, population.data(name)
    from hansa.site.data import site_data
    from hansa.site.worker_messages import Declared

    declared = Declared(str(data.resolve()), project.plan.data.target, project.plan.data.group)
    name = client or "local"
    return name, site_data(project, {str(project.plan.data.set): declared}, name=name)


def _sample(project: Project) -> Any:
    """Return some rows for a learner that takes the model's shape from them."""
    if project.plan.learner.kind == "command":
        return None
    from hansa.simulation import project_population

    return project_population(project).sample()


def _seed(project: Project, model: Path | None) -> Seed:
    """Return the model to start from; a file's tensors must be those of the package."""
    from hansa.remote.seed import given_model
    from hansa.runs.start import Start, read_tensors
    from hansa.seeds import Key

    if model is not None:
        return given_model(project, Start(read_tensors(model), model.name))
    return project.learner.init(_sample(project), Key.root(project.plan.seed).child("model"))


def _trained(
    project: Project, data: Any, seed: Seed, *, name: str, number: int, output: Path | None
) -> dict[str, Any]:
    """Take part in a round of FedAvg, whose update is the change of the model."""
    import numpy as np

    from hansa.algorithms import Vectors, fed_avg
    from hansa.client import Client
    from hansa.plan import hyper_at
    from hansa.rounds import BUFFERS
    from hansa.seeds import Key
    from hansa.store.files import save_params
    from hansa.transforms import chain

    plan = project.plan
    x, buffers = seed.layout.split(seed.params)
    taking_part = Client(plan, fed_avg(), chain(), project.learner, seed.layout)
    update, _ = taking_part.train(
        Vectors({"x": x, BUFFERS: buffers}),
        data,
        None,
        name=name,
        hyper=hyper_at(plan, number),
        key=Key.root(plan.seed).child("client", number, name),
    )
    delta = update.vectors["delta"]
    if output is not None:
        save_params(output, seed.layout.join(x + delta, update.vectors.get(BUFFERS, buffers)))
    return {
        "metrics": {name: mean.value for name, mean in update.metrics.items()},
        "weight": update.weight,
        "tensors": _tensors(seed.params),
        "finite": bool(np.isfinite(delta).all()),
        "change": float(np.linalg.norm(delta.astype(np.float64))),
    }


def _predicted(project: Project, data: Any, seed: Seed, output: Path | None) -> dict[str, Any]:
    from hansa.learners.command import CommandLearner

    if not isinstance(project.learner, CommandLearner):
        raise click.UsageError("Only a command learner has a command that predicts.")
    if output is None:
        raise click.UsageError("Say with -o FILE where the predictions go.")
    project.learner.predict(seed.params, data, output)
    return {"bytes": output.stat().st_size}


def _tensors(params: Any) -> dict[str, str]:
    return {s.name: f"{s.dtype} {list(s.shape)}" for s in params.layout.specs}


def _echo_output(project: Project, *, err: bool) -> None:
    """Show what the last command has printed."""
    last = getattr(project.learner, "last", None)
    if last is not None and last.output:
        click.echo(last.output.rstrip("\n"), err=err)


def _tell(facts: dict[str, Any]) -> None:
    from hansa.text import clean

    if "client" in facts:
        click.echo(f"{facts['task']} of {clean(facts['client'])}, {facts['seconds']:.2f} s")
    else:
        click.echo(f"{facts['task']}, {facts['seconds']:.2f} s")
    for name, value in facts.get("metrics", {}).items():
        click.echo(f"metric   {clean(name)} {value:.4f}")
    if "weight" in facts:
        click.echo(f"weight   {facts['weight']:g}")
    for name, told in facts.get("tensors", {}).items():
        click.echo(f"tensor   {clean(name)} {told}")
    if "change" in facts:
        told = f"norm {facts['change']:.4g}" if facts["finite"] else "holds NaN or infinity"
        click.echo(f"change   {told}")
    if not facts.get("finite", True):
        click.echo("A run would refuse this update: update-not-finite.")
    if "output" in facts:
        click.echo(f"written  {facts['output']}")
