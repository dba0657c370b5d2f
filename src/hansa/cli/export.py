"""`hansa export`: a run's model in a format that something else reads."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from hansa.cli.options import json_option, on_option, print_json, runs_option


@click.command()
@click.argument("run", required=False)
@click.option(
    "--to",
    "kind",
    type=click.Choice(["torch", "npz", "safetensors"]),
    default="safetensors",
    show_default=True,
    help="torch: a state_dict for torch.load; npz: for numpy.load.",
)
@click.option(
    "--model",
    "which",
    default="final",
    show_default=True,
    metavar="final|best|ROUND",
    help="Which model of the trail.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.")
@on_option("Take the model of the run of this name at a federation's server.")
@runs_option
@json_option
def command(
    run: str | None,
    kind: str,
    which: str,
    output: Path | None,
    on: str | None,
    runs: Path,
    as_json: bool,
) -> None:
    """Write a run's model to a file, and print the one line of Python that loads it.

    RUN may be RUN:ROUND, as `hansa models ls` names it.

    \b
    Examples:
      hansa export
      hansa export digits-1 --to torch --model best -o digits.pt
      hansa export digits-1:5 --on hansa.example.org
    """
    from hansa.runs.export import export_model
    from hansa.runs.record import relative

    if run is not None and run.rpartition(":")[0]:
        run, _, which = run.rpartition(":")
    suffix = {"torch": ".pt", "npz": ".npz", "safetensors": ".safetensors"}[kind]
    if output is not None and output.is_dir():
        raise click.UsageError(
            f"{output} is a folder; name a file, such as {output / 'model'}{suffix}"
        )
    with _model_file(run, which, on, runs) as (name, model):
        path = output or Path(f"{name}-{which}{suffix}")
        line = export_model(model, path, kind=kind)
    if as_json:
        print_json({"run": name, "model": which, "path": str(path), "load": line})
    else:
        click.echo(
            f"Wrote {relative(path)} ({path.stat().st_size:,} bytes). Load it with:\n  {line}"
        )


@contextlib.contextmanager
def _model_file(
    run: str | None, which: str, on: str | None, runs: Path
) -> Iterator[tuple[str, Path]]:
    """Give a run's name and a file of its model, for as long as it is read."""
    if on is None:
        from hansa.runs import find_run
        from hansa.runs.result import model_file

        folder = find_run(runs, run)
        yield folder.name, model_file(folder, which)
        return
    if run is None:
        raise click.UsageError("Name the run; hansa ls --on lists them.")
    from hansa.remote.connecting import connected, membership_at
    from hansa.remote.trail import fetch_model, server_trail

    with tempfile.TemporaryDirectory(prefix="hansa-model-") as place:
        path = Path(place) / "model.safetensors"
        with connected(membership_at(on)) as connection:
            model = server_trail(connection, run).find(f"{run}:{which}")
            fetch_model(connection, model, path)
        yield run, path
