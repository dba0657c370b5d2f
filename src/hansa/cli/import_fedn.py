"""`hansa import fedn`: a FEDn compute package, so that it trains here unchanged."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--seed-model", type=click.Path(path_type=Path), help="The package's seed model.")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="New folder.  [default: NAME-hansa]"
)
@click.option("--init", metavar="LINE", help="The package's line that writes the seed model.")
@click.option("--helper", metavar="NAME", help="Helper of its model files, where it names none.")
@click.option("--data", default="data", show_default=True, help="Folder of the clients' data.")
@click.option(
    "-e",
    "--env",
    multiple=True,
    metavar="NAME=VALUE",
    help="A variable of its commands; {data} is the client's own file or folder.",
)
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A client setting, which load_metadata gives.",
)
@click.option("--startup/--no-startup", default=True, help="Run its startup line before others.")
@click.option(
    "--environment/--no-environment",
    default=True,
    help="Install what its python_env.yaml lists, or use Hansa's Python.",
)
@click.option(
    "--server-functions",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with FEDn's class ServerFunctions, which the server shall run.",
)
@click.option("--labels", metavar="CLIENT", help="Of split learning: who holds the labels.")
@click.option("--features", type=int, help="Of split learning: columns of all embeddings.")
def fedn(
    package: Path,
    seed_model: Path | None,
    target: Path | None,
    init: str | None,
    helper: str | None,
    data: str,
    env: tuple[str, ...],
    settings: tuple[str, ...],
    startup: bool,
    environment: bool,
    server_functions: Path | None,
    labels: str | None,
    features: int | None,
) -> None:
    """Make a project from PACKAGE of FEDn, a folder or a .tgz, which stays as it is.

    Nothing of it is executed.  The new folder must not exist.

    \b
    Examples:
      hansa import fedn client --seed-model seed.npz
      hansa import fedn package.tgz --init "python entrypoint.py init_seed"
      hansa import fedn client -e "ENTRYPOINT_OPTS=--data_path={data}/mnist.pt"
    """
    from hansa.compat.fedn.formats import FORMS
    from hansa.compat.fedn.writing import LABELS, Import, import_package
    from hansa.limits import SPLIT_FEATURES

    if helper is not None and helper not in FORMS:
        raise click.UsageError(f"There is no helper {helper!r}; valid: {', '.join(FORMS)}.")
    # fmt: off
    asked = Import(
        package, target, seed_model, init, helper, data, env, settings, startup, environment,
        server_functions, labels or LABELS, SPLIT_FEATURES if features is None else features,
    )
    # fmt: on
    written = import_package(asked)
    click.echo(f"Made {written.folder}:")
    for what, taken in written.facts:
        click.echo(f"  {what:<12} {taken}")
    next_step = "hansa run" if ("head" in dict(written.facts)) else "hansa package run train"
    click.echo(f"Next:\n  cd {shlex.quote(str(written.folder))}\n  {next_step}")
