"""`hansa server`: all that an operator does; each command is imported when it is called."""

from __future__ import annotations

import re
from typing import Any

import click

from hansa.cli.lazy import LazyGroup, Verb
from hansa.cli.options import folder_of

VERBS = {
    "init": Verb("server_init", "Make a server: its folder, its authority, its first admin."),
    "start": Verb("server_start", "Serve until Ctrl-C or SIGTERM."),
    "status": Verb("server_look:status", "Tell whether it runs, its address and fingerprint."),
    "invite": Verb("server_members:invite", "Invite a site or a person: prints one line to send."),
    "sites": Verb("server_members:sites", "List sites, and which of them are there."),
    "members": Verb("server_members:list_members", "List all members, people and sites."),
    "revoke": Verb("server_members:revoke", "End a membership, within seconds."),
    "token": Verb("server_members:token", "Make or revoke a token for programs that only look."),
    "runs": Verb("server_look:runs", "List the runs of all submitters."),
    "audit": Verb("server_look:audit_trail", "Show who did what, newest last."),
    "doctor": Verb("server_upkeep:doctor", "Check clock, disk, certificates, database, files."),
    "backup": Verb("server_upkeep:backup", "Copy the whole server while it runs."),
    "certificate": Verb("server_upkeep:certificate", "Make a TLS certificate for a proxy."),
}
"""Every command of an operator, in the order in which one meets them."""

command = LazyGroup(
    verbs=VERBS,
    help="Operate a federation's server: start, invite, look after it.",
    epilog="Start with: hansa server init",
)
"""The group itself."""

folder_option = folder_of("server", "HANSA_SERVER")
"""`--folder DIR`: which server."""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click
    """A length of time as people write it: 15m, 24h, 7d; in seconds once it is read."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([0-9]{1,9})([smhd])", str(value).strip())
        if found is None or int(found[1]) == 0:
            self.fail(f"{value!r} is no length of time; write 15m, 24h or 7d.", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


def grouped(fingerprint: str) -> str:
    """Return a fingerprint in groups of four, to be read out."""
    return " ".join(fingerprint[i : i + 4] for i in range(0, len(fingerprint), 4))
