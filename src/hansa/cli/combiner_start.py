"""`hansa combiner start`: one process, a server to its sites and one participant above."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.server import folder_option


@click.command()
@folder_option
@click.option("--log-json", is_flag=True, help="Log one JSON object a line, for programs.")
def command(folder: Path, log_json: bool) -> None:
    """Serve sites and the server above until Ctrl-C or SIGTERM.

    A round that was open goes on when the combiner starts again, also after a crash: what its sites
    had sent is counted once.

    \b
    Example:
      hansa combiner start --folder west
    """
    from hansa.cli.server_start import tell
    from hansa.combiner.state import CombinerState
    from hansa.identity import load_authority, load_membership
    from hansa.server.logs import log_to_stderr
    from hansa.server.opening import check_combiner, check_database
    from hansa.server.serve import serve
    from hansa.server.settings import UPWARD, load_settings

    check_combiner(folder)
    load_settings(folder)  # its words come before any others
    above = load_membership(folder / UPWARD)
    check_database(folder)
    fingerprint = load_authority(folder).fingerprint
    log_to_stderr(as_json=log_json)
    click.echo(f"Combiner      {above.name} of {above.federation}, whose server is {above.url}")
    serve(
        folder,
        started=lambda settings: tell(settings, folder, fingerprint),
        state_of=CombinerState,
    )
    click.echo("The combiner has ended; rounds that are open go on when it starts again.")
