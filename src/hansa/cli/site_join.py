"""`hansa site join`: an invitation redeemed, and a folder in which nothing runs yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hansa.cli.options import at_folder, confirmed, pasted_invite
from hansa.cli.site import folder_option

if TYPE_CHECKING:
    from hansa.identity import Membership

TEMPLATE = """\
# The settings of this site.  A running agent takes a changed policy at once, and data and limits
# for code that it starts from then on.
name = "{name}"

# Data that a plan may ask for by its name.  Add some with:
#   hansa site data add ./cohort.csv --as cohort --target outcome

# What this site says of itself; every member of the federation may read it, and plans may choose
# sites by it.
# [attributes]
# region = "eu"

# What one run's code may use here.
# [limits]
# memory_mb = 8192     # MiB of memory
# task_s = 3600        # seconds that one round's training may take
# cpu_s = 36000        # seconds of processor time of a run

# What runs take from each other: no two have the same one.
# [resources]
# gpu = 1              # how many; a run gets CUDA_VISIBLE_DEVICES with the numbers of its own

# What may run here.  Without the table [policy] nothing runs.
# [policy]
# submitters = ["anna"]      # who may submit; "anna#FINGERPRINT" for one key alone
# approve = "ask"            # "ask": you approve each plan; "submitters": theirs run unasked
# packages = []              # identities of plan and code that run unasked
# data = ["cohort"]          # names of data that may be used; by default all that are declared
# sandbox = "required"       # "required", "preferred" or "none": run without one
# max_rounds = 100           # plans that ask for more rounds are refused
"""


@click.command()
@click.argument("invite")
@folder_option
@click.option("--yes", is_flag=True, help="Do not ask whether the fingerprint is right.")
def command(invite: str, folder: Path, yes: bool) -> None:
    """Join a federation with INVITE, the line that its operator sent you.

    A key is made in the site's folder and never leaves it.  Nothing runs there until you have
    written a policy: `hansa site policy edit`.

    \b
    Example:
      hansa site join 'https://hansa.example.org:443#TOKEN.FINGERPRINT' --folder ward-3
    """
    from hansa.errors import SiteError
    from hansa.identity import load_membership, parse_invite
    from hansa.protocol.enrolment import enrol
    from hansa.site.settings import SITE_FILE

    if (folder / "member.json").exists() and not (folder / SITE_FILE).exists():
        membership = load_membership(folder)
        if membership.role == "site":  # a crash has come between the two files
            click.echo(f"{folder} had joined {membership.url} before; INVITE was not used.")
            _written(membership)
            return
    asked = parse_invite(pasted_invite(invite))
    for name in ("member.json", SITE_FILE):
        if (folder / name).exists():
            raise SiteError(
                "site-exists",
                f"{folder} holds a site already ({name}). Nothing was sent or changed.",
                "Choose another folder with --folder.",
            )
    told = " ".join(asked.fingerprint[i : i + 4] for i in range(0, len(asked.fingerprint), 4))
    click.echo(f"Server        {asked.url}")
    click.echo(f"Fingerprint   {told}")
    click.echo("Compare it by phone with the operator's: hansa server status shows it there.")
    if not yes and not confirmed("Are they the same?"):
        click.echo("Not joined. Nothing was sent; call the operator.", err=True)
        raise click.exceptions.Exit(1)
    _written(enrol(asked, folder, kind="site"))


def _written(membership: Membership) -> None:
    """Write the settings of a site that has joined, and say what comes next."""
    from hansa.identity.authority import authority_fingerprint
    from hansa.site.settings import SITE_FILE
    from hansa.store.files import write_durably

    folder = membership.folder
    text = TEMPLATE.format(name=membership.name)
    write_durably(folder / SITE_FILE, [text.encode()])
    at = at_folder(folder)
    behind = ""
    if membership.submitters_pem:
        above = authority_fingerprint(membership.submitters_pem)
        behind = (
            "It stands behind a combiner: runs come from the federation above, whose authority is\n"
            f"  {' '.join(above[i : i + 4] for i in range(0, len(above), 4))}\n"
        )
    click.echo(
        f"\nThis is now the site {membership.name} of {membership.federation or membership.url}.\n"
        f"Its key is {folder / 'key.pem'}; it never leaves this machine.\n"
        + behind
        + "Nothing runs here yet. Next:\n"
        f"  hansa site data add PATH --as NAME{at}\n"
        f"  hansa site policy edit{at}\n"
        f"  hansa site start{at}"
    )
