"""A session: lines in, answers out, one after the other, on a terminal or from a script."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from hansa.clock import monotonic, now
from hansa.console import answers, views
from hansa.console.parsing import Command, completions, parse
from hansa.console.seat import Seat
from hansa.console.verbs import VERBS
from hansa.errors import ConsoleError, HansaError

Deed = Callable[[Seat, Command], Iterator[str]]

PROMPT = "> "


DEEDS: Mapping[str, str] = {
    **dict.fromkeys(("upload_app", "set_run_number", "deploy_app", "start_app",
                     "delete_run_number", "submit_job", "clone_job"), "apps"),
    **dict.fromkeys(("check_status", "list_clients", "show_users", "report_version",
                     "report_resources", "list_jobs",
                     "get_job_meta", "show_stats", "show_errors"), "status"),
    **dict.fromkeys(("abort", "abort_job", "get_job_log", "monitor_job", "download_job"), "jobs"),
    **dict.fromkeys(("remove_client", "shutdown"), "ending"),
    **dict.fromkeys(("ls", "cat", "head", "tail", "grep", "pwd"), "views"),
    **dict.fromkeys(("help", "info", "lpwd", "bye"), "sitting"),
}  # fmt: skip
"""The module below hansa.console that does each verb, in a function of its name.

They are imported when they are needed, so that a single command answers at once.
"""


def deed(verb: str) -> Deed:
    """Return what does a verb: it takes a seat and a command, and yields its answer."""
    found: Deed = getattr(importlib.import_module(f"hansa.console.{DEEDS[verb]}"), verb)
    return found


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
        for piece in deed(command.verb)(self.seat, command):
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
