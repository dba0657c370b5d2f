"""Many sites at one server: all at once, and idle for a while."""

from __future__ import annotations

import base64
import ipaddress
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert

from benchmarks import deployed, projects
from benchmarks.federation import Figures, Settings
from benchmarks.measure import Row
from hansa.clock import now
from hansa.dev import SERVER, Rehearsal
from hansa.identity import MemberKey, load_authority, to_text
from hansa.store import tables
from hansa.store.database import open_database

PROCESSES = 2
IDLE_S, RAMP_S = 40.0, 40.0
LEAD_S = 6.0  # for the processes of the crowd to be there before all begin


def storm(folder: Path, settings: Settings) -> Figures:
    """Let a thousand sites connect at the same moment."""
    count = (settings.sites or (1_000,))[0]
    found = _crowd(folder / "storm", count)
    found["one address"] = _crowd(folder / "one", count, one_address=True)
    told = f"all {found['served']} in {found['last_s']:.1f} s, p99 {found['p99_s']:.1f} s, "
    told += f"{found['failed']} answers of 500 and above or broken connections"
    holds = found["last_s"] <= 30 and found["failed"] == 0 and found["served"] == count
    what = f"{count:,} sites connecting at once, TLS"
    behind = found["one address"]
    said = f"in {behind['last_s']:.1f} s, {behind['statuses'].get('429', 0)} times told to wait, "
    said += f"{behind['failed']} failures"
    late = Row(
        "the same, all behind one address",
        "<= 30 s, no 5xx",
        said,
        behind["last_s"] <= 30 and behind["failed"] == 0,
    )
    return Figures([Row(what, "<= 30 s, no 5xx", told, holds), late], found)


def idle(folder: Path, settings: Settings) -> Figures:
    """Measure the server's memory with thousands of sites that only poll."""
    counts = settings.sites or (1_000, 5_000)
    found: dict[str, Any] = {}
    for count in counts:
        found[str(count)] = _crowd(folder / f"idle-{count}", count, idle_s=IDLE_S, ramp_s=RAMP_S)
    last = found[str(counts[-1])]
    told = f"{last['peak_mb']:.0f} MB resident at most, {last['anonymous_mb']:.0f} MB its own"
    if len(counts) > 1:
        first = found[str(counts[0])]
        each = (last["resident_mb"] - first["resident_mb"]) / (counts[-1] - counts[0])
        found["kb_each"] = 1000 * each
        told += f"; {1000 * each:.0f} KB a site"
    told += f"; {last['cpu']:.0%} of a core; {last['present']:,} let in"
    holds = last["peak_mb"] <= 250 and last["failed"] == 0 and last["present"] == counts[-1]
    return Figures([Row(f"{counts[-1]:,} idle sites", "<= 250 MB", told, holds)], found)


def _crowd(
    folder: Path,
    count: int,
    *,
    idle_s: float = 0.0,
    ramp_s: float = 0.0,
    one_address: bool = False,
) -> dict[str, Any]:
    """Let a crowd come to a fresh server; return what it and the server have seen."""
    folder.mkdir()
    project = projects.write(folder / "project", clients=1, rounds=1, size=10)
    with Rehearsal(folder / "all", project, sites=[]) as rehearsal:
        members = _enrolled(rehearsal.folder / SERVER, count, one_address=one_address)
        pid = deployed.pid_of(rehearsal)
        before = deployed.memory_of(pid)
        authority = folder / "ca.pem"
        authority.write_text(rehearsal.membership.authority_pem)
        start = time.monotonic() + LEAD_S
        words = [rehearsal.url, str(authority), str(start), str(ramp_s), str(idle_s)]
        processes = []
        for n in range(PROCESSES):
            (folder / f"{n}.json").write_text(json.dumps(members[n::PROCESSES]))
            crowd = [sys.executable, "-m", "benchmarks.crowd", str(folder / f"{n}.json")]
            processes.append(
                subprocess.Popen(
                    [*crowd, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        with deployed.Watch(pid) as watch:
            cpu, at = _cpu_s(pid), time.monotonic()
            time.sleep(0.8 * idle_s)
            used = (_cpu_s(pid) - cpu) / max(time.monotonic() - at, 1e-9)
            present = deployed.memory_of(pid)
            told = [json.loads(process.stdout.read()) for process in processes if process.stdout]
    served = np.sort(np.concatenate([t["served"] for t in told]))
    statuses: Counter[str] = sum((Counter(t["statuses"]) for t in told), Counter())
    failures: Counter[str] = sum((Counter(t["failures"]) for t in told), Counter())
    broken = sum(n for s, n in statuses.items() if s >= "500") + sum(failures.values())
    return {
        "served": len(served),
        "present": sum(t["present"] for t in told),
        "median_s": float(np.quantile(served, 0.5)),
        "p99_s": float(np.quantile(served, 0.99)),
        "last_s": float(served[-1]),
        "statuses": dict(statuses),
        "failures": dict(failures),
        "failed": broken,
        "polls": sum(t["polls"] for t in told),
        "before_mb": before.resident,
        "resident_mb": present.resident,
        "anonymous_mb": present.anonymous,
        "peak_mb": watch.peak.resident,
        "cpu": used,
    }


def _enrolled(folder: Path, count: int, *, one_address: bool) -> list[dict[str, str]]:
    """Make members of a server, as enrolment would, in one transaction."""
    authority, first = load_authority(folder), ipaddress.IPv4Address("127.1.0.1")
    members, rows = [], []
    for n in range(count):
        private = Ed25519PrivateKey.generate()
        key, name = MemberKey(private), f"site-{n:05d}"
        address = "127.0.0.1" if one_address else str(first + n)
        members.append(
            {
                "key": base64.b64encode(private.private_bytes_raw()).decode(),
                "certificate": authority.issue_member(name, "site", key.public),
                "address": address,
            }
        )
        rows.append(
            {
                "name": name,
                "kind": "site",
                "role": "site",
                "public_key": to_text(key.public),
                "fingerprint": key.fingerprint,
                "joined_at": now(),
            }
        )
    database = open_database(folder / "hansa.db")
    try:
        database.write(lambda c: c.execute(insert(tables.members), rows))
    finally:
        database.close()
    return members


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
