"""A session: lines in, answers out, one after the other, on a terminal or from a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import hansa
from hansa.clock import monotonic, now
from hansa.console import answers, apps, ending, jobs, status, views
from hansa.console.parsing import Command, completions, parse
from hansa.console.seat import Seat
from hansa.console.verbs import ALIASES, VERBS
from hansa.errors import ConsoleError, HansaError
from hansa.text import clean

Deed = Callable[[Seat, Command], Iterator[str]]

PROMPT = "> "


def help_(seat: Seat, command: Command) -> Iterator[str]:
    """List the verbs, or explain one."""
    if not command.words:
        yield from answers.help_lines()
        return
    name = ALIASES.get(command.words[0], command.words[0])
    if name not in VERBS:
        parse(name)  # says that there is none, and what is near
    yield answers.help_on(name)


def info(seat: Seat, command: Command) -> Iterator[str]:
    """Tell who one is and where things are."""
    member = seat.membership
    yield f"You: {clean(member.name)}, {member.role} of {clean(member.federation or member.url)}"
    yield f"Server: {member.url}" + (
        f", whose folder is {seat.server_folder}" if seat.server_folder else ""
    )
    yield f"Workspace: {seat.workspace.folder}"
    own = ending.own_sites(seat.sites_folder)
    yield f"Sites of this machine: {', '.join(own) or 'none'}"
    yield f"Hansa: {hansa.__version__}"


def lpwd(seat: Seat, command: Command) -> Iterator[str]:
    """Tell the folder that the console works in."""
    yield str(seat.workspace.folder)


def bye(seat: Seat, command: Command) -> Iterator[str]:
    """Leave."""
    yield "Bye bye"


DEEDS: Mapping[str, Deed] = {
    **{name: getattr(apps, name) for name in ("upload_app", "set_run_number", "deploy_app",
       "start_app", "delete_run_number", "submit_job", "clone_job")},
    **{name: getattr(status, name) for name in ("check_status", "list_clients", "show_users",
       "report_version", "list_jobs", "get_job_meta", "show_stats", "show_errors")},
    **{name: getattr(jobs, name) for name in ("abort", "abort_job", "get_job_log", "monitor_job",
       "download_job")},
    **{name: getattr(ending, name) for name in ("remove_client", "shutdown")},
    **{name: getattr(views, name) for name in ("ls", "cat", "head", "tail", "grep", "pwd")},
    "help": help_, "info": info, "lpwd": lpwd, "bye": bye,
}  # fmt: skip
"""What does each verb of the table that is done."""


class Session:
    """Lines in, answers out.

    Args:
      seat: where one sits.
      told: is called with each piece of an answer.
      ask: asks a person something and returns the answer; None where nobody can be asked.
    """

    def __init__(
        self, seat: Seat, *, told: Callable[[str], None], ask: Callable[[str], str] | None = None
    ) -> None:
        self.seat, self._told, self._ask = seat, told, ask

    def do(self, line: str) -> bool:
        """Do what one line says; return False if it says to leave.

        Raises:
          HansaError: it is not done; nothing else was.
        """
        command = parse(line)
        if command is None:
            return True
        self._confirm(command)
        began = monotonic()
        for piece in DEEDS[command.verb](self.seat, command):
            self._told(piece)
        if VERBS[command.verb].scope != "console":
            self._told(answers.done(monotonic() - began, now()))
        return command.verb != "bye"

    def script(self, lines: Iterable[str]) -> None:
        """Do line after line until one says to leave; the first that is not done ends it.

        Raises:
          HansaError: as `do`.
        """
        for line in lines:
            if not self.do(line):
                return

    def converse(self, read: Callable[[str], str]) -> None:
        """Prompt until `bye` or the end of input; an error or Ctrl-C ends a command, not this.

        Args:
          read: shows a prompt and returns a line; raises EOFError at the end of input.
        """
        self._told(answers.GREETING)
        while True:
            try:
                if not self.do(read(PROMPT)):
                    return
            except EOFError:
                self._told("")
                return
            except KeyboardInterrupt:
                self.seat.close()  # an answer may have been cut in two
                self._told('\nInterrupted; what runs goes on. Type "bye" to leave.')
            except HansaError as error:
                self._told(answers.error(error))
            except OSError as error:
                where = f" ({error.filename})" if error.filename else ""
                self._told(
                    f"Error: The system refused: {error.strerror or error}{where}.  [system]"
                )

    def names(self) -> dict[str, list[str]]:
        """Return the names that are known, for completion; nobody is asked for them."""
        workspace = self.seat.workspace
        return {
            "app": workspace.apps(),
            "number": sorted(workspace.memory.runs),
            "run": self.seat.known_runs,
            "site": self.seat.known_sites,
            "file": views.files(self.seat),
        }

    def complete(self, line: str) -> list[str]:
        """Return what the last word of a line could become."""
        return completions(line, self.names())

    def _confirm(self, command: Command) -> None:
        """Let a person say their name before what cannot be taken back; a script has said it."""
        if not VERBS[command.verb].confirm or self._ask is None:
            return
        name = self.seat.membership.name
        if self._ask(f"Enter your name to confirm ({name}): ").strip() != name:
            raise ConsoleError(
                "console-refused",
                f"{command.verb} was not confirmed. Nothing was done.",
                f"Your name here is {name}; no password is needed, your key proves who you are.",
            )
