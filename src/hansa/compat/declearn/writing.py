"""From a declearn-quickrun set-up to a Hansa project: what is taken from where, and its files.

Nothing of the set-up is executed, and nothing that exists is written over.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never

from hansa.code import read_code
from hansa.compat.declearn.optimizers import Steps, local_chain, refused
from hansa.compat.declearn.reading import Found, located, read_setup
from hansa.compat.declearn.rows import Rows, read_rows
from hansa.compat.laying_out import Written, lay_out, line, new_folder, python
from hansa.plan import PLAN_FILE, build_method, check_plan, read_plan
from hansa.plan.schema import EvaluatePlan
from hansa.text import plan_name, toml

MODULE = "hansa_model.py"
DATA = "data"


def import_setup(source: Path, target: Path | None = None, data: Path | None = None) -> Written:
    """Write a Hansa project beside a declearn-quickrun set-up.

    Args:
      source: its TOML file, or the folder with config.toml.
      target: new folder.
      data: of the clients' folders, in place of the set-up's.

    Raises:
      PlanError: import-refused, something has no counterpart; project-exists.
      DataError: rows and targets do not fit together.
      LearnerError: there is too much code.
    """
    found = read_setup(source)
    target = new_folder(found.path.parent, target)
    code = read_code(found.model_file.parent)
    if found.model_file.name not in code:
        raise refused(f"{found.model_file} is no Python file.", "Correct [model] model_file.")
    if MODULE in code:
        raise refused(f"{found.model_file.parent} has a file {MODULE}, which would be written.")
    rows = read_rows(_data_folder(found, data), found.clients, found.parts, found.classes)
    count, most = len(rows.train), found.most
    if not found.minimum <= count <= (most or count):
        told = f"min_clients is {found.minimum}" + (f", max_clients is {most}" if most else "")
        raise refused(
            f"{count} clients have data; {told}.",
            "Correct it, or name those that shall take part in [data] client_names.",
        )
    plan = plan_text(found, rows)
    _check(plan, found)
    texts = {
        PLAN_FILE: plan,
        MODULE: module_text(found, rows),
        "README.md": readme_text(found, rows),
    }
    lay_out(target, code, texts, more=lambda folder: rows.save(folder / DATA))
    beside = [p.name for p in found.model_file.parent.iterdir() if p.is_file()]
    left = sorted({*beside} - {*code, found.path.name})
    return Written(target, list(_facts(found, rows)), [name for name in left if name[0] != "."])


def _check(text: str, found: Found) -> None:
    """Refuse values that are out of range, as the run would."""

    def none_is_named(file: str) -> Never:
        raise AssertionError(file)

    plan = read_plan(tomllib.loads(text)).plan
    check_plan(plan)
    build_method(plan, none_is_named)
    local_chain(found.client.regularizers, found.client.chain, none_is_named)


def _data_folder(found: Found, given: Path | None) -> Path:
    if given is None and found.data_folder is not None:
        given = located(found.path, found.data_folder, "[data] data_folder")
    if given is not None:
        if not given.is_dir():
            raise refused(f"{given} is no folder.", "Name the one with the clients' folders.")
        return given.resolve()
    here = found.path.parent
    folders = sorted(p for p in here.glob("data*") if p.is_dir())
    if len(folders) != 1:
        raise refused(
            f"{here} has {len(folders)} folders data*, and not one.",
            "Make one with declearn-split or hansa split, or name it with --data.",
        )
    return folders[0]


def plan_text(found: Found, rows: Rows) -> str:
    """Return plan.toml, with a word on each line about where it was taken from."""
    training = found.training
    weighting = "user" if found.steps_weighted else "uniform"
    lines = [
        f"# What will run, taken from {toml(found.path.name)} of a declearn-quickrun set-up.",
        "# Every key is explained by: hansa config explain",
        f"name = {toml(plan_name(found.path.parent.name))}",
        line("rounds", found.rounds, "run.rounds"),
        line("algorithm", _algorithm(found.server), "optim.server_opt"),
        line("aggregator", "mean", "optim.aggregator"),
        line("weighting", weighting, "its steps_weighted: a client's number of steps, or 1"),
        "",
        "[learner]",
        line("kind", "function"),
        line("module", MODULE),
        line(
            "optimizer", {"lr": found.client.lr}, f"optim.client_opt; its modules are in {MODULE}"
        ),
        line("batch_size", training.batch_size, "run.training"),
        line("steps", training.steps, "n_steps")
        if training.epochs is None
        else line("epochs", training.epochs, "n_epoch"),
        "",
        "[data]",
        line("set", DATA, "made of data.data_folder; at a site, the name of its own data"),
        line("split", {"scheme": "files"}, "a client for each folder"),
        line("test", 0.0, "the server holds no rows"),
        line("shape", list(rows.shape)),
        *([line("classes", rows.classes)] if rows.classes else []),
        "",
        "[cohort]",
        line("minimum", found.minimum, "run.register.min_clients"),
        "",
        "[evaluate]",
        line("every", found.every, "run.evaluate.frequency"),
        *([line("clients", len(rows.train))] if len(rows.train) > EvaluatePlan().clients else []),
        *([line("metrics", found.metrics, "experiment.metrics")] if found.metrics else []),
        "",
        "[stop]",
    ]
    stop = found.stop or {"metric": "loss"}
    lines += [
        line(key, value, "run.early_stop" if found.stop else "") for key, value in stop.items()
    ]
    return "\n".join([*lines, ""])


def _algorithm(server: Steps) -> Any:
    if server.lr == 1.0 and not server.chain and not server.regularizers:
        return "fed_avg"
    parts = {"regularizers": server.regularizers, "chain": server.chain}
    return {"name": "fed_opt", "lr": server.lr} | {k: v for k, v in parts.items() if v}


def module_text(found: Found, rows: Rows) -> str:
    """Return the module that hands the model to Hansa."""
    training = found.training
    told: dict[str, Any] = {
        "model": found.model_file.name,
        "name": found.model_name,
        "shape": list(rows.shape),
        "classes": rows.classes,
        "regularizers": found.client.regularizers,
        "chain": found.client.chain,
        "shuffle": training.shuffle,
        "drop_remainder": training.drop_remainder,
        "most_steps": training.steps if training.epochs is not None else None,
        "evaluation_batch": found.evaluation_batch,
    }
    options = "".join(f"    {name}={python(value)},\n" for name, value in told.items())
    return (
        '"""A declearn model, unchanged, and how a client trains it."""\n'
        "\n"
        "from hansa.compat.declearn import DeclearnApp\n"
        "\n"
        f"declearn = DeclearnApp(\n    __file__,\n{options})\n"
        "init, train, evaluate, predict, close = declearn.functions()\n"
    )


def readme_text(found: Found, rows: Rows) -> str:
    """Return the README."""
    told = "\n".join(f"    {what:<12} {taken}" for what, taken in _facts(found, rows))
    return (
        f"# {plan_name(found.path.parent.name)}\n\n"
        f"Made from a declearn-quickrun set-up: `{PLAN_FILE}` says what will run, `{MODULE}` how "
        f"a\nclient trains. `{found.model_file.name}` is unchanged, and `{DATA}` has each "
        "client's rows.\n\n"
        "    hansa run                    # simulate it on this machine\n"
        "    hansa dev                    # rehearse it: a server and sites as processes\n"
        "    hansa run --on ADDRESS       # run it on a federation's sites\n\n"
        f"Taken over:\n\n{told}\n\n"
        "A site declares its rows by the name of `data.set`: hansa site data add FOLDER --as "
        f"{DATA}\nIts policy says whose plans may run: hansa site policy edit\n"
        "The model file runs in a process of its own, in which `declearn` is Hansa's stand-in, "
        "whether\ndeclearn is installed or not.\n"
    )


def _facts(found: Found, rows: Rows) -> Iterator[tuple[str, str]]:
    yield "model", f"{found.model_name} of {found.model_file.name}"
    yield "clients", f"{len(rows.train)}: {', '.join([*rows.train][:5])}, from {rows.folder.name}"
    if rows.renamed:
        yield "renamed", ", ".join(f"{there} is {here}" for there, here in rows.renamed.items())
    yield "rounds", f"{found.rounds}, with batches of {found.training.batch_size}"
    modules = [module["name"] for module in (*found.client.regularizers, *found.client.chain)]
    yield "client_opt", f"rate {found.client.lr:g}{''.join(f', {name}' for name in modules)}"
    if found.client.kept:
        yield "differs", "a client's modules begin anew with each round, as with round_reset = true"
    yield "server_opt", toml(_algorithm(found.server))
    if found.metrics:
        yield "metrics", ", ".join(found.metrics)
    if found.left:
        yield "not needed", ", ".join(found.left)
