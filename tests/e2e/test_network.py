"""T2 and T6: a site is cut off and comes back; a server restarts under many connections.

No network namespaces are needed: a proxy that holds every byte and closes nothing is what a
partition looks like from both ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from federations import FAST, digest, eventually, project, rows
from member import connection, joined

from hansa.dev import SERVER, Rehearsal
from hansa.errors import HansaError, RequestRefused
from hansa.identity import Membership
from hansa.protocol.messages import Poll, PollAnswer
from hansa.protocol.patience import with_patience

PLAN = """
name = "network"
rounds = 60
[learner]
model = "mlp"
epochs = 2
[data]
set = "digits"
split = { scheme = "iid", clients = 3 }
"""
HEARTBEAT_S = FAST["heartbeat_s"]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Rehearsal]:
    study = project(tmp_path / "study", PLAN)
    with Rehearsal(tmp_path / "r", study, settings=FAST, proxied=True) as rehearsal:
        yield rehearsal


def counted(federation: Rehearsal, site: str) -> int:
    """In how many rounds a site's update counts so far, read from the server's own table."""
    query = f"select count(*) from receipts where client = '{site}' and phase = 'train'"
    return int(rows(federation, query)[0][0])


def committed(federation: Rehearsal) -> int:
    return int(rows(federation, "select count(*) from events where kind = 'committed'")[0][0]) - 1


def test_a_partitioned_site_is_noticed_and_takes_part_again_when_it_heals(
    federation: Rehearsal,
) -> None:
    federation.submit()
    eventually(lambda: counted(federation, "client-2") >= 2)
    federation.proxies["client-2"].set(held="both")
    began = time.monotonic()
    federation.wait_for("client-2", state="silent", seconds=20)
    noticed = time.monotonic() - began
    assert noticed <= 2 * HEARTBEAT_S + 1.5, "two heartbeats, and what a busy machine adds"
    during, rounds = counted(federation, "client-2"), committed(federation)
    eventually(lambda: committed(federation) >= rounds + 3, what="the others must go on alone")
    assert counted(federation, "client-2") == during
    pid = federation.children["client-2"].pid
    began = time.monotonic()
    federation.proxies["client-2"].heal()
    federation.wait_for("client-2", seconds=15)
    eventually(lambda: counted(federation, "client-2") > during, seconds=15)
    assert time.monotonic() - began <= 15
    assert federation.children["client-2"].pid == pid, "nothing was restarted"


@pytest.mark.slow
def test_delay_trickle_and_resets_change_nothing_but_the_time(tmp_path: Path) -> None:
    plan = PLAN.replace("rounds = 60", "rounds = 3").replace('"mlp"', '"softmax"')
    study = project(tmp_path / "study", f"{plan}\n[cohort]\nminimum = 3\n")
    with Rehearsal(tmp_path / "r", study, settings=FAST, proxied=True) as federation:
        federation.proxies["client-0"].set(delay_s=0.2)
        federation.proxies["client-1"].set(piece=1)
        ending = threading.Event()

        def disturb() -> None:
            while not ending.wait(0.7):
                federation.proxies["client-2"].reset()

        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            folder = federation.submit()
            assert federation.follow(folder) == "finished"
        finally:
            ending.set()
            thread.join()
        assert digest(folder) == digest(federation.simulate())


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_many_waiting_clients_are_back_within_thirty_seconds_of_a_restart(
    tmp_path: Path, count: int
) -> None:
    study = project(tmp_path / "study", PLAN)
    with Rehearsal(
        tmp_path / "r", study, sites=["client-0"], settings={**FAST, "heartbeat_s": 5.0}
    ) as federation:

        def join(n: int) -> Membership:
            folder = tmp_path / f"waiting-{n}"
            return with_patience(lambda: joined(federation, folder), until=time.monotonic() + 60)

        with ThreadPoolExecutor(8) as pool:
            members = list(pool.map(join, range(count)))
        answered: dict[str, list[float]] = {member.name: [] for member in members}
        trouble: list[BaseException] = []
        ending = threading.Event()

        def wait_always(member: Membership) -> None:
            with connection(member) as asked:
                while not ending.is_set():
                    try:
                        asked.call("POST", "/v1/poll", Poll(), kind=PollAnswer)
                        answered[member.name].append(time.monotonic())
                    except RequestRefused as refusal:
                        if refusal.status >= 500 and refusal.status != 503:
                            trouble.append(refusal)
                        ending.wait(0.5)
                    except HansaError:
                        ending.wait(0.5)

        threads = [threading.Thread(target=wait_always, args=(m,)) for m in members]
        for thread in threads:
            thread.start()
        names = {member.name for member in members}

        def active() -> set[str]:
            return {m["name"] for m in federation.members() if m["state"] == "active"}

        try:
            eventually(lambda: active() >= names, seconds=30)
            federation.stop(SERVER)
            began = time.monotonic()
            federation.start(SERVER)
            eventually(lambda: active() >= names, seconds=30, what="some did not come back")
            assert time.monotonic() - began <= 30
        finally:
            ending.set()
            federation.stop(SERVER)
            for thread in threads:
                thread.join(20)
        assert not trouble
