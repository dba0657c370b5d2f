"""`hansa site ledger`: everything that left a site, and whether the server says the same."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from hansa.cli.options import json_option, print_json
from hansa.cli.site import folder_option


@click.command()
@folder_option
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write it as a table.")  # fmt: skip
@click.option("--verify", is_flag=True, help="Compare with the receipts that the server keeps.")
@json_option
def command(folder: Path, csv_file: Path | None, verify: bool, as_json: bool) -> None:
    """List everything that has left this site, oldest first.

    Each line was written before the bytes left.  The file shows any change to it; --verify also
    asks the server what it has of this site, and ends with status 1 if the two differ.

    \b
    Example:
      hansa site ledger
      hansa site ledger --csv left.csv
      hansa site ledger --verify
    """
    from hansa.site.settings import load_settings

    load_settings(folder)
    listed(folder, folder, csv_file, verify=verify, as_json=as_json)


def listed(
    folder: Path, membership: Path, csv_file: Path | None, *, verify: bool, as_json: bool
) -> None:
    """Print the ledger of a folder; exit with 1 if it differs from the server's receipts.

    Args:
      folder: has the ledger.
      membership: folder of the membership whose server keeps the receipts.
      csv_file: write it there, and print nothing of it.
      verify: compare it with the receipts.
      as_json: print one JSON object.
    """
    from hansa.site.ledger import LEDGER_FILE, Ledger
    from hansa.store.files import write_durably

    ledger = folder / LEDGER_FILE
    entries = list(Ledger(ledger).entries())
    rows = _rows(entries)
    differences = _verified(membership, entries, ledger) if verify else None
    if csv_file is not None:
        write_durably(csv_file, [_csv(rows).encode()])
    if as_json:
        found = None if differences is None else [d._asdict() for d in differences]
        print_json({"entries": rows, "differences": found})
    elif csv_file is not None:
        click.echo(f"{len(rows):,} entries are written to {csv_file}.")
    else:
        _print(rows, "site" if membership == folder else "combiner")
    if differences is not None and not as_json:
        for found_one in differences:
            what, run, number, digest = found_one
            click.echo(f"{run}, round {number}, {digest}: {what}", err=True)
        same = "This ledger and the server's receipts agree."
        count = f"{len(differences)} difference{'s' * (len(differences) != 1)}."
        click.echo(count if differences else same)
    if differences:
        raise click.exceptions.Exit(1)


def _rows(entries: Iterable[Any]) -> list[dict[str, Any]]:
    """Return a row an entry, with the receipts beside what they confirm."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in entries:
        if entry.kind == "receipt":
            if entry.of in rows:
                rows[entry.of]["receipt"] = True
            continue
        rows[entry.seq] = {
            "when": entry.at,
            "run": entry.run,
            "round": entry.round,
            "what": entry.kind,
            "tensors": [[name, dtype, shape] for name, dtype, shape in entry.tensors],
            "detail": entry.detail,
            "size": entry.size,
            "digest": entry.digest,
            "receipt": False,
        }
    return list(rows.values())


def _tensors(row: dict[str, Any]) -> str:
    shown = [f"{n} {d}{s}" for n, d, s in row["tensors"][:3]]
    if more := len(row["tensors"]) - len(shown):
        shown.append(f"and {more} more")
    return "; ".join([*shown, *filter(None, [row["detail"]])])


def _print(rows: list[dict[str, Any]], whose: str) -> None:
    from hansa.table import Table
    from hansa.web.words import byte_size

    if not rows:
        click.echo(f"Nothing has left this {whose} yet.")
        return
    table = Table(
        {
            "when": row["when"],
            "run": row["run"] or None,
            "round": row["round"] or None,
            "what": row["what"],
            "tensors": _tensors(row) or None,
            "size": byte_size(row["size"]),
            "digest": row["digest"].removeprefix("blake3:")[:12] or None,
            "receipt": ("yes" if row["receipt"] else "no") if row["digest"] else None,
        }
        for row in rows
    )
    click.echo(str(table))
    kinds = {kind: [r for r in rows if r["what"] == kind] for kind in _in_order(rows)}
    told = ", ".join(
        f"{len(some):,} {kind} ({byte_size(sum(r['size'] for r in some))})"
        for kind, some in kinds.items()
    )
    click.echo(f"In all {byte_size(sum(r['size'] for r in rows))}: {told}")


def _in_order(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["what"] for row in rows))


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    names = ["when", "run", "round", "what", "tensors", "detail", "size", "digest", "receipt"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {**row, "tensors": "; ".join(f"{n} {d}{s}" for n, d, s in row["tensors"])}
        # A cell that begins so is a formula to a spreadsheet; these come from other people.
        writer.writerow(
            {k: f"'{v}" if str(v)[:1] in set("=+-@\t\r") else v for k, v in cells.items()}
        )
    return text.getvalue()


def _verified(folder: Path, entries: list[Any], ledger: Path) -> list[Any]:
    """Return what differs from the server's receipts, forged ones among them.

    An agent may be at work: the server may know what left after the ledger was read, and the
    ledger has receipts by now that the server gave after it was asked.
    """
    from hansa.identity import load_membership
    from hansa.site.ledger import Ledger, compare
    from hansa.site.receipts import fetch_receipts, forged

    membership = load_membership(folder)
    receipts = fetch_receipts(membership)
    confirmed = [entry for entry in entries if entry.receipt is not None]
    left = [entry for entry in Ledger(ledger).entries() if entry.receipt is None]
    kept = [entry.receipt for entry in confirmed]
    return compare([*left, *confirmed], receipts) + forged([*receipts, *kept], membership)
