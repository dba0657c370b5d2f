"""What a deployed federation costs: rounds, transfers, restarts; real processes, TLS on loopback.

Each function measures one thing and returns the lines of the table and all its figures.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import bare, deployed, projects
from benchmarks.measure import HANSA, Row
from hansa.dev import Rehearsal

MILLION = 1_000_000
WARM = 5  # rounds that do not count: processes start in them, and files are not yet written over


class Figures(NamedTuple):
    """What a benchmark has found."""

    rows: list[Row]
    values: dict[str, Any]


class Settings(NamedTuple):
    """How large the benchmarks are; the defaults are those of the budgets."""

    size: int = 0  # parameters of the model; 0: each benchmark's own
    rounds: int = 0
    sites: tuple[int, ...] = ()
    peers: Path | None = None  # an environment that has Flower


def noop(folder: Path, settings: Settings) -> Figures:
    """Measure a warm round whose work is nothing, beside the same bytes moved bare."""
    size, rounds = settings.size or MILLION, settings.rounds or 60
    project = projects.write(folder / "noop", clients=2, rounds=rounds + WARM, size=size)
    ours: list[float] = []
    plain: list[float] = []
    for turn in range(2):
        with Rehearsal(folder / f"noop-{turn}", project) as rehearsal:
            run = rehearsal.submit()
            rehearsal.follow(run, seconds=300)
        ours += _gaps([event["elapsed"] for event in run.commits()])[WARM:-1]
        plain += bare.rounds(
            folder / f"bare-{turn}", clients=2, size=4 * size, rounds=rounds + WARM
        )[WARM:]
    found: dict[str, Any] = {"hansa": _spread(ours), "bare": _spread(plain)}
    told = f"{found['hansa']['median']:.1f} ms, p90 {found['hansa']['p90']:.1f} ms"
    told += f" (bare granian + http.client: {found['bare']['median']:.1f} ms)"
    if settings.peers is not None:
        from benchmarks import flower_deployed

        place = folder / "flower"
        place.mkdir()
        theirs = flower_deployed.rounds(settings.peers, place, clients=2, rounds=12, size=size)
        found["flower"] = theirs
        told += f"; Flower {theirs['version']}: {theirs['median_ms']:.0f} ms"
    what = f"warm no-op round, 2 sites, {size:,} float32, durable, TLS"
    return Figures([Row(what, "<= 50 ms", told, found["hansa"]["median"] <= 50)], found)


def dev(folder: Path, settings: Settings) -> Figures:
    """Measure from `hansa dev --sites 2` to the first finished round of a fresh project."""
    subprocess.run([HANSA, "init", "study", "--template", "numpy"], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    project, times, turns = folder / "study", [], 3
    for _ in range(turns):
        shutil.rmtree(project / "runs", ignore_errors=True)
        began = time.monotonic()
        with (folder / "dev.log").open("wb") as log:
            process = subprocess.Popen(
                [HANSA, "dev", "--sites", "2", "--rounds", "2"],
                cwd=project,
                stdout=log,
                stderr=log,
            )
        try:
            until(lambda p=process: _round_done(project / "runs", 1) or p.poll(), 60)
            times.append(time.monotonic() - began)
            if process.wait(60):
                raise RuntimeError((folder / "dev.log").read_text()[-2000:])
        finally:
            process.kill()
    told = f"{statistics.median(times):.1f} s"
    what = "`hansa dev --sites 2` to the first finished round"
    holds = statistics.median(times) <= 10
    return Figures([Row(what, "<= 10 s", told, holds)], {"seconds": times})


def big(folder: Path, settings: Settings) -> Figures:
    """Measure a large model's way to the sites and back, beside the same bytes moved bare."""
    size, rounds = settings.size or 25 * MILLION, settings.rounds or 8
    cohorts = settings.sites or (4, 8, 16)
    bytes_, main = 4 * size, cohorts[len(cohorts) // 2]
    found: dict[str, Any] = {"model_mb": bytes_ / 1e6}
    for sites in cohorts:
        place = folder / f"big-{sites}"
        found[str(sites)] = _moved(place, sites=sites, rounds=rounds, size=size)
        shutil.rmtree(place)
        if sites == main:
            for key, kept in {"bare_ms": False, "bare_kept_ms": True}.items():
                plain = bare.rounds(
                    folder / f"big-{key}",
                    clients=sites,
                    size=bytes_,
                    rounds=rounds + WARM,
                    kept=kept,
                )
                found[key] = statistics.median(plain[WARM - 1 :])
                shutil.rmtree(folder / f"big-{key}")
    mine, plain_ms, kept_ms = found[str(main)], found["bare_ms"], found["bare_kept_ms"]
    ratio = mine["transfer_ms"] / plain_ms
    told = f"{mine['transfer_ms'] / 1e3:.2f} s, bare {plain_ms / 1e3:.2f} s ({ratio:.2f}x); "
    told += f"{mine['round_ms'] / 1e3:.2f} s from commit to commit; "
    told += f"bare, hashed and written to files: {kept_ms / 1e3:.2f} s"
    peaks = [found[str(s)]["anonymous_models"] for s in cohorts]
    memory = ", ".join(f"{s}: {p:.1f}" for s, p in zip(cohorts, peaks, strict=True))
    resident = max(found[str(s)]["resident_models"] for s in cohorts)
    what = f"{bytes_ / 1e6:.0f} MB model"
    return Figures(
        [
            Row(f"{what} to {main} sites and back", "<= 1.5x bare", told, ratio <= 1.5),
            Row(
                f"{what}: the server's peak memory in models, by sites",
                "<= 4, flat",
                f"{memory} (with mapped files {resident:.1f} at most)",
                max(peaks) <= 4,
            ),
        ],
        found,
    )


def _moved(folder: Path, *, sites: int, rounds: int, size: int) -> dict[str, Any]:
    """Run rounds with stand-in sites; return times and the server's memory, in models."""
    folder.mkdir()
    project = projects.write(folder / "project", clients=sites, rounds=rounds + WARM, size=size)
    with (
        deployed.server(folder / "all", project, sites=sites) as rehearsal,
        deployed.stand_ins(rehearsal, sites=sites, size=size) as started,
        deployed.Watch(deployed.pid_of(rehearsal)) as watch,
    ):
        run = rehearsal.submit()
        rehearsal.follow(run, seconds=500)
        by_round = deployed.told(started)
    if run.state != "finished":
        raise RuntimeError(f"the run is {run.state}: {run.log.events[-3:]}")
    through = [
        max(t[3] for t in times) - min(t[0] for t in times)
        for number, times in sorted(by_round.items())
    ]
    down = [statistics.mean(t[1] - t[0] for t in times) for _, times in sorted(by_round.items())]
    up = [statistics.mean(t[2] - t[1] for t in times) for _, times in sorted(by_round.items())]
    last = [statistics.mean(t[3] - t[2] for t in times) for _, times in sorted(by_round.items())]
    model = 4 * size / 1e6
    return {
        "transfer_ms": 1e3 * statistics.median(through[WARM:]),
        "round_ms": statistics.median(_gaps([e["elapsed"] for e in run.commits()])[WARM:]),
        "down_ms": 1e3 * statistics.median(down[WARM:]),
        "up_ms": 1e3 * statistics.median(up[WARM:]),
        "report_ms": 1e3 * statistics.median(last[WARM:]),
        "anonymous_models": (watch.peak.anonymous - watch.before.anonymous) / model,
        "anonymous_mb": watch.peak.anonymous,
        "resident_models": watch.peak.resident / model,
    }


def tail(folder: Path, settings: Settings) -> Figures:
    """Measure what is left to do when the last update comes, with few sites and with many."""
    size, cohorts = settings.size or 10 * MILLION, settings.sites or (10, 50, 200)
    found: dict[str, Any] = {}
    for sites in cohorts:
        tries = [_tail(folder / f"tail-{sites}-{n}", sites=sites, size=size) for n in range(5)]
        # The machine only ever adds time; the budget is about growth with the number of sites.
        found[str(sites)] = {key: min(t[key] for t in tries) for key in tries[0]}
        found[str(sites)]["anonymous_mb"] = max(t["anonymous_mb"] for t in tries)
    ends = [found[str(s)]["from_arrival_ms"] for s in cohorts]
    ratio = ends[-1] / ends[0]
    told = ", ".join(f"{s}: {ms:.0f}" for s, ms in zip(cohorts, ends, strict=True))
    mb = found[str(cohorts[-1])]["anonymous_mb"]
    return Figures(
        [
            Row(
                f"tail after the last update's arrival, by sites, {4 * size / 1e6:.0f} MB each",
                "flat, +-20%",
                f"{told} ms ({ratio:.2f}x)",
                0.8 <= ratio <= 1.2,
            ),
            Row(
                f"memory for {cohorts[-1]} updates of {4 * size / 1e6:.0f} MB",
                "<= 4 models",
                f"{mb:.0f} MB ({mb / (4 * size / 1e6):.1f} models)",
                mb <= 4 * 4 * size / 1e6,
            ),
        ],
        found,
    )


def _tail(folder: Path, *, sites: int, size: int) -> dict[str, float]:
    """Fold the updates of all sites through one exchange, as the server's handlers do."""
    from benchmarks.exchanges import opened

    with opened(folder, sites=sites, size=size) as (exchange, results):
        names = sorted(results)
        with deployed.Watch(os.getpid()) as watch:
            began = time.monotonic()
            with ThreadPoolExecutor(8) as handlers:
                taken = [handlers.submit(exchange.answer, n, results[n]) for n in names[:-1]]
            for one in taken:
                one.result()  # raises what it has raised
            folded = time.monotonic()
            waiting = threading.Thread(target=exchange.wait)
            waiting.start()
            arrived = time.monotonic()
            exchange.answer(names[-1], results[names[-1]])
            receipt = time.monotonic()
            waiting.join()
            assert exchange.finish() is not None
            ended = time.monotonic()
    return {
        "from_arrival_ms": 1e3 * (ended - arrived),
        "from_receipt_ms": 1e3 * (ended - receipt),
        "each_ms": 1e3 * (folded - began) / (sites - 1),
        "anonymous_mb": watch.peak.anonymous - watch.before.anonymous,
    }


def _round_done(runs: Path, number: int) -> bool:
    """Tell whether some run's log has the commit of a round."""
    wanted = (f'"round":{number},', f'"round": {number},')
    for log in runs.glob("*/events.jsonl"):
        lines = log.read_text().splitlines()
        if any('"committed"' in line and any(w in line for w in wanted) for line in lines):
            return True
    return False


def until(holds: Callable[[], object], seconds: float) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError("it takes too long")
        time.sleep(0.01)


def _gaps(seconds: Sequence[float]) -> list[float]:
    """Return milliseconds between neighbours."""
    return [1e3 * (b - a) for a, b in itertools.pairwise(seconds)]


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = np.sort(values)
    median, p90 = np.quantile(ordered, [0.5, 0.9])
    return {"median": float(median), "p90": float(p90), "least": float(ordered[0])}
