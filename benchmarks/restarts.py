"""A server killed with `kill -9` and started again, over a long log; a site that dies."""

from __future__ import annotations

import contextlib
import http.client
import sqlite3
import ssl
import time
from pathlib import Path

from benchmarks import projects
from benchmarks.federation import Figures, Settings, until
from benchmarks.measure import Row
from hansa.dev import SERVER, Rehearsal

KILLED_AT = (
    "after_round_opened",
    "before_update_recorded",
    "after_update_recorded",
    "after_update_folded",
    "before_model_written",
    "after_round_committed",
)


def restart(folder: Path, settings: Settings) -> Figures:
    """Kill the server at failpoints over a long log; then kill a site and wait for the news."""
    wanted = settings.rounds or 10_000  # events
    project = projects.write(folder / "restart", clients=2, rounds=100_000, size=1_000)
    sets = ["evaluate.clients=0", "cohort.minimum=2"]
    ready, resumed = [], []
    with Rehearsal(folder / "restarted", project, sets=sets) as rehearsal:
        database = folder / "restarted" / SERVER / "hansa.db"
        child = rehearsal.children[SERVER]
        rehearsal.submit()
        until(lambda: _count(database) >= wanted, 300)
        rehearsal.kill(SERVER)
        for point in KILLED_AT:
            events, commits = _count(database), _count(database, "committed")
            began = time.monotonic()
            child.start(failpoint=f"{point}:20")
            until(lambda: _is_ready(rehearsal), 30)
            ready.append(time.monotonic() - began)
            until(lambda n=commits: _count(database, "committed") > n, 30)
            resumed.append(time.monotonic() - began)
            if child.wait(60) != -9:
                raise RuntimeError(child.tail())
        rehearsal.start(SERVER)
        rehearsal.wait_for(*rehearsal.names)
        began = time.monotonic()
        rehearsal.kill(rehearsal.names[1])
        rehearsal.wait_for(rehearsal.names[1], state="silent")
        noticed = time.monotonic() - began
    told = f"{max(ready):.2f} s to ready, {max(resumed):.2f} s to the next commit, at most"
    return Figures(
        [
            Row(
                f"server killed at {len(KILLED_AT)} failpoints, {events:,} events: back",
                "<= 2 s",
                told,
                max(resumed) <= 2,
            ),
            Row("a killed site is noticed", "<= 10 s", f"{noticed:.2f} s", noticed <= 10),
        ],
        {"ready": ready, "resumed": resumed, "noticed": noticed, "events": events},
    )


def _count(database: Path, kind: str = "") -> int:
    """Return how many events a server's database has."""
    where = " where kind = ?" if kind else ""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        query = f"select count(*) from events{where}"
        return int(opened.execute(query, (kind,) if kind else ()).fetchone()[0])


def _is_ready(rehearsal: Rehearsal) -> bool:
    context = ssl.create_default_context(cadata=rehearsal.membership.authority_pem)
    connection = http.client.HTTPSConnection("localhost", rehearsal.port, context=context)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
