"""A run's spans as tables: where each round's time went, and each client's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from hansa.limits import SPANS_READ_BYTES
from hansa.runs.folder import RunFolder
from hansa.spans import Span


def timing_record(folder: RunFolder, *, most: int | None = None) -> list[dict[str, Any]]:
    """Return one entry a round: seconds of each part, and its tasks; `[]` of an older run.

    `train` and `evaluate` are the seconds of these exchanges, `between` what is in none of the
    parts: the server's own step, and its waiting for sites.
    """
    rounds: dict[int, list[Span]] = {}
    for span in folder.spans(most=most):
        rounds.setdefault(span["round"], []).append(span)
    return [_round(number, spans) for number, spans in rounds.items()]


def _round(number: int, spans: Sequence[Span]) -> dict[str, Any]:
    whole = next(s for s in spans if s["span"] == "round")
    parts = {
        "train": _seconds(s for s in spans if s.get("phase") == "train" and _is(s, "exchange")),
        "aggregate": _seconds(s for s in spans if _is(s, "aggregate")),
        "evaluate": _seconds(
            s for s in spans if s.get("phase") == "evaluate" and _is(s, "exchange")
        ),
        "save": _seconds(s for s in spans if _is(s, "save")),
    }
    between = max(0.0, whole["seconds"] - sum(parts.values()))
    return {
        "round": number,
        "at": whole["at"],
        "seconds": whole["seconds"],
        **parts,
        "between": round(between, 6),
        "tasks": [s for s in spans if _is(s, "task")],
    }


def page_record(folder: RunFolder) -> dict[str, Any]:
    """Return what the report page draws: seconds of each round's parts, and of each client.

    Of a long run the oldest rounds are left out.
    """
    entries = timing_record(folder, most=SPANS_READ_BYTES)
    work: dict[str, list[float]] = {}
    for entry in entries:
        for task in entry["tasks"]:
            if task["phase"] == "train" and "work_s" in task:
                work.setdefault(task["client"], []).append(task["work_s"])
    return {
        "rounds": [{k: v for k, v in entry.items() if k != "tasks"} for entry in entries],
        "work": {client: sum(times) / len(times) for client, times in sorted(work.items())},
    }


def round_cells(entry: dict[str, Any]) -> dict[str, str]:
    """Return one round's times as the columns of a table, in seconds."""
    trained = [t for t in entry["tasks"] if t["phase"] == "train" and "work_s" in t]
    slowest = max(trained, key=lambda task: task["work_s"], default=None)
    names = ("seconds", "train", "aggregate", "evaluate", "save", "between")
    return {
        "round": str(entry["round"]),
        **{name: f"{entry[name]:.3f}" for name in names},
        "work, median": f"{median(t['work_s'] for t in trained):.3f}" if trained else "",
        "slowest": f"{slowest['client']} {slowest['work_s']:.3f}" if slowest else "",
    }


def client_cells(entries: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return one row a client: means over its training tasks, the slowest client first."""
    found: dict[str, list[Span]] = {}
    for entry in entries:
        for task in entry["tasks"]:
            if task["phase"] == "train":
                found.setdefault(task["client"], []).append(task)
    rows = []
    for client, tasks in found.items():
        mean = {key: _mean(tasks, key) for key in _COLUMNS}
        cells = {name: _cell(mean[key]) for key, name in _COLUMNS.items()}
        done = sum(task.get("state") == "done" for task in tasks)
        rows.append(
            (mean["work_s"] or 0.0, {"client": client, "tasks": f"{done}/{len(tasks)}"} | cells)
        )
    return [cells for _, cells in sorted(rows, key=lambda row: (-row[0], row[1]["client"]))]


_COLUMNS = {
    "seconds": "seconds",
    "wait_s": "wait",
    "work_s": "work",
    "insert_s": "insert",
    "epochs": "epochs",
    "steps": "steps",
    "step_ms": "ms a step",
    "epoch_ms": "ms an epoch",
}
"""What a client's tasks say, and its column; seconds unless the name says otherwise."""


def _is(span: Span, name: str) -> bool:
    return bool(span["span"] == name)


def _seconds(spans: Iterable[Span]) -> float:
    return round(float(sum(span["seconds"] for span in spans)), 6)


def _mean(tasks: Sequence[Span], key: str) -> float | None:
    values = [task[key] for task in tasks if key in task]
    return sum(values) / len(values) if values else None


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
