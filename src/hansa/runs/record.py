"""A run folder as one plain record: what `hansa show --json` prints and the report page draws."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hansa.runs.events import whole
from hansa.runs.folder import RunFolder
from hansa.runs.timing import page_record
from hansa.store.files import write_durably

REPORT = "report.html"


def run_record(folder: RunFolder) -> dict[str, Any]:
    """Return all that is known of a run, as JSON data."""
    about = folder.about
    plan = {**folder.plan(), **_beyond_the_plan(folder)}
    commits = folder.commits()
    events = folder.log.events
    ended = folder.log.last("ended")
    at_work = ended is None and folder.is_locked()
    # Its server works on it.
    away = (folder.remote or {}).get("run") is not None and not folder.rehearsed
    progress = commits[-1]["progress"] if commits else {}
    best = None
    if progress.get("best") is not None:
        best = {
            "round": progress["best_round"],
            "metric": plan["stop"]["metric"],
            "value": progress["best"],
        }
    return {
        "run": folder.name,
        "state": ended["state"] if ended else "running" if at_work or away else "stopped",
        "reason": ended["reason"] if ended else _unfinished(folder, at_work),
        "final": ended is not None,
        "started": about["created"],
        "seconds": commits[-1]["elapsed"] if commits else 0.0,
        "plan": plan,
        "plan_digest": about["identity"],
        "sources": folder.plan_sources(),
        "environment": folder.environment(),
        "engine": about["engine"],
        "model_digest": commits[-1]["model"] if commits else "",
        "best": best,
        "rounds": [
            {**whole(row), "digest": c["model"]}
            for c in commits
            if (row := c["row"]) and "cross_site" not in row
        ],
        "cross_site": _cross_site([c["row"] for c in commits]),
        "problems": _problems(events),
        "timing": page_record(folder),
        "partition": about["partition"],
        "baseline": _facts(folder.log.last("baseline")),
    }


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` anew and return its path."""
    from hansa.web.report import (
        render_report,  # templates are slow to import, and only this needs them
    )

    path = folder.path / REPORT
    write_durably(path, [render_report(run_record(folder)).encode()])
    return path


def _beyond_the_plan(folder: RunFolder) -> dict[str, str]:
    """Return digests of what else decides a result: code and data; runs differ if these do."""
    code = folder.about["code"] or f"made in Python, {folder.name}"
    return {"code": code[:19], "data_digest": (folder.about["data"] or "known to clients")[:19]}


def _unfinished(folder: RunFolder, at_work: bool) -> str:
    if folder.remote is not None:
        return _away(folder, folder.remote, at_work=at_work)
    return "still at work" if at_work else f"interrupted after round {len(folder.rows())}"


def _away(folder: RunFolder, remote: dict[str, Any], *, at_work: bool) -> str:
    if remote["run"] is None:
        return "not handed over to its server; the same command does it"
    place = f"{remote['run']} at {remote['url']}"
    if folder.rehearsed and not at_work:
        return f"the rehearsal ended after round {len(folder.rows())}, and its server with it"
    if at_work:
        return f"followed here: {place}"
    return f"when last seen; it is {place}; follow it with: hansa run --resume {folder.name}"


def _cross_site(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what each model was measured to be at each client, by metric; None without any."""
    found = [row["cross_site"] for row in rows if "cross_site" in row]
    if not found:
        return None
    measured = [of_model["metrics"] for of_model in found]
    metrics = sorted({metric for by in measured for metric in by})
    clients = sorted({client for by in measured for values in by.values() for client in values})
    return {
        "models": [of_model["model"] for of_model in found],
        "clients": clients,
        "metrics": {
            metric: [[by.get(metric, {}).get(client) for client in clients] for by in measured]
            for metric in metrics
        },
    }


def _problems(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return who dropped out; a round that was run again after a crash tells it once."""
    told: dict[tuple[Any, ...], dict[str, Any]] = {}
    for event in events:
        if event["kind"] == "problem":
            facts = {**event, "kind": event["what"]}
            told[event["round"], event["phase"], event["client"]] = facts
    return list(told.values())


def _facts(event: dict[str, Any] | None) -> dict[str, Any] | None:
    if event is None:
        return None
    return {k: v for k, v in event.items() if k not in ("kind", "at")}


def relative(path: Path) -> str:
    """Return a path as a person in this folder would type it."""
    try:
        return os.path.relpath(path)
    except ValueError:  # another drive
        return str(path)
