"""The commands of `hansa models`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hansa.cli.options import json_option, on_option, print_json, runs_option

if TYPE_CHECKING:
    from hansa.params import Params
    from hansa.protocol.messages import ModelFacts
    from hansa.runs.trail import Trail

_model = click.argument("model")
_on = on_option("Ask this federation's server; runs then have their names there.")


@click.command()
@click.argument("run", required=False)
@_on
@runs_option
@json_option
def ls(run: str | None, on: str | None, runs: Path, as_json: bool) -> None:
    """List the models of a run, or of all runs, in the order in which they were made.

    \b
    Examples:
      hansa models ls
      hansa models ls digits-1
      hansa models ls --on hansa.example.org
    """
    trail = _trail(on, runs)
    _tell(trail, trail.models if run is None else trail.of_run(run), as_json=as_json)


@click.command()
@_model
@_on
@runs_option
@json_option
def ancestors(model: str, on: str | None, runs: Path, as_json: bool) -> None:
    """List what MODEL was made from, the nearest first, across runs.

    MODEL is RUN for its last model, RUN:ROUND, RUN:best, or a digest.

    \b
    Example:
      hansa models ancestors digits-2:5
    """
    trail = _trail(on, runs)
    _tell(trail, trail.ancestors(trail.find(model)), as_json=as_json)


@click.command()
@_model
@_on
@runs_option
@json_option
def descendants(model: str, on: str | None, runs: Path, as_json: bool) -> None:
    """List what was made from MODEL, in its own run and in runs that began from it.

    \b
    Example:
      hansa models descendants digits-1:3
    """
    trail = _trail(on, runs)
    _tell(trail, trail.descendants(trail.find(model)), as_json=as_json)


@click.command()
@_on
@runs_option
@json_option
def leaves(on: str | None, runs: Path, as_json: bool) -> None:
    """List the models that nothing was made from: where each line of the trail ends.

    \b
    Example:
      hansa models leaves
    """
    trail = _trail(on, runs)
    _tell(trail, trail.leaves(), as_json=as_json)


@click.command()
@_model
@_on
@runs_option
@json_option
def show(model: str, on: str | None, runs: Path, as_json: bool) -> None:
    """Show one model: its tensors with their range, its parent, and what it reached.

    \b
    Examples:
      hansa models show digits-1
      hansa models show digits-1:best --on hansa.example.org
    """
    from hansa.table import Table
    from hansa.text import clean

    trail = _trail(on, runs)
    found = trail.find(model)
    tensors = _tensors(_params(found, on, runs)) if found.kept else []
    record = _record(trail, found)
    if as_json:
        print_json({**record, "tensors": [_sound(row) for row in tensors]})
        return
    for key, value in record.items():
        if value not in (None, ""):
            click.echo(f"{key:<9}{clean(value, 120)}")
    if found.kept:
        click.echo(str(Table(tensors)))
    else:
        click.echo("Its tensors were not kept; the plan's keep.every says which rounds' are.")


def _trail(on: str | None, runs: Path) -> Trail:
    if on is None:
        from hansa.runs.trail import local_trail

        return local_trail(runs)
    from hansa.remote.connecting import connected, membership_at
    from hansa.remote.trail import server_trail

    with connected(membership_at(on)) as connection:
        return server_trail(connection)


def _params(model: ModelFacts, on: str | None, runs: Path) -> Params:
    from hansa.store.files import load_params

    if on is None:
        from hansa.runs import find_run
        from hansa.runs.start import kept_file

        return load_params(kept_file(find_run(runs, model.run), model.round))
    import tempfile

    from hansa.remote.connecting import connected, membership_at
    from hansa.remote.trail import fetch_model

    with connected(membership_at(on)) as connection, tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.safetensors"
        fetch_model(connection, model, path)
        return load_params(path).copy()


def _tensors(params: Params) -> list[dict[str, Any]]:
    import numpy as np

    numbers: dict[str, Callable[[Any], Any]] = {
        "least": np.min, "most": np.max, "mean": np.mean, "norm": np.linalg.norm,
    }  # fmt: skip
    rows = []
    for spec in params.layout.specs:
        values = np.ravel(np.asarray(params[spec.name], np.float64))
        with np.errstate(invalid="ignore"):  # a mask has infinities of both signs
            facts = {name: float(of(values)) for name, of in numbers.items()} if values.size else {}
        rows.append(
            {"tensor": spec.name, "dtype": spec.dtype, "shape": str(list(spec.shape)), **facts}
        )
    return rows


def _sound(row: dict[str, Any]) -> dict[str, Any]:
    """Return facts as JSON can hold them: what is no finite number is null."""
    odd = {name for name, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    return {name: None if name in odd else value for name, value in row.items()}


def _tell(trail: Trail, models: Sequence[ModelFacts], *, as_json: bool) -> None:
    from hansa.table import Table

    rows = [_record(trail, model) for model in models]
    if as_json:
        print_json(rows)
    elif rows:
        click.echo(str(Table({**row, "digest": row["digest"][7:19]} for row in rows)))
    else:
        click.echo("No models.")


def _record(trail: Trail, model: ModelFacts) -> dict[str, Any]:
    parent = trail.parent(model)
    return {
        "model": model.name,
        "parent": parent.name if parent is not None else model.origin or None,
        "clients": model.clients,
        "metric": model.metric,
        "value": model.value,
        "kept": "yes" if model.kept else "no",
        "at": model.at,
        "digest": model.digest,
    }
