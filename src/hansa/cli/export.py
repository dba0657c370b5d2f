"""`hansa export`: a run's model in a format that something else reads."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.options import json_option, print_json, runs_option


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
@runs_option
@json_option
def command(
    run: str | None, kind: str, which: str, output: Path | None, runs: Path, as_json: bool
) -> None:
    """Write a run's model to a file, and print the one line of Python that loads it.

    \b
    Examples:
      hansa export
      hansa export digits-1 --to torch --model best -o digits.pt
    """
    from hansa.runs import find_run
    from hansa.runs.export import export_model
    from hansa.runs.record import relative
    from hansa.runs.result import model_file

    folder = find_run(runs, run)
    suffix = {"torch": ".pt", "npz": ".npz", "safetensors": ".safetensors"}[kind]
    if output is not None and output.is_dir():
        raise click.UsageError(
            f"{output} is a folder; name a file, such as {output / 'model'}{suffix}"
        )
    path = output or Path(f"{folder.name}-{which}{suffix}")
    line = export_model(model_file(folder, which), path, kind=kind)
    if as_json:
        print_json({"run": folder.name, "model": which, "path": str(path), "load": line})
    else:
        click.echo(
            f"Wrote {relative(path)} ({path.stat().st_size:,} bytes). Load it with:\n  {line}"
        )
