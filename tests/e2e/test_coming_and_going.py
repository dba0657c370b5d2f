"""Sites die, return and join in mid-run; the server is killed twice; the run ends by itself."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from federations import FAST, check_books, eventually, orphans, project, rows, workers

from hansa.dev import SERVER, Rehearsal

ROUNDS = 150
PLAN = """
name = "coming"
rounds = 150
[learner]
model = "mlp"
epochs = 2
[data]
set = "digits"
split = { scheme = "iid", clients = 4 }
[cohort]
minimum = 2
"""


def test_a_run_finishes_by_itself_through_deaths_returns_and_a_newcomer(tmp_path: Path) -> None:
    study = project(tmp_path / "study", PLAN)
    three = ["client-0", "client-1", "client-2"]
    with Rehearsal(tmp_path / "r", study, sites=three, settings=FAST) as federation:

        def committed() -> int:
            query = "select count(*) from events where kind = 'committed'"
            return int(rows(federation, query)[0][0]) - 1

        def counted(site: str) -> int:
            query = f"select count(*) from receipts where client = '{site}' and phase = 'train'"
            return int(rows(federation, query)[0][0])

        def goes_on(rounds: int = 2) -> None:
            wanted = min(ROUNDS, committed() + rounds)
            eventually(lambda: committed() >= wanted, 40, "the run stands still")

        folder = federation.submit()
        ended: list[str] = []
        following = threading.Thread(
            target=lambda: ended.append(federation.follow(folder, seconds=120)), daemon=True
        )
        following.start()
        eventually(lambda: counted("client-2") >= 1)
        assert workers(federation) >= 3, "else the look for orphans below sees nothing"
        federation.kill("client-2")
        began = time.monotonic()
        federation.wait_for("client-2", state="silent", seconds=20)
        assert time.monotonic() - began <= 2 * FAST["heartbeat_s"] + 5.0
        goes_on()
        federation.add_site("client-3")
        eventually(lambda: counted("client-3") >= 1, 30, "the newcomer does not take part")
        before = counted("client-2")
        federation.start("client-2")
        eventually(lambda: counted("client-2") > before, 30, "the returned does not take part")
        for _ in range(2):
            federation.kill(SERVER)
            federation.start(SERVER)
            goes_on(1)
        following.join(120)
        assert ended == ["finished"]
        assert len(folder.rows()) == ROUNDS
        assert {row["clients"]["accepted"] for row in folder.rows()} >= {2, 3}
        check_books(federation, folder)
        eventually(lambda: not orphans(federation), what="a worker outlived its agent")
