"""`hansa site policy`: what may run at a site."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hansa.cli.options import at_folder, json_option, print_json
from hansa.cli.site import folder_option

if TYPE_CHECKING:
    from hansa.site.settings import SiteSettings


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

    from hansa.site.sandbox import sandbox_told
    from hansa.site.settings import load_settings

    policy = load_settings(folder).policy
    if as_json:
        print_json(None if policy is None else msgspec.to_builtins(policy))
    elif policy is None:
        click.echo("There is no policy, so nothing runs here.")
        click.echo(f"Write one with: hansa site policy edit{at_folder(folder)}")
    else:
        rows = {
            "submitters": _names(policy.submitters, "anyone", "nobody"),
            "approve": {
                "ask": "you approve each plan by hand",
                "submitters": "what they submit runs without being asked",
            }[policy.approve],
            "packages": ", ".join(policy.packages) or "none runs without being asked",
            "data": _names(policy.data, "all that is declared", "none"),
            "tasks": _names(policy.tasks, "all that an approved plan names", "none"),
            "filters": "; ".join(map(_filter_told, policy.filters)) or "none: all leaves as it is",
            "sandbox": policy.sandbox,
            "max_rounds": str(policy.max_rounds or "no limit"),
        }
        for key, told in rows.items():
            click.echo(f"{key:<12}{told}")
    if not as_json:
        click.echo(f"Sandbox here: {sandbox_told(policy)}")


def _filter_told(described: Mapping[str, Any]) -> str:
    options = ", ".join(f"{k} = {v!r}" for k, v in described.items() if k != "name")
    return f"{described.get('name')} ({options})" if options else str(described.get("name"))


def _names(names: tuple[str, ...] | None, without: str, empty: str) -> str:
    return without if names is None else ", ".join(names) or empty


@command.command()
@folder_option
def edit(folder: Path) -> None:
    """Open site.toml in your editor ($EDITOR), and keep it only if it can be used.

    What cannot be used is opened again, or kept beside it in site.toml.rejected.  A running
    agent takes the policy at once, and data and limits for code that it starts from then on.

    \b
    Example:
      hansa site policy edit
    """
    from hansa.site.settings import SITE_FILE, load_settings
    from hansa.store.files import write_durably

    file = folder / SITE_FILE
    if not file.is_file():
        load_settings(folder)  # says that there is no site
    before = file.read_text(encoding="utf-8", errors="replace")
    text, settings = _edited(before, folder / f"{SITE_FILE}.rejected")
    if settings is None:
        click.echo("Nothing was changed.")
        return
    write_durably(file, [text.encode()])
    click.echo(f"{file} is written. A running agent takes the policy at once,")
    click.echo("and data and limits for code that it starts from then on.")
    if settings.policy is None:
        click.echo("It has no table [policy], so nothing runs here.")


def _edited(before: str, rejected: Path) -> tuple[str, SiteSettings | None]:
    """Let a text be edited until it can be used; None for settings if it was left as it is.

    Raises:
      SiteError: it cannot be used, and shall not be edited further; it is kept in `rejected`.
    """
    from hansa.errors import SiteError
    from hansa.site.settings import UNCHANGED, parse_settings
    from hansa.store.files import write_durably

    opened = before
    while True:
        try:
            text = click.edit(opened, extension=".toml") or opened
        except click.ClickException as error:
            raise SiteError(
                "site-settings",
                f"The editor cannot be used: {error.message}. Nothing was changed.",
                "Let EDITOR name one that is here, such as nano; or edit site.toml with any other.",
            ) from None
        if text == before:
            return text, None
        try:
            return text, parse_settings(text, origin="Your edit", consequence=UNCHANGED)
        except SiteError as error:
            if sys.stdin.isatty():
                click.echo(f"{error.happened}\n{error.hint}", err=True)
                if click.confirm("Edit it again?", default=True, err=True):
                    opened = text
                    continue
            write_durably(rejected, [text.encode()])
            hint = f"{error.hint} Your edit is kept in {rejected}."
            raise SiteError(error.code, error.happened, hint) from None
