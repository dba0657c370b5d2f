"""D1, D4, D5: what a broken line repeats, and what comes too late, counts once or not at all.

One real server and one real site; a second site is the test itself, behind a fault proxy, so that
every request and every cut happens at a chosen instant.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import pytest
from federations import FAST, eventually, project, receipts, rows
from member import Site, connection, joined

from hansa.dev import Rehearsal
from hansa.errors import HansaError, RequestRefused, ServerError
from hansa.limits import CHUNK_BYTES
from hansa.protocol.messages import Task, TaskKey
from hansa.protocol.transfer import upload
from hansa.testing.proxy import FaultProxy

PLAN = """
name = "delivery"
rounds = 1
[data]
set = "digits"
split = { scheme = "iid", clients = 2 }
[cohort]
minimum = 2
"""
VALUES = 650  # of the softmax model on digits: 64 * 10 + 10


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("delivery")
    settings = {**FAST, "heartbeat_s": 2.0}  # the test's own site polls only now and then
    with Rehearsal(
        folder / "r", project(folder / "study", PLAN), sites=["client-0"], settings=settings
    ) as rehearsal:
        yield rehearsal


@pytest.fixture(scope="module")
def proxy(federation: Rehearsal) -> Iterator[FaultProxy]:
    with FaultProxy(federation.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def site(
    federation: Rehearsal, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("sites") / "client-1"
    site = Site(joined(federation, folder, port=proxy.port))
    yield site
    site.connection.close()


def accepted(federation: Rehearsal, run: str, who: str) -> int:
    counted = rows(
        federation,
        f"select count(*) from events where run = '{run}' and kind = 'result'"
        f" and data like '%\"client\":\"{who}\"%' and data like '%accepted%'"
        ' and data like \'%"phase":"train"%\'',
    )
    return int(counted[0][0])


def run_of(federation: Rehearsal, *sets: str) -> tuple[str, threading.Thread, list[str]]:
    """Submit a run and follow it in a thread; return its name, the thread, and how it ended."""
    folder = federation.submit(sets=sets)
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(federation.follow(folder)), daemon=True)
    thread.start()
    return (folder.remote or {})["run"], thread, ended


def test_a_receipt_that_is_lost_is_given_again_and_the_update_counts_once(
    federation: Rehearsal, proxy: FaultProxy, site: Site
) -> None:
    run, thread, ended = run_of(federation)
    task = site.task(run)
    result = site.sent(site.update(VALUES))
    proxy.set(held="down")
    came = proxy.moved["down"]

    def report() -> None:
        with contextlib.suppress(HansaError):  # it may try once more by itself
            site.report(task, result)

    lost = threading.Thread(target=report)
    lost.start()
    eventually(lambda: any(row[2] == site.name for row in receipts(federation, run)))
    assert proxy.moved["down"] == came, "the first receipt must be lost"
    assert proxy.reset()
    proxy.heal()
    lost.join(20)
    again = [site.report(task, result) for _ in range(10)]
    assert len(set(map(repr, again))) == 1
    assert again[0].digest == result.update.digest  # type: ignore[union-attr]
    there = [row for row in receipts(federation, run) if row[2] == site.name]
    assert there == [(1, "train", site.name, again[0].digest)]
    assert accepted(federation, run, site.name) == 1
    site.poll(wait=False)
    thread.join(40)
    assert ended == ["finished"]
    assert site.report(task, result) == again[0], "also when the run is over"


def test_a_second_and_different_update_is_refused_and_noted(
    federation: Rehearsal, site: Site
) -> None:
    run, thread, ended = run_of(federation)
    task = site.task(run)
    first = site.sent(site.update(VALUES))
    other = site.sent(site.update(VALUES, value=0.5))
    receipt = site.report(task, first)
    with pytest.raises(RequestRefused) as refused:
        site.report(task, other)
    # Which of the two depends on whether the other site has ended the round meanwhile.
    assert refused.value.said in ("update-conflict", "update-late")
    there = [row for row in receipts(federation, run) if row[2] == site.name]
    assert there == [(1, "train", site.name, receipt.digest)]
    noted = rows(federation, "select outcome from audit where action = 'result'")
    assert (refused.value.said,) in noted
    site.poll(wait=False)
    thread.join(40)
    assert ended == ["finished"]


def refusal(site: Site, task: Task, result: object) -> str:
    with pytest.raises(RequestRefused) as refused:
        site.report(task, result)  # type: ignore[arg-type]
    return refused.value.said


def test_an_update_that_comes_too_late_is_refused_and_never_aggregated(
    federation: Rehearsal, site: Site
) -> None:
    run, thread, ended = run_of(federation, "cohort.minimum=1", "cohort.deadline_s=3")
    task = site.task(run)
    result = site.sent(site.update(VALUES))
    until = time.monotonic() + 30
    while thread.is_alive() and time.monotonic() < until:  # alive, and does not answer
        site.poll(wait=False)
        time.sleep(0.2)
    assert ended == ["finished"]
    assert refusal(site, task, result) == "update-late"
    assert accepted(federation, run, site.name) == 0
    assert not [row for row in receipts(federation, run) if row[2] == site.name]


def test_an_update_for_a_stopped_run_or_one_that_did_not_ask_is_refused(
    federation: Rehearsal, site: Site
) -> None:
    run, thread, ended = run_of(federation)
    task = site.task(run)
    result = site.sent(site.update(VALUES))
    other = Task(key=TaskKey(run="delivery-999", round=1, phase="train"), message=task.message)
    assert refusal(site, other, result) in ("update-late", "run-not-found")
    past = Task(key=TaskKey(run=run, round=7, phase="train"), message=task.message)
    assert refusal(site, past, result) == "update-late"
    done = federation.command("stop", run, "--on", federation.url)
    assert done.returncode == 0, done.stderr
    thread.join(20)
    assert ended == ["stopped"]
    assert refusal(site, task, result) in ("update-late", "run-not-found")
    assert accepted(federation, run, site.name) == 0
    assert not [row for row in receipts(federation, run) if row[2] == site.name]


def test_an_upload_that_is_cut_at_each_chunk_sends_at_most_one_chunk_more_for_each_cut(
    federation: Rehearsal, proxy: FaultProxy
) -> None:
    content = os.urandom(4 * CHUNK_BYTES + 12_345)
    member = federation.membership
    asked = connection(member._replace(url=f"https://localhost:{proxy.port}"))
    for chunk in range(5):
        proxy.count_anew()
        before = proxy.cuts
        fresh = content[:-4] + chunk.to_bytes(4, "little")
        proxy.cut_after(up=chunk * CHUNK_BYTES + 6_000)
        for _ in range(10):
            try:
                ref = upload(asked, fresh, to="blobs")
                break
            except ServerError:
                continue
        assert proxy.cuts == before + 1, "nothing was cut"
        assert proxy.moved["up"] <= len(fresh) + CHUNK_BYTES + 2**18  # TLS and headers
        assert asked.request("HEAD", f"/v1/blobs/{ref.digest}").status == 200
    asked.close()
