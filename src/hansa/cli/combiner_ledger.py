"""`hansa combiner ledger`: everything that has left a combiner for the server above."""

from __future__ import annotations

from pathlib import Path

import click

from hansa.cli.options import json_option
from hansa.cli.server import folder_option


@click.command()
@folder_option
@click.option("--verify", is_flag=True, help="Compare with the receipts that the server keeps.")
@json_option
def command(folder: Path, verify: bool, as_json: bool) -> None:
    """List everything that has left for the server above, oldest first.

    Each line was written before the bytes left: partial sums with the clients in them, totals of
    metrics, what sites say of runs.

    \b
    Example:
      hansa combiner ledger --folder west --verify
    """
    from hansa.cli.site_ledger import listed
    from hansa.server.opening import check_combiner
    from hansa.server.settings import UPWARD

    check_combiner(folder)
    listed(folder, folder / UPWARD, None, verify=verify, as_json=as_json)
