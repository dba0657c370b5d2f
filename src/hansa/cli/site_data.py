"""`hansa site data`: data declared by name; looking at it sends nothing anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hansa.cli.options import json_option, print_json
from hansa.cli.site import folder_option

if TYPE_CHECKING:
    from hansa.site.settings import DataSource


_NO_ROWS = ("data-missing", "data-bad-file")
"""Codes of data that are there and have no form that Hansa reads."""


@click.group()
def command() -> None:
    """Declare data by name, and look at what is declared."""


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--as", "name", required=True, metavar="NAME", help="Name that plans ask for.")
@click.option("--target", help="Column of a CSV file that is to be predicted.")
@click.option("--group", help="Column of a CSV file that says whose row it is.")
@click.option(
    "--classes",
    metavar="A,B,...",
    help="Names of all classes where labels are text, in the order of the plan or by name.",
)
@click.option("--unread", is_flag=True, help="Only a run's own code reads it; any file or folder.")
@folder_option
@json_option
def add(
    path: Path,
    name: str,
    target: str | None,
    group: str | None,
    classes: str | None,
    unread: bool,
    folder: Path,
    as_json: bool,
) -> None:
    """Declare the data at PATH under a name.

    It is read once, to see that a run could use it, and is not copied or sent.  A running agent
    knows it at once.

    \b
    Examples:
      hansa site data add ./cohort.csv --as chest-xray --target finding
      hansa site data add ./scans --as scans --unread
    """
    from hansa.errors import SiteError
    from hansa.site.settings import (
        DATA_NAME,
        SITE_FILE,
        UNCHANGED,
        DataSource,
        data_lines,
        load_settings,
        parse_settings,
    )
    from hansa.store.files import write_durably

    if unread and (target or group or classes):
        raise click.UsageError("--target, --group and --classes are of a table that Hansa reads.")
    if not DATA_NAME.match(name):
        raise SiteError(
            "site-settings",
            f"--as {name[:80]!r}: that is no name. Nothing was changed.",
            "It has up to 64 letters, digits, . _ - and begins with a letter or a digit.",
        )
    settings = load_settings(folder)
    if name in settings.data:
        raise SiteError(
            "site-settings",
            f"{folder / SITE_FILE} declares the data {name!r} already. Nothing was changed.",
            f"Choose another name, or edit [data.{name}] there.",
        )
    names = tuple(word.strip() for word in classes.split(",")) if classes else ()
    source = DataSource(path=_as_written(path, folder), target=target, group=group, classes=names)
    file = folder / SITE_FILE
    text = file.read_text(encoding="utf-8-sig").rstrip("\n") + "\n\n"
    text += "\n".join(data_lines(name, source)) + "\n"
    parse_settings(text, origin=str(file), consequence=UNCHANGED)
    facts = _unread(name, source, folder) if unread else _rows_of(name, source, folder)
    if not unread:
        _check_labels(source, folder)
    write_durably(file, [text.encode()])
    if as_json:
        print_json(facts)
        return
    _print([facts])
    click.echo(f"Declared in {file}; nothing was copied or sent.")


def _rows_of(name: str, source: Any, folder: Path) -> dict[str, Any]:
    """Return what may be told of data that are to be declared.

    Raises:
      DataError: they are no rows that Hansa reads; the hint says how a run's own code gets them.
    """
    from hansa.errors import DataError

    try:
        return _looked_at(name, source, folder)
    except DataError as error:
        if not (folder / source.path).exists():
            raise
        own = "For data that a run's own code reads, add: --unread"
        raise DataError(error.code, error.happened, f"{error.hint} {own}") from None


def _unread(name: str, source: DataSource, folder: Path) -> dict[str, Any]:
    """Return what is told of data that Hansa does not look into.

    Raises:
      DataError: data-missing, there is nothing at the path.
    """
    from hansa.errors import DataError

    path = (folder / source.path).resolve()
    if not path.exists():
        raise DataError("data-missing", f"There is no file or folder {path}.", "Correct the path.")
    what = "folder" if path.is_dir() else "file"
    told = f"a {what} that a run's own code reads"
    facts: dict[str, Any] = dict.fromkeys(("name", "path", "rows", "valid", "x", "classes", "hash"))
    return facts | {"name": name, "path": source.path, "x": told}


def _as_written(path: Path, folder: Path) -> str:
    """Return a path as site.toml takes it: relative to the site's folder, where it lies in it."""
    whole, home = path.resolve(), folder.resolve()
    return (whole.relative_to(home) if whole.is_relative_to(home) else whole).as_posix()


@command.command(name="ls")
@folder_option
@json_option
def list_(folder: Path, as_json: bool) -> None:
    """List declared data: rows, shape, classes and a hash; nothing is sent.

    The exit status is 1 if some of it cannot be read.

    \b
    Example:
      hansa site data ls
    """
    from hansa.errors import DataError
    from hansa.site.settings import load_settings

    found = []
    for name, source in load_settings(folder).data.items():
        try:
            found.append(_looked_at(name, source, folder))
        except DataError as error:
            plain = not (source.target or source.group or source.classes)
            if plain and error.code in _NO_ROWS and (folder / source.path).exists():
                found.append(_unread(name, source, folder))
            else:
                found.append({"name": name, "path": source.path, "error": error.happened})
    if as_json:
        print_json(found)
    elif found:
        _print(found)
    else:
        click.echo("No data is declared. Declare some with: hansa site data add PATH --as NAME")
    if any("error" in facts for facts in found):
        raise click.exceptions.Exit(1)


def _check_labels(source: DataSource, folder: Path) -> None:
    """Refuse data whose labels no run could use; it would be found out only when one is refused.

    Raises:
      DataError: data-labels, and all that reading it raises.
    """
    from hansa.data.folders import load_own
    from hansa.errors import DataError

    path = (folder / source.path).resolve()
    parts = [path / "train.npz", path / "valid.npz"] if path.is_dir() else [path]
    for part in (p for p in parts if p == parts[0] or p.is_file()):
        try:
            load_own(
                part,
                target=source.target,
                group=source.group,
                classes=source.classes or None,
            )
        except DataError as error:
            if error.code != "data-labels":
                raise
            raise DataError(
                "data-labels",
                f"{error.happened} No run could use them, so nothing was declared.",
                "Name all classes, in the order of the plan's data.classes or else in alphabetical "
                "order: --classes negative,positive. Or number them from 0 in the file.",
            ) from None


def _looked_at(name: str, source: Any, folder: Path) -> dict[str, Any]:
    """Return what may be told of data without telling the data.

    Raises:
      DataError: it cannot be read.
    """
    from blake3 import blake3

    from hansa.data import load
    from hansa.data.folders import load_own

    path, held = (folder / source.path).resolve(), None
    if path.is_dir():  # of one client, as `hansa split` writes it
        held = load(path / "valid.npz") if (path / "valid.npz").is_file() else None
        path = path / "train.npz"
    if source.classes:
        data = load_own(path, target=source.target, group=source.group, classes=source.classes)
    else:
        data = load(path, target=source.target, group=source.group)
    hasher = blake3()
    for part in (data, held):
        for array in (part.x, part.y) if part is not None else ():
            hasher.update(f"{array.dtype.str}{array.shape}".encode())
            hasher.update(array.tobytes())
    return {
        "name": name,
        "path": source.path,
        "rows": data.examples,
        "valid": held.examples if held is not None else None,
        "x": f"{data.x.dtype.name} {list(data.x.shape[1:])}",
        "classes": len(data.classes) if data.classes is not None else None,
        "hash": hasher.hexdigest()[:12],
    }


def _print(found: list[dict[str, Any]]) -> None:
    from hansa.table import Table
    from hansa.text import ERROR_CHARS, clean

    if table := Table(row for row in found if "error" not in row):
        click.echo(str(table))
    for row in found:
        if "error" in row:
            click.echo(f"{clean(row['name'])}: {clean(row['error'], ERROR_CHARS)}", err=True)
