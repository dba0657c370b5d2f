"""What the console says of itself: its verbs, who sits here, and where things are."""

from __future__ import annotations

from collections.abc import Iterator

import hansa
from hansa.console import answers
from hansa.console.parsing import Command, unknown_verb
from hansa.console.seat import Seat, own_sites
from hansa.console.verbs import ALIASES, VERBS
from hansa.text import clean


def help(seat: Seat, command: Command) -> Iterator[str]:
    """List the verbs, or explain one."""
    if not command.words:
        yield from answers.help_lines()
        return
    name = ALIASES.get(command.words[0], command.words[0])
    if name not in VERBS:
        raise unknown_verb(name)
    yield answers.help_on(name)


def info(seat: Seat, command: Command) -> Iterator[str]:
    """Tell who one is and where things are."""
    member = seat.membership
    yield f"You: {clean(member.name)}, {member.role} of {clean(member.federation or member.url)}"
    yield f"Server: {member.url}" + (
        f", whose folder is {seat.server_folder}" if seat.server_folder else ""
    )
    yield f"Workspace: {seat.workspace.folder}"
    own = own_sites(seat.sites_folder)
    yield f"Sites of this machine: {', '.join(own) or 'none'}"
    yield f"Hansa: {hansa.__version__}"


def lpwd(seat: Seat, command: Command) -> Iterator[str]:
    """Tell the folder that the console works in."""
    yield str(seat.workspace.folder)


def bye(seat: Seat, command: Command) -> Iterator[str]:
    """Leave."""
    yield "Bye bye"
