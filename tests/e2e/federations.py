"""Small projects, and independent looks at what a federation has left on the disk."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from hansa.dev import SERVER, Rehearsal
from hansa.errors import HansaError, ServerError
from hansa.failpoints import FAILPOINTS
from hansa.runs import RunFolder
from hansa.site.ledger import LEDGER_FILE, Ledger

FAST = {"heartbeat_s": 0.5, "gather_s": 5.0}

CALM = FAST | {"heartbeat_s": 1.5}
"""On a busy machine nobody is lost that a test has not killed."""

SCAFFOLD = """
name = "tiny"
rounds = 3
seed = 7
algorithm = "scaffold"
[learner]
kind = "numpy"
[data]
set = "digits"
split = { scheme = "dirichlet", alpha = 0.5, clients = 2 }
[cohort]
minimum = 2
"""
"""Two clients with a state of their own, both needed: one model whatever happens."""

ALONE = SCAFFOLD.replace("minimum = 2", "minimum = 1").replace("rounds = 3", "rounds = 300")
"""The same for many rounds, which close without a client that is away."""

LARGE = SCAFFOLD.replace("rounds = 3", "rounds = 1").replace(
    'kind = "numpy"', 'kind = "numpy"\nmodel = "mlp"\nhidden = [40000]\nsteps = 1'
)
"""The same with a model of 12 MB, whose updates travel in three chunks."""


def project(folder: Path, plan: str = SCAFFOLD, model: str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
    if model is not None:
        (folder / "model.py").write_text(model, encoding="utf-8")
    return folder


def points(prefix: str) -> list[str]:
    """Failpoints of sites, or with an empty prefix those of the server."""
    others = ("site_", "submit_", "follow_")
    if prefix:
        return [name for name in FAILPOINTS if name.startswith(prefix)]
    return [name for name in FAILPOINTS if not name.startswith(others)]


def digest(folder: RunFolder) -> str:
    folder.reload()
    return str(folder.commits()[-1]["model"])


def eventually(reached: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    until = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < until, what or "it did not happen in time"
        time.sleep(0.02)
    return found


def rows(rehearsal: Rehearsal, query: str) -> list[tuple[Any, ...]]:
    path = rehearsal.folder / "server" / "hansa.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)) as database:
        return database.execute(query).fetchall()


def receipts(rehearsal: Rehearsal, run: str) -> list[tuple[Any, ...]]:
    return rows(rehearsal, f"select round, phase, client, digest from receipts where run = '{run}'")


def check_books(rehearsal: Rehearsal, folder: RunFolder) -> None:
    """0 lost receipts, 0 double counts, and every update that counts has left by the ledger."""
    run = (folder.remote or {})["run"]
    there = receipts(rehearsal, run)
    assert len({row[:3] for row in there}) == len(there), "a client has two receipts for one task"
    accepted = Counter(
        (e["round"], e["phase"], e["client"])
        for e in folder.log.events
        if e["kind"] == "result" and e["state"] == "accepted"
    )
    assert set(accepted) == {row[:3] for row in there}
    for site in rehearsal.names:
        entries = list(Ledger(rehearsal.site_folder(site) / LEDGER_FILE).entries())
        for entry in entries:
            if entry.receipt is not None and entry.receipt.run == run:
                r = entry.receipt
                assert (r.round, r.phase, r.client, r.digest) in there, "a receipt was lost"
        left = {(e.round, e.digest) for e in entries if e.run == run and e.digest}
        assert {(n, d) for n, _, who, d in there if who == site} <= left


def submitted(rehearsal: Rehearsal, *sets: str) -> RunFolder:
    """Submit, and repeat it as a person would when the server dies meanwhile."""
    new = True
    until = time.monotonic() + 30
    while True:
        try:
            return rehearsal.submit(new=new, sets=sets)
        except HansaError:
            new = False
            assert time.monotonic() < until
            eventually(lambda: rehearsal.children[SERVER].alive)
            time.sleep(0.1)


def killed_in_turn(rehearsal: Rehearsal, who: str, armed: list[str]) -> threading.Thread:
    """Start somebody again whenever it dies, armed with the next point, at last with none."""

    def watch() -> None:
        for following in [*armed[1:], ""]:
            rehearsal.children[who].wait(60)
            with contextlib.suppress(ServerError):  # it may die again before its port is open
                rehearsal.start(who, failpoint=following)

    rehearsal.stop(who)
    rehearsal.start(who, failpoint=armed[0])
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def deaths(rehearsal: Rehearsal, who: str) -> list[str]:
    """Return the points at which somebody has died, in order."""
    lines = rehearsal.children[who].log.read_text().splitlines()
    return [s.removeprefix("failpoint ") for s in lines if s.startswith("failpoint ")]


def as_simulated(rehearsal: Rehearsal, point: str | None) -> RunFolder:
    """Run a project, with the server killed at a point, to the model of the simulation."""
    if point is not None:
        rehearsal.stop(SERVER)
        rehearsal.start(SERVER, failpoint=point)
    folder = rehearsal.submit()
    if point is not None:
        rehearsal.children[SERVER].wait(60)
        rehearsal.start(SERVER)
    assert rehearsal.follow(folder, seconds=100) == "finished"
    assert digest(folder) == digest(rehearsal.simulate())
    return folder


def processes() -> Iterator[tuple[int, int, str]]:
    """Every process: its number, its parent's, and its command line with its folder."""
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                stat = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()
                words = (
                    (path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                )
                where = str((path / "cwd").readlink())
            except OSError:
                continue
            if stat[0] != "Z":
                yield int(path.name), int(stat[1]), f"{words} {where}"


def orphans(rehearsal: Rehearsal) -> list[str]:
    """Workers below this rehearsal's folder that no living agent of it has started."""
    table = {pid: (parent, words) for pid, parent, words in processes()}
    agents = {child.pid for child in rehearsal.children.values() if child.alive}
    found = []
    for pid, (_, words) in table.items():
        if "hansa.site.worker" not in words or str(rehearsal.folder) not in words:
            continue
        above = pid
        while above in table and above not in agents:
            above = table[above][0]
        if above not in agents:
            found.append(words[:200])
    return found


def workers(rehearsal: Rehearsal) -> int:
    return sum(
        "hansa.site.worker" in words and str(rehearsal.folder) in words
        for _, _, words in processes()
    )


@contextmanager
def thawed(rehearsal: Rehearsal, *who: str) -> Iterator[None]:
    """Whatever a test has killed runs again, and nothing is held up, after the block."""
    try:
        yield
    finally:
        for proxy in rehearsal.proxies.values():
            proxy.heal()
        for name in who or tuple(rehearsal.children):
            rehearsal.start(name)
