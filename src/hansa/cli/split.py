"""`hansa split`: a data set divided among clients, as files and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hansa.cli.options import json_option, print_json


@click.command()
@click.argument("data")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("data"),
              show_default=True, help="Folder to write.")  # fmt: skip
@click.option(
    "--scheme",
    type=click.Choice(["iid", "dirichlet", "labels", "biased", "quantity", "natural", "files"]),
    default="iid",
    show_default=True,
    help="Who gets what.",
)
@click.option("--clients", type=click.IntRange(1), help="Number of clients.  [default: 3]")
@click.option("--alpha", type=float, help="Of dirichlet: small is uneven.  [default: 0.5]")
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Other options of a scheme."
)
@click.option("--validation", type=float, default=0.2, show_default=True, help="Share kept apart.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same split.")
@click.option("--target", help="Column of a CSV file that is to be predicted.")
@click.option("--group", help="Column of a CSV file that says whose row it is (natural).")
@json_option
def command(
    data: str,
    output: Path,
    scheme: str,
    clients: int | None,
    alpha: float | None,
    sets: tuple[str, ...],
    validation: float,
    seed: int,
    target: str | None,
    group: str | None,
    as_json: bool,
) -> None:
    """Divide DATA among clients: each gets a folder with train.npz and valid.npz.

    DATA is digits, breast_cancer, mnist5k, mnist, or a .csv, .npz or folder.  The folder also
    gets split.json and split.svg, a picture of who holds which labels.

    \b
    Examples:
      hansa split digits --scheme dirichlet --alpha 0.1 --clients 10
      hansa split cases.csv --target outcome --scheme natural --group hospital
    """
    from hansa.data import load, partition, write_split
    from hansa.data.schemes import scheme_of
    from hansa.plan.load import parse_set
    from hansa.runs.record import relative
    from hansa.seeds import Key
    from hansa.store.files import write_durably
    from hansa.table import Table
    from hansa.web.pictures import partition_picture

    options: dict[str, Any] = {"scheme": scheme} | dict(parse_set(text) for text in sets)
    scheme = str(options["scheme"])
    if scheme not in ("natural", "files"):
        options.setdefault("clients", 3)
    elif clients is not None:
        raise click.UsageError(f"--clients does not go with --scheme {scheme}: the data decides.")
    given = {"clients": clients, "alpha": alpha}
    chosen = scheme_of(options | {key: it for key, it in given.items() if it is not None})
    dataset = load(data, target=target, group=group)
    key = Key.root(seed).child("data")
    parts = partition(chosen, dataset, key.child("split"))
    summary = write_split(dataset, parts, output, validation=validation, key=key, seed=seed)
    classes = list(summary.classes or ())
    picture = partition_picture(scheme, list(summary.clients), classes, summary.counts.tolist())
    write_durably(output / "split.svg", [picture.encode()])
    table = Table(
        {"client": name, "train": int(t), "valid": int(v)}
        | (dict(zip(classes, map(int, row), strict=True)) if classes else {})
        for name, t, v, row in zip(
            summary.clients, summary.train, summary.valid, summary.counts, strict=True
        )
    )
    if as_json:
        print_json({"folder": str(output), "clients": table})
        return
    click.echo(str(Table(table[:40])))
    if len(table) > 40:
        click.echo(f"... and {len(table) - 40} more clients")
    done = "is already there, unchanged" if summary.unchanged else "is written"
    click.echo(
        f"The split of {dataset.examples:,} examples {done}: {relative(output)}\n"
        f"Picture: {relative(output / 'split.svg')}\n"
        f'In a plan: set = "{output.as_posix()}", split = {{ scheme = "files" }}'
    )
