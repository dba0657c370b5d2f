"""`hansa combiner`: a middle tier between a federation's server and some of its sites."""

from __future__ import annotations

import copy

import click

from hansa.cli.lazy import LazyGroup, Verb

VERBS = {
    "init": Verb("combiner_init", "Make a combiner: join the server above, found a server below."),
    "start": Verb("combiner_start", "Serve until Ctrl-C or SIGTERM."),
    "invite": Verb("server_members:invite", "Invite a site: prints one line to send."),
    "sites": Verb("server_members:sites", "List its sites, and which of them are there."),
    "members": Verb("server_members:list_members", "List all members, people and sites."),
    "status": Verb("server_look:status", "Tell whether it runs, its address and fingerprint."),
    "revoke": Verb("server_members:revoke", "End a membership, within seconds."),
    "ledger": Verb("combiner_ledger", "List what has left for the server above."),
    "doctor": Verb("server_upkeep:doctor", "Check clock, disk, certificates, database, files."),
    "backup": Verb("server_upkeep:backup", "Copy the whole combiner while it runs."),
}
"""Every command of a combiner's operator, in the order in which one meets them."""


class _Combiner(LazyGroup):
    """Its operator's commands; those that a server has, too, say `combiner` in their help."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb's module and return its command."""
        found = super().get_command(ctx, cmd_name)
        if found is None or not self.verbs[cmd_name].module.startswith("server_"):
            return found
        shown = copy.copy(found)
        shown.help = (found.help or "").replace("hansa server", "hansa combiner")
        return shown


command = _Combiner(
    verbs=VERBS,
    help="Operate a combiner: it folds its sites' updates and passes one partial sum on.",
    epilog="Start with: hansa combiner init --join LINE",
)
"""The group itself."""
