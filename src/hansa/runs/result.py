"""What `hansa.run` returns: a run's metrics, model and pictures, for Python and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hansa.errors import RunError
from hansa.runs.folder import RunFolder
from hansa.runs.record import REPORT, run_record
from hansa.store.files import load_params
from hansa.table import Table

if TYPE_CHECKING:
    from hansa.params import Params


class Result:
    """A run that has ended.

    Args:
      folder: the run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._record = run_record(folder)

    @property
    def metrics(self) -> Table:
        """One row a round: round, seconds, bytes, and each metric's pooled mean and spread."""
        return metrics_table(self._record["rounds"])

    @property
    def cross_site(self) -> Table:
        """One row a model of cross-site evaluation: its value of the plan's metric by client."""
        return cross_site_table(self._record)

    @property
    def params(self) -> Params:
        """The final model's tensors by name."""
        return self.model()

    @property
    def digest(self) -> str:
        """The final model's digest."""
        digest: str = self._record["model_digest"]
        return digest

    def model(self, which: str | int = "final") -> Params:
        """Return a model of the trail: "final", "best", or a round that was kept.

        Raises:
          RunError: that model is not there.
        """
        return load_params(model_file(self.folder, str(which)))

    def plot(self) -> Any:
        """Return the run's curves, which a notebook shows."""
        from hansa.web.pictures import plot_record

        return plot_record(self._record)

    @property
    def report(self) -> Path:
        """Where the report page lies."""
        return self.folder.path / REPORT

    def __repr__(self) -> str:
        rows = self._record["rounds"]
        return f"Result({self.folder.name}: {self._record['state']}, {len(rows)} rounds)"


def model_file(folder: RunFolder, which: str = "final") -> Path:
    """Return the file of the final, the best, or a given round's model.

    Raises:
      RunError: no round was committed, nothing was best, or the round was not kept.
    """
    commits = folder.commits()
    if len(commits) < 2:
        raise RunError(
            "run-not-finished",
            f"The run {folder.name} has no trained model yet.",
            f"It {'failed' if folder.state == 'failed' else 'was stopped'}; see why with hansa "
            "show, and start another run."
            if folder.state in ("failed", "stopped")
            else f"Let it finish a round: hansa run --resume {folder.name}",
        )
    last = commits[-1]
    chosen: int | None = {
        "final": last["round"],
        "best": last["progress"]["best_round"] or None,
    }.get(which, int(which) if which.isdecimal() else None)
    path = folder.model_path(chosen or 0)
    if chosen is not None and not path.is_file():
        from hansa.runs.lineage import fetch_model

        fetch_model(folder, chosen)
    if chosen is None or not path.is_file():
        kept = sorted(
            int(p.stem.removeprefix("round-")) for p in folder.path.glob("models/*.safetensors")
        )
        hint = (
            f"It has: final, {'best, ' if last['progress']['best_round'] else ''}"
            f"and the rounds {', '.join(map(str, kept))}."
        )
        if folder.remote is not None and chosen in [e["round"] for e in folder.kept()]:
            hint = f"It is at the server; bring it here with: hansa run --resume {folder.name}"
        raise RunError("run-not-finished", f"The run {folder.name} has no model {which!r}.", hint)
    folder.check_model(chosen)
    return path


def metrics_table(rows: list[dict[str, Any]]) -> Table:
    """Return a record's rounds as a flat table."""
    table = Table()
    for row in rows:
        flat: dict[str, Any] = {"round": row["round"], "seconds": round(row["seconds"], 3)}
        flat |= row["clients"] | {f"bytes_{way}": n for way, n in row["bytes"].items()}
        for part in ("train", "validation", "test"):
            for metric, summary in row.get(part, {}).items():
                flat[f"{part}_{metric}"] = summary["mean"]
                if part == "validation":
                    flat |= {f"{metric}_{name}": summary[name] for name in ("min", "max")}
        table.append(flat)
    return table


def validation_table(run: str, rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return what each client measured of each model: a row for each of both.

    Args:
      run: name.
      rows: of committed rounds, or what a record has of them.
    """
    table = Table()
    for row in rows:
        by_client: dict[str, dict[str, Any]] = {}
        for metric, summary in row.get("validation", {}).items():
            for client, value in summary["by_client"].items():
                by_client.setdefault(client, {})[metric] = value
        for client, report in row.get("reports", {}).items():
            by_client.setdefault(client, {})["report"] = report
        model = f"{run}:{row.get('round', 0)}"
        table += [{"model": model, "client": c, **found} for c, found in sorted(by_client.items())]
    return table


def cross_site_table(record: dict[str, Any]) -> Table:
    """Return a record's cross-site evaluation: the metric that the run is judged by, or another."""
    found = record["cross_site"]
    if found is None or not found["metrics"]:
        return Table()
    judged, measured = record["plan"]["stop"]["metric"], found["metrics"]
    values = measured[judged if judged in measured else next(iter(measured))]
    return Table(
        {"model": model, **dict(zip(found["clients"], row, strict=True))}
        for model, row in zip(found["models"], values, strict=True)
    )
