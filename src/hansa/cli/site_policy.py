"""`hansa site policy`: what may run at a site."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.options import json_option, print_json
from hansa.cli.site import folder_option


@click.group()
def command() -> None:
    """Show or edit what may run here."""


@command.command()
@folder_option
@json_option
def show(folder: Path, as_json: bool) -> None:
    """Show the policy with every value, also those left to their defaults.

    \b
    Example:
      hansa site policy show
    """
    import msgspec

    from hansa.site.settings import load_settings

    policy = load_settings(folder).policy
    if as_json:
        print_json(None if policy is None else msgspec.to_builtins(policy))
    elif policy is None:
        click.echo("There is no policy, so nothing runs here.")
        click.echo("Write one with: hansa site policy edit")
    else:
        rows = {
            "submitters": _names(policy.submitters, "anyone", "nobody"),
            "approve": {
                "ask": "you approve each plan by hand",
                "submitters": "what they submit runs without being asked",
            }[policy.approve],
            "packages": ", ".join(policy.packages) or "none runs without being asked",
            "data": _names(policy.data, "all that is declared", "none"),
            "sandbox": policy.sandbox,
            "max_rounds": str(policy.max_rounds or "no limit"),
        }
        for key, told in rows.items():
            click.echo(f"{key:<12}{told}")


def _names(names: tuple[str, ...] | None, without: str, empty: str) -> str:
    return without if names is None else ", ".join(names) or empty


@command.command()
@folder_option
def edit(folder: Path) -> None:
    """Open site.toml in your editor ($EDITOR), and keep it only if it can be used.

    A running agent takes the policy at once, and data and limits from its next start.

    \b
    Example:
      hansa site policy edit
    """
    from hansa.site.settings import SITE_FILE, load_settings, parse_settings
    from hansa.store.files import write_durably

    file = folder / SITE_FILE
    if not file.is_file():
        load_settings(folder)  # says that there is no site
    before = file.read_text(encoding="utf-8", errors="replace")
    text = click.edit(before, extension=".toml")
    if text is None or text == before:
        click.echo("Nothing was changed.")
        return
    settings = parse_settings(text, origin="Your edit")  # the file is as it was if this fails
    write_durably(file, [text.encode()])
    click.echo(f"{file} is written. A running agent takes the policy at once,")
    click.echo("and data and limits from its next start.")
    if settings.policy is None:
        click.echo("It has no table [policy], so nothing runs here.")
