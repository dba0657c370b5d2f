"""`hansa package build`, `check` and `show`: nothing of the package is run for any of them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from hansa.cli.options import json_option, print_json
from hansa.cli.package import Package, digest_of, digest_option, opened, packed, path_argument


@click.command()
@click.argument("project", type=click.Path(exists=True, file_okay=False, path_type=Path),
                default=Path("."))  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
              help="File to write.  [default: NAME.zip, by the plan's name]")  # fmt: skip
@json_option
def build(project: Path, output: Path | None, as_json: bool) -> None:
    """Make one file of PROJECT: the same files give the same bytes, and the same digest.

    It holds plan.toml and the code, and never data: what a plan does not name is left out.  Any
    unzip program opens it.  A run with --on makes and uploads the same by itself.

    \b
    Examples:
      hansa package build
      hansa package build my-study -o study.zip
    """
    from hansa.plan.load import PLAN_FILE, load_plan
    from hansa.store.files import write_durably

    archive = packed(project)
    path = output or Path(f"{load_plan(project / PLAN_FILE).plan.name}.zip")
    write_durably(path, [archive])
    digest, files = digest_of(archive), _files(archive)
    if as_json:
        print_json({"path": str(path), "digest": digest, "files": {n: len(c) for n, c in files}})
        return
    click.echo(
        f"Wrote {path}: {len(files)} files, {len(archive):,} bytes.\n{digest}\n"
        f"Next: hansa package check {shlex.quote(str(path))}"
    )


def _files(archive: bytes) -> list[tuple[str, bytes]]:
    from hansa.packages import read_archive

    return list(read_archive(archive).items())


@click.command()
@path_argument
@digest_option
@json_option
def show(package: Path, digest: str | None, as_json: bool) -> None:
    """List the commands, the files and the digest of PACKAGE, a project folder or a file.

    \b
    Examples:
      hansa package show
      hansa package show study.zip
    """
    with opened(package, digest) as found:
        facts = _facts(found)
    if as_json:
        print_json(facts)
        return
    from hansa.text import clean

    click.echo(f"{facts['digest']}\nlearner {facts['kind']}")
    for task, words in facts["commands"].items():
        line = shlex.join(words)
        click.echo(f"{task:<9}{clean(line, len(line))}")
    for name, size in facts["files"].items():
        click.echo(f"{size:>10,}  {clean(name, 1000)}")


def _facts(found: Package) -> dict[str, Any]:
    from hansa.plan.load import PLAN_FILE, load_plan

    learner = load_plan(found.folder / PLAN_FILE).plan.learner
    return {
        "digest": found.digest,
        "kind": learner.kind,
        "commands": {task: list(words) for task, words in learner.commands.items()},
        "files": {name: len(content) for name, content in _files(packed(found.folder))},
    }


@click.command()
@path_argument
@digest_option
@json_option
def check(package: Path, digest: str | None, as_json: bool) -> None:
    """Check PACKAGE, a project folder or a file, and tell each fault by file and line.

    Nothing is run.  The status is 1 if something in it cannot work.

    \b
    Examples:
      hansa package check
      hansa package check study.zip --digest blake3:5f1d2c3b4a59
    """
    from hansa.text import ERROR_CHARS, clean

    with opened(package, digest) as found:
        faults = _faults(found.folder)
    grave = sum(fault.grave for fault in faults)
    if as_json:
        told = [fault._asdict() for fault in faults]
        print_json({"digest": found.digest, "sound": not grave, "faults": told})
    else:
        for fault in faults:
            click.echo(clean(f"{fault}{'' if fault.grave else '  (a warning)'}", ERROR_CHARS))
        click.echo(f"{grave} faults." if grave else "Nothing in it is wrong.")
    if grave:
        sys.exit(1)


def _faults(folder: Path) -> list[Any]:
    from hansa.errors import HansaError
    from hansa.packages.check import PLAN, Fault, Made, check_files, line_of
    from hansa.plan import build_method, check_plan
    from hansa.plan.load import load_plan
    from hansa.project import import_file

    plan = load_plan(folder / PLAN).plan
    learner = plan.learner
    files = dict(_files(packed(folder)))
    named = [*learner.files, *([learner.requirements] if learner.requirements else [])]
    faults = check_files(Made(files, learner.commands, named))
    try:
        check_plan(plan)
        if not any(".py:" in str(part) for part in (plan.algorithm, plan.aggregator)):
            build_method(plan, lambda name: import_file(folder, name))
    except HansaError as error:
        words = error.happened.partition("The plan's ")[2].split(" ", 1)
        faults.append(Fault(PLAN, line_of(files[PLAN], words[0]), str(error)))
    return faults
