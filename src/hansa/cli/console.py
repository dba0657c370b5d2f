"""`hansa console`: an admin's prompt, and the same verbs from a script."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hansa.cli.options import on_option

if TYPE_CHECKING:
    from hansa.console.session import Session
    from hansa.identity import Membership

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@on_option("At this federation's server, as its member.")
@click.option("--server", type=_FOLDER, help="The server in this folder, which it may end.")
@click.option("--sites", type=_FOLDER, help="Folder of folders of one's own sites, to end them.")
@click.option(
    "--workspace",
    type=_FOLDER,
    default=Path("console"),
    show_default=True,
    help="Folder of apps and of run_1, run_2 ...",
)
@click.option("-c", "lines", multiple=True, metavar="LINE", help="Do this line, and do not prompt.")
def command(
    on: str | None,
    server: Path | None,
    sites: Path | None,
    workspace: Path,
    lines: tuple[str, ...],
) -> None:
    """Administer a federation from a prompt: upload, start, look, abort, shut down.

    The verbs are those of NVIDIA FLARE's admin console, its first and today's; ? lists them.
    Lines come from -c, from standard input, or from a prompt with history and completion. Without
    a prompt the first line that is not done ends it, with exit status 1, or 2 if it was wrongly
    typed.

    \b
    Examples:
      hansa console --on hansa.example.org
      hansa console --server heart -c "check_status server"
      hansa console < lines.txt
    """
    from hansa.cli.import_nvflare import brought
    from hansa.console import answers
    from hansa.console.seat import Seat
    from hansa.console.session import Session
    from hansa.console.workspace import Workspace
    from hansa.errors import ConsoleError

    if on is not None and server is not None:
        raise click.UsageError("Give --on or --server, not both.")
    membership = _membership(on, server)
    place = Workspace(workspace, membership.url)
    seat = Seat(membership, place, server_folder=server, sites_folder=sites, bring=brought)
    asked = not lines and _is_terminal()
    session = Session(seat, told=_tell, ask=input if asked else None)
    with closing(seat):
        if asked:
            with _prompt(session) as read:
                session.converse(read)
            return
        try:
            session.script(lines or _piped())
        except ConsoleError as error:
            if error.code != "console-verb":
                raise
            click.echo(answers.error(error), err=True)
            raise click.exceptions.Exit(2) from None


def _membership(on: str | None, server: Path | None) -> Membership:
    from hansa.identity import find_membership
    from hansa.remote.connecting import membership_at
    from hansa.server.settings import load_settings

    if server is not None:
        return find_membership(load_settings(server).url)
    return membership_at(on or "")


def _tell(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()


def _piped() -> Iterator[str]:
    """Yield the lines of standard input, none longer than a line of the console may be."""
    from hansa.limits import CONSOLE_LINE_CHARS_MAX

    if sys.stdin is None:
        return
    while line := sys.stdin.readline(CONSOLE_LINE_CHARS_MAX + 2):
        yield line


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


@contextmanager
def _prompt(session: Session) -> Iterator[Callable[[str], str]]:
    """Give what reads a line; with history and completion where the system has readline."""
    from hansa.identity.home import hansa_home

    try:
        import readline
    except ImportError:
        yield input
        return
    history = hansa_home() / "console-history"
    found: list[str] = []

    def complete(text: str, state: int) -> str | None:
        if state == 0:
            begun = readline.get_line_buffer()[: readline.get_endidx()]
            found[:] = session.complete(begun)
        return f"{found[state]} " if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n")
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    with suppress(OSError):  # there is none yet, or it is another program's
        readline.read_history_file(history)
    try:
        yield input
    finally:
        _keep_history(readline, history)


def _keep_history(readline: object, history: Path) -> None:
    """Write the history, for its owner alone; a disk that is full keeps none."""
    from hansa.limits import CONSOLE_HISTORY_LINES

    with suppress(OSError):
        history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        history.touch(mode=0o600)
        readline.set_history_length(CONSOLE_HISTORY_LINES)  # type: ignore[attr-defined]
        readline.write_history_file(history)  # type: ignore[attr-defined]


__all__ = ["command"]
