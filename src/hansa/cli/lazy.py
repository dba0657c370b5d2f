"""Groups of commands that are imported when they are called: `hansa --help` stays quick."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click


class Verb(NamedTuple):
    """A command without importing it."""

    module: str  # below hansa.cli; "module:name" for a command that is not called `command`
    summary: str


class LazyGroup(click.Group):
    """A group that knows its commands by name and summary.

    Args:
      verbs: the commands, in the order in which a person meets them.
    """

    def __init__(self, *args: Any, verbs: Mapping[str, Verb], **options: Any) -> None:
        super().__init__(*args, **options)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in our own order."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb's module and return its command."""
        if cmd_name not in self.verbs:
            return None
        module, _, name = self.verbs[cmd_name].module.partition(":")
        command: click.Command = getattr(
            importlib.import_module(f"hansa.cli.{module}"), name or "command"
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs with their summaries, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in self.verbs.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or name the nearest one."""
        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            from hansa.text import nearest

            near = nearest(args[0], self.verbs)
            raise click.UsageError(f"There is no command {args[0]!r}. {near}", ctx)
        return super().resolve_command(ctx, args)
