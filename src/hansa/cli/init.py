"""`hansa init`: a project folder that runs as it is."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

TEMPLATES = ("numpy", "torch", "sklearn", "script", "command")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--template",
    type=click.Choice(TEMPLATES),
    default="numpy",
    show_default=True,
    help="Framework of the model; numpy needs none, command takes any language.",
)
def command(folder: Path, template: str) -> None:
    """Make FOLDER with plan.toml, model.py and README.md; nothing is overwritten.

    \b
    Examples:
      hansa init my-study
      hansa init my-study --template torch
    """
    from importlib import resources

    from hansa.errors import PlanError
    from hansa.text import plan_name

    source = resources.files("hansa.cli") / "templates" / template
    files = sorted(f.name for f in source.iterdir() if f.is_file())
    if taken := [name for name in files if (folder / name).exists()]:
        raise PlanError(
            "project-exists",
            f"{folder} already has {', '.join(taken)}. Nothing was written.",
            "Choose another folder.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        text = (source / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace("{name}", plan_name(folder.name)), encoding="utf-8")
    click.echo(
        f"Made {folder}: {', '.join(files)}.\n"
        f"Next:\n  cd {shlex.quote(str(folder))}\n  hansa run\n  hansa config explain"
    )
