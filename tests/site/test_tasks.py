"""A task at a site: what counts, what is refused, and what the server is told, beside a server
that a test plays."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from blake3 import blake3
from sample_site import CODE, Sample, ask, make_offer, make_site

import hansa.protocol.delivery
import hansa.site.agent
import hansa.site.ledger
from hansa.clock import monotonic
from hansa.errors import RequestRefused
from hansa.identity import load_membership
from hansa.identity.receipts import sign_receipt
from hansa.params import Params, encode
from hansa.protocol.connection import Pieces
from hansa.protocol.delivery import HEADER, brought
from hansa.protocol.messages import (
    BlobRef,
    Offer,
    Phase,
    PollAnswer,
    Receipt,
    Standing,
    Task,
    TaskKey,
    TaskResult,
)
from hansa.site.agent import Agent
from hansa.site.ledger import LEDGER_FILE, Ledger
from hansa.site.offers import Offers
from hansa.site.outbox import Outbox
from hansa.site.receipts import ReceiptPage
from hansa.site.requests import approve, deny, wanted_runs
from hansa.site.settings import SiteSettings, load_settings
from hansa.site.states import OwnStates
from hansa.site.tasks import Desk, Joined, TaskRun
from hansa.site.workers import WorkerResult
from hansa.store.client_states import ClientStates
from hansa.store.spares import NO_SPARES, Spares

OPEN = '[data.cohort]\npath = "rows.csv"\ntarget = "y"\n[policy]\n'


def encoded(value: float) -> bytes:
    return b"".join(encode(Params.of({"x": np.full(650, value, np.float32)})))


def ref(data: bytes) -> BlobRef:
    return BlobRef(digest=f"blake3:{blake3(data).hexdigest()}", size=len(data))


class Server:
    """Answers a site as a server would, in this process; keeps what came."""

    def __init__(self, site: Sample) -> None:
        self.site = site
        self.results: list[tuple[str, TaskResult]] = []
        self.standings: list[Standing] = []
        self.receipts: list[Receipt] = []
        self.polls: list[float] = []
        self.answers: queue.SimpleQueue[PollAnswer] = queue.SimpleQueue()
        self.repeated: Callable[[Any], PollAnswer] | None = None
        self.refusal: RequestRefused | None = None
        self.uploads = 0
        self.unwanted: RequestRefused | None = None  # the answer to uploads

    def renewal_due(self) -> bool:
        return False

    def call(self, method: str, path: str, message: Any = None, *, kind: Any, **named: Any) -> Any:
        if method == "PUT":
            return self.delivered(path, message, **named)
        if path == "/v1/poll":
            self.polls.append(monotonic())
            if self.repeated is not None:
                return self.repeated(message)
            try:
                return self.answers.get(timeout=0.2)
            except queue.Empty:
                return PollAnswer()
        if path.endswith("/standing"):
            self.standings.append(message)
            return {}
        if path.startswith("/v1/receipts"):
            after = int(path.rpartition("=")[2])
            return ReceiptPage(self.receipts[after:], len(self.receipts))
        self.results.append((path, message))
        _, _, _, run, _, number, phase, _ = path.split("/")
        if message.state == "failed":
            return Receipt(run=run, round=int(number), phase="train", client="north", digest="",
                           size=0, at="")  # fmt: skip
        if self.refusal is not None:
            raise self.refusal
        return self.count(run, int(number), phase, message)  # type: ignore[arg-type]

    def delivered(
        self, path: str, body: Pieces, *, headers: dict[str, str], digest: str
    ) -> Receipt:
        """Take an update that brings its result, as if they had come one after the other."""
        place, _, query = path.partition("?")
        said = dict(pair.split("=") for pair in query.split("&"))
        result = brought(headers[HEADER], said["result"])
        assert result.update is not None and place == f"/v1/updates/{result.update.digest}"
        assert blake3(b"".join(map(bytes, body))).hexdigest() == digest
        self.uploads += 1
        if self.unwanted is not None:
            raise self.unwanted
        where = f"/v1/runs/{said['run']}/rounds/{said['round']}/{said['phase']}/result"
        return self.call("POST", where, result, kind=Receipt)

    def count(self, run: str, number: int, phase: Phase, result: TaskResult) -> Receipt:
        update = result.update or BlobRef(digest=f"blake3:{'0' * 64}", size=0)
        facts = (run, number, phase, "north", update.digest, update.size, "2026-01-01T00:00:00Z")
        signed = sign_receipt(self.site.receipts, *facts)
        receipt = Receipt(
            run=run, round=number, phase=phase, client="north", digest=update.digest,
            size=update.size, at=facts[-1], signature=signed,
        )  # fmt: skip
        self.receipts.append(receipt)
        return receipt

    def close(self) -> None:
        pass


class Trainer:
    """Workers without processes: each update is the message plus one, each state counts rounds."""

    def __init__(self, folder: Path) -> None:
        self.states = OwnStates(folder, "north")
        self.spares = NO_SPARES
        self.folder = folder
        self.trained: list[int] = []
        self.steps: list[int | None] = []
        self.dying = 0  # so many workers die before one does its task
        self.tensors = (("x", "F32", (650,)),)
        self.began_from: list[float | None] = []
        self.settings = SiteSettings(name="north")
        self.cancelled: list[str] = []
        self.entered, self.may_go = threading.Event(), threading.Event()
        self.may_go.set()

    def examples(self, offer: Offer, package: Path) -> int:
        self.entered.set()
        assert self.may_go.wait(20)
        return 10

    def train(
        self,
        offer: Offer,
        package: Path,
        round: int,
        message: Path,
        update: Path,
        steps: int | None = None,
        settings: Any = None,
    ) -> WorkerResult:
        self.trained.append(round)
        self.steps.append(steps)
        if self.dying:
            self.dying -= 1
            return WorkerResult("failed", code="client-lost", reason="It ended with signal 9.")
        before = ClientStates(self.folder / "states" / offer.run).load("north", before=round)
        self.began_from.append(None if before is None else float(np.array(before["c"])[0]))
        data = encoded(float(round))
        update.write_bytes(data)
        state = update.with_suffix(".state")
        state.write_bytes(b"".join(encode(Params.of({"c": np.full(2, float(round))}))))
        self.states.keep(offer.run, round, state, update=ref(data).digest)
        return WorkerResult(
            "done", {"loss": (1.0, 1.0)}, 1.0, 10, tensors=self.tensors,
            digest=ref(data).digest, size=len(data),
        )  # fmt: skip

    def cancel(self, run: str) -> None:
        self.cancelled.append(run)

    def forget(self, run: str) -> None:
        self.states.forget(run)

    def close_all(self) -> None:
        pass


class Table:
    """A site's desk, and tasks for it."""

    def __init__(self, site: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site, self.server = site, Server(site)
        self.offer, self.archive = make_offer(site)
        self.workers = Trainer(site.folder)
        self.blobs: dict[str, bytes] = {}
        monkeypatch.setattr("hansa.site.tasks.download", self.download)
        monkeypatch.setattr("hansa.site.tasks.upload", self.upload)
        self.open()

    def open(self) -> None:
        """Begin as after a start of the agent."""
        folder = self.site.folder
        self.ledger = Ledger(folder / LEDGER_FILE)
        self.desk = Desk(
            folder, load_membership(folder), self.server, self.ledger,  # type: ignore[arg-type]
            Outbox(folder / "outbox"), self.workers, {}, {},  # type: ignore[arg-type]
        )  # fmt: skip
        self.answered = hansa.site.ledger.answered(self.ledger.entries(), "study-1")

    def download(self, connection: Any, blob: BlobRef, target: Path, **_: Any) -> list[str]:
        target.write_bytes(self.blobs[blob.digest])
        return []

    def upload(self, connection: Any, source: Path, **_: Any) -> None:
        self.server.uploads += 1
        if self.server.unwanted is not None:
            raise self.server.unwanted

    def task(self, number: int, value: float = 0.0) -> Task:
        data = encoded(value)
        self.blobs[ref(data).digest] = data
        return Task(key=TaskKey(run="study-1", round=number, phase="train"), message=ref(data))

    def perform(self, task: Task) -> Receipt | None:
        run = TaskRun(task, self.desk, patient=lambda work, _dropped: work())
        return run.perform(Joined(self.offer, self.site.folder), self.answered)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    return Table(make_site(tmp_path / "north", OPEN), monkeypatch)


@pytest.mark.parametrize(
    ("plan", "asked", "told"),
    [
        ({}, "ask.rows.0", "The plan of the run has no task rows."),
        ({"initial": "mean"}, "ask.predict.0", "The plan of the run has no task predict."),
        ({"workflow": {"name": "broadcast_and_process", "task": "rows"}}, "ask.rows.0", ""),
    ],
)
def test_a_named_task_that_the_approved_plan_does_not_ask_for_is_not_done(
    table: Table, plan: dict[str, Any], asked: Phase, told: str
) -> None:
    """The owner has approved the plan; a server that asks for more of its code gets nothing."""
    table.offer, _ = make_offer(table.site, **plan)
    task = table.task(1)
    key = msgspec.structs.replace(task.key, phase=asked)
    run = TaskRun(msgspec.structs.replace(task, key=key), table.desk, patient=lambda w, _: w())
    if told:
        assert run.perform(Joined(table.offer, table.site.folder), table.answered) is None
        assert [(r.code, r.reason) for _, r in table.server.results] == [("site-task", told)]
    else:
        run._check_policy(table.offer)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("counted", [False, True])
def test_a_state_is_the_next_rounds_start_only_if_its_update_counted(
    table: Table, monkeypatch: pytest.MonkeyPatch, counted: bool
) -> None:
    assert table.perform(table.task(1)) is not None
    point = "site_after_receipt" if counted else "site_after_update_kept"

    def killed(name: str) -> None:
        if name == point:
            raise Killed

    with monkeypatch.context() as armed:
        armed.setattr("hansa.site.tasks.hit", killed)
        with pytest.raises(Killed):
            table.perform(table.task(2, 1.0))
    table.open()
    table.desk.outbox.forget("study-1", up_to=2)  # the round was committed, with or without it
    assert table.perform(table.task(3, 2.0)) is not None
    assert table.perform(table.task(4, 3.0)) is not None
    assert table.workers.began_from == [None, 1.0, 2.0 if counted else 1.0, 3.0]


SERVED = {"server.py": b"def select(clients):\n    return clients\n"}
SETTINGS = {"server.py": b"def settings(round):\n    return {}\n"}
OWN = {"mine.py": b"workflow = None\n"}
FUNCTIONS = {"server_functions": {"file": "server.py"}}


@pytest.mark.parametrize(
    ("code", "plan", "asked", "odd"),
    [
        ({}, {}, {"steps": 1}, "1 local steps"),
        ({}, {}, {"settings": {"batch_size": 1, "lr": 9}}, "settings (batch_size, lr)"),
        ({}, {"workflow": "semi_synchronous"}, {"steps": 7}, ""),
        ({}, {"workflow": "semi_synchronous"}, {"settings": {"lr": 9}}, "settings (lr)"),
        (SETTINGS, FUNCTIONS, {"settings": {"lr": 9}}, ""),
        (SETTINGS, FUNCTIONS, {"settings": {"lr": 9}, "steps": 1}, "1 local steps"),
        (SERVED, FUNCTIONS, {"settings": {"lr": 9}}, "settings (lr)"),
        (OWN, {"workflow": "mine.py:workflow"}, {"settings": {"lr": 9}, "steps": 7}, ""),
    ],
)
def test_a_server_says_no_more_about_the_training_than_the_approved_plan_lets_it(
    table: Table, code: dict[str, bytes], plan: dict[str, Any], asked: dict[str, Any], odd: str
) -> None:
    """One step on one example would be the gradient of one record, and no plan had said so."""
    table.offer, _ = make_offer(table.site, CODE | code, **plan)
    for name, text in code.items():
        (table.site.folder / name).write_bytes(text)
    table.perform(msgspec.structs.replace(table.task(1), **asked))
    [(_, result)] = table.server.results
    if odd:
        told = f"The server asks for {odd}, which the plan does not leave to it."
        assert (result.code, result.reason) == ("site-task", told)
    assert table.workers.trained == ([] if odd else [1])


def test_the_ledger_says_what_the_server_has_said_about_the_training(table: Table) -> None:
    table.offer, _ = make_offer(table.site, workflow="semi_synchronous")
    for number, steps in ((1, None), (2, 70)):
        table.perform(msgspec.structs.replace(table.task(number), steps=steps))
    first, second = (e.detail for e in table.ledger.entries() if e.kind == "update")
    assert "asked" not in first and second.endswith("; the server asked for steps 70")
    table.offer, _ = make_offer(table.site, CODE | SETTINGS, **FUNCTIONS)
    (table.site.folder / "server.py").write_bytes(SETTINGS["server.py"])
    table.perform(msgspec.structs.replace(table.task(3), settings={"lr": 0.5}))
    *_, entry = (e for e in table.ledger.entries() if e.kind == "update")
    assert entry.detail.endswith('; the server asked for settings {"lr":0.5}')


def test_a_site_takes_the_steps_that_it_is_asked_for(table: Table) -> None:
    table.offer, _ = make_offer(table.site, workflow="semi_synchronous")
    for number, steps in ((1, None), (2, 70), (3, 3)):
        task = msgspec.structs.replace(table.task(number), steps=steps)
        assert table.perform(task) is not None
    assert table.workers.steps == [None, 70, 3]


@pytest.fixture(params=["one request", "two requests"])
def requests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let updates be small, so that they bring their results, or large."""
    if request.param == "two requests":
        monkeypatch.setattr(hansa.protocol.delivery, "CHUNK_BYTES", 10)


@pytest.mark.usefixtures("requests")
def test_an_update_and_its_result_leave_once_and_one_receipt_comes(table: Table) -> None:
    receipt = table.perform(table.task(1))
    [(path, result)] = table.server.results
    assert path == "/v1/runs/study-1/rounds/1/train/result" and table.server.uploads == 1
    assert result.update is not None and receipt is not None
    assert (receipt.digest, receipt.size) == (result.update.digest, result.update.size)


@pytest.mark.usefixtures("requests")
def test_an_update_that_counts_already_is_refused_and_still_gets_its_receipt(table: Table) -> None:
    """A crash between an update's counting and the receipt's arrival: C5."""
    table.server.unwanted = RequestRefused("upload-unwanted", "No.", "Ask first.", status=409)
    assert table.perform(table.task(1)) == table.server.receipts[0]
    assert table.server.uploads == 1 and len(table.server.results) == 1


def test_where_a_proxy_takes_the_result_away_there_are_two_requests(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hansa.protocol.delivery, "to_text", lambda _: "e30")
    assert table.perform(table.task(1)) == table.server.receipts[0]
    assert table.server.uploads == 1 and len(table.server.results) == 1


@pytest.mark.parametrize("status", [400, 403, 431])
def test_where_a_proxy_refuses_the_header_itself_there_are_two_requests(
    table: Table, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The site had trained the same round again and again, until its deadline."""

    def refused(*_: Any, **__: Any) -> Receipt:
        raise RequestRefused("server-refused", "No.", "Ask it.", status=status)

    monkeypatch.setattr(table.server, "delivered", refused)
    assert table.perform(table.task(1)) == table.server.receipts[0]
    assert table.workers.trained == [1] and table.server.uploads == 1


@pytest.mark.usefixtures("requests")
def test_an_update_that_is_too_large_is_reported_and_not_made_again(table: Table) -> None:
    table.server.unwanted = RequestRefused(
        "blob-too-large", "The update has more than 10 bytes.", "Send less.", status=413
    )
    assert table.perform(table.task(1)) is None
    [(_, result)] = table.server.results
    assert (result.state, result.code) == ("failed", "blob-too-large")
    assert "more than 10 bytes" in result.reason
    assert table.workers.trained == [1] and table.server.uploads == 1


def test_what_a_loss_of_power_has_spoilt_is_made_again(table: Table) -> None:
    """Nothing is synchronised here, so after a start the length alone proves nothing."""
    task = table.task(1, 1.0)
    assert table.perform(task) is not None
    table.open()
    update = table.desk.outbox.place(task.key).update
    whole = update.read_bytes()
    (message,) = (table.site.folder / "cache" / "study-1").iterdir()
    for _ in range(2):
        assert table.perform(task) is not None
    assert table.workers.trained == [1], "what is whole is sent as it is"
    update.write_bytes(bytes(len(whole)))
    message.write_bytes(bytes(message.stat().st_size))
    table.open()
    fetched = dict(table.blobs)
    table.blobs.clear()  # not there to be fetched: so the message is not trusted
    with pytest.raises(KeyError):
        table.perform(task)
    table.blobs |= fetched
    assert table.perform(task) is not None
    assert table.workers.trained == [1, 1] and update.read_bytes() == whole
    assert message.read_bytes() == fetched[task.message.digest]


@pytest.mark.parametrize(("deaths", "state", "tries"), [(1, "done", 2), (2, "failed", 2)])
def test_a_worker_that_dies_once_does_not_make_its_site_fail(
    table: Table, deaths: int, state: str, tries: int
) -> None:
    table.workers.dying = deaths
    table.perform(table.task(1))
    [(_, result)] = table.server.results
    assert result.state == state
    assert table.workers.trained == [1] * tries


def test_a_task_is_done_for_one_message_alone_also_after_a_restart(table: Table) -> None:
    assert table.perform(table.task(1, 1.0)) is not None
    assert table.perform(table.task(1, 1.0)) is not None, "the same again is sent again"
    for _ in range(2):
        assert table.perform(table.task(1, 2.0)) is None
        assert table.server.results[-1][1].state == "failed"
        assert "another message" in table.server.results[-1][1].reason
        table.desk.outbox.forget_run("study-1")
        table.open()
    assert table.workers.trained == [1]


def test_a_message_far_larger_than_the_model_is_not_fetched(table: Table) -> None:
    small = table.task(1)
    size = 16 * 4 * 650 + 2**20
    for more, state in ((0, "done"), (1, "failed")):
        blob = msgspec.structs.replace(small.message, size=size + more)
        key = msgspec.structs.replace(small.key, round=1 + more)
        table.perform(Task(key=key, message=blob))
        assert table.server.results[-1][1].state == state
    assert table.workers.trained == [1]


def test_what_does_not_fit_into_the_ledger_stays_here_and_is_told(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hansa.site.ledger, "LEDGER_LINE_BYTES_MAX", 2_000)
    table.perform(table.task(1))
    table.workers.tensors = (("x" * 2_000, "F32", (650,)),)
    table.perform(table.task(2, 1.0))
    assert table.server.uploads == 1
    [_, (_, result)] = table.server.results
    assert (result.state, result.code) == ("failed", "site-limit")
    assert Ledger(table.site.folder / LEDGER_FILE).check() > 0


# ---------------------------------------------------------------- the whole agent


class Life:
    """An agent with its threads, at a server that a test plays."""

    def __init__(self, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table, self.server = table, table.server
        monkeypatch.setattr(hansa.site.agent, "connection_of", lambda _: table.server)
        monkeypatch.setattr(hansa.site.agent, "Workers", lambda *_: table.workers)
        monkeypatch.setattr("hansa.site.offers.download", self.package)
        monkeypatch.setattr(hansa.site.agent, "SITE_PAUSE_S", 0.1)
        monkeypatch.setattr("hansa.site.offers.SITE_PAUSE_S", 0.1)
        # An agent that ends sends itself a signal, which would end the tests with it.
        monkeypatch.setattr("signal.raise_signal", lambda _: None)
        folder = table.site.folder
        self.agent = Agent(folder, load_settings(folder))

    def package(self, connection: Any, blob: BlobRef, target: Path, **_: Any) -> None:
        target.write_bytes(self.table.archive)

    def until(self, reached: Callable[[], Any], what: str = "it did not happen") -> None:
        end = monotonic() + 20
        while not reached():
            assert self.agent._failure is None, self.agent._failure
            assert monotonic() < end, what
            threading.Event().wait(0.02)

    def say(self, **facts: Any) -> None:
        self.server.answers.put(PollAnswer(**facts))


@pytest.fixture
def life(table: Table, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    approve(table.site.folder, table.offer.identity, until=None, max_rounds=None, by="kim")
    life = Life(table, monkeypatch)
    yield life
    table.workers.may_go.set()
    life.agent.close()


def test_a_task_that_comes_before_the_run_is_ready_is_held_and_done(life: Life) -> None:
    workers = life.table.workers
    workers.may_go.clear()
    life.agent.start()
    life.say(offers=[life.table.offer], tasks=[life.table.task(1)])
    assert workers.entered.wait(20)
    life.until(lambda: life.agent._holding)
    assert not workers.trained and not life.server.results
    workers.may_go.set()
    life.until(lambda: life.server.receipts)
    assert workers.trained == [1] and life.server.standings[-1].state == "ready"
    life.until(lambda: not life.agent._holding)


def test_a_result_that_comes_too_soon_does_not_stand_in_the_way_of_the_one_that_is_wanted(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is restored from a backup, or has lost an update: it goes back by a task.

    It tells who brings the later result to come again in a moment, and waits for the earlier one.
    """
    server, table = life.server, life.table
    wanted = [1, 2]
    count = Server.count

    def in_order(self: Server, run: str, number: int, phase: Phase, result: TaskResult) -> Receipt:
        if number != wanted[0]:
            raise RequestRefused("round-not-open", "Not yet.", "Again in a moment.", status=503)
        return count(self, run, number, phase, result)

    monkeypatch.setattr(Server, "count", in_order)
    life.agent.start()
    life.say(offers=[table.offer], tasks=[table.task(1)])
    life.until(lambda: len(server.receipts) == 1)
    later = table.task(2)
    life.say(tasks=[later])
    life.until(lambda: len(server.results) >= 3, "the second result was not brought again")
    life.say(tasks=[table.task(1)])
    life.until(lambda: len(server.receipts) == 2, "the first result did not come again")
    assert server.receipts[0].digest == server.receipts[1].digest
    wanted.pop(0)
    life.until(lambda: not life.agent._holding)
    life.say(tasks=[later])
    life.until(lambda: len(server.receipts) == 3)
    assert server.receipts[2].round == 2 and table.workers.trained == [1, 2]


def test_a_result_that_is_about_to_be_taken_is_waited_for_whatever_comes_next(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to round 1 was lost, and round 2 has begun before the receipt is there again.

    Its state must be the one that round 2 begins with, so round 2 waits.
    """
    server, table, count = life.server, life.table, Server.count

    def slowly(self: Server, run: str, number: int, phase: Phase, result: TaskResult) -> Receipt:
        if len(self.results) < 4:
            raise RequestRefused("round-not-open", "Not yet.", "Again in a moment.", status=503)
        return count(self, run, number, phase, result)

    monkeypatch.setattr(Server, "count", slowly)
    life.agent.start()
    life.say(offers=[table.offer], tasks=[table.task(1)])
    life.until(lambda: server.results)
    life.say(tasks=[table.task(2, 5.0)])
    life.until(lambda: len(server.receipts) == 2)
    assert [receipt.round for receipt in server.receipts] == [1, 2]
    assert table.workers.began_from == [None, 1.0], "round 2 began from the state of round 1"


def test_a_refusal_that_comes_too_soon_ends_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert table.perform(table.task(1)) is not None
    tries: list[str] = []

    def call(method: str, path: str, message: Any = None, *, kind: Any) -> Any:
        tries.append(path)
        raise RequestRefused("round-not-open", "Not yet.", "Again in a moment.", status=503)

    def patient(work: Callable[[], Any], _dropped: Any) -> Any:
        for _ in range(3):
            with contextlib.suppress(RequestRefused):
                return work()
        raise AssertionError("it tries for ever")

    monkeypatch.setattr(table.server, "call", call)
    before, denied = table.task(1).key, Standing(state="refused", reason="denied")
    run = TaskRun(table.task(2), table.desk, patient=patient, stopped=lambda: denied,
                  others=lambda: [before])  # fmt: skip
    assert run.perform(Joined(table.offer, table.site.folder), table.answered) is None
    assert len(tries) == 2 and not run.refused, "the server asks again, and is told then"


def test_a_message_that_had_to_be_fetched_again_stays(table: Table) -> None:
    for number in (1, 2):
        assert table.perform(table.task(number, float(number))) is not None
    task = table.task(3, 1.0)  # the message of round 1 once more, the oldest that is here
    (cache,) = (table.site.folder / "cache").iterdir()
    place = cache / f"{task.message.digest.removeprefix('blake3:')}.safetensors"
    assert place in sorted(cache.glob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns)[:1]
    place.write_bytes(bytes(place.stat().st_size))
    os.utime(place, ns=(0, 0))
    table.open()
    assert table.perform(task) is not None
    assert place.read_bytes() == table.blobs[task.message.digest]


def test_what_a_runs_code_was_shown_is_written_over_by_nothing_but_its_messages(
    table: Table,
) -> None:
    """Code may keep hold of a file in ways that the system does not count as reading it."""
    table.workers.spares = Spares(table.site.folder / "spare")
    given: list[Path] = []
    table.desk.spares["study-1"] = Spares(table.site.folder / "cache" / "study-1" / "spare")
    table.desk.spares["study-1"].give = given.append  # type: ignore[method-assign]
    for number in (1, 2, 3, 4):
        assert table.perform(table.task(number, float(number))) is not None
    assert given and all(path.parent.name == "study-1" for path in given)
    assert not [*(table.site.folder / "spare").glob("*")]


def test_a_task_of_a_denied_run_is_refused_once_however_often_it_comes(life: Life) -> None:
    deny(life.table.site.folder, life.table.offer.identity, by="kim")
    life.server.repeated = lambda _: PollAnswer(
        offers=[life.table.offer], tasks=[life.table.task(1)]
    )
    began = monotonic()
    life.agent.start()
    life.until(lambda: life.server.results)
    life.until(lambda: len(life.server.polls) >= 4)
    assert len(life.server.polls) <= 6 + (monotonic() - began) / hansa.limits.SITE_IDLE_S
    assert [r.state for _, r in life.server.results] == ["failed"]
    assert "denied" in life.server.results[0][1].reason
    life.server.repeated = lambda poll: PollAnswer(cancelled=poll.holding)
    life.until(lambda: not life.agent._holding, "what was cancelled is held for ever")
    assert not life.table.workers.trained


def test_a_full_disk_makes_the_agent_wait_and_go_on(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.Event()
    append = Ledger._append

    def refused(ledger: Ledger, **facts: Any) -> int:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(ledger, **facts)

    monkeypatch.setattr(Ledger, "_append", refused)
    monkeypatch.setattr(hansa.site.ledger, "LEDGER_CONTROL_S", 0.0)
    life.agent.start()
    life.until(lambda: life.server.polls)
    full.set()
    asked = threading.Event()
    examples = life.table.workers.examples
    monkeypatch.setattr(life.table.workers, "examples", lambda *a: (asked.set(), examples(*a))[1])
    life.agent._offers.put(life.table.offer)
    assert asked.wait(20)
    threading.Event().wait(0.5)
    assert not life.server.standings, "nothing leaves that is not written down"
    assert not life.agent._ending.is_set()
    full.clear()
    life.until(lambda: life.server.standings)
    before = len(life.server.polls)
    life.until(lambda: len(life.server.polls) > before)


def test_what_a_site_keeps_of_a_run_goes_with_it(life: Life) -> None:
    folder = life.table.site.folder
    for name in ("cache", "outbox", "states", "exchange"):
        (folder / name / "old-1").mkdir(parents=True)
    life.server.repeated = lambda poll: PollAnswer(ended=[r for r in poll.runs if r == "old-1"])
    life.agent.start()
    life.until(lambda: not (folder / "cache" / "old-1").exists(), "an ended run was not forgotten")
    life.server.repeated = None
    life.say(offers=[life.table.offer], tasks=[life.table.task(1)])
    life.until(lambda: life.server.receipts)
    assert list((folder / "cache" / "study-1").iterdir())
    assert list((folder / "cache" / "packages").iterdir())
    life.say(ended=["study-1"])
    life.until(lambda: not (folder / "cache" / "study-1").exists())
    assert not list((folder / "cache" / "packages").iterdir())
    assert not (folder / "outbox" / "study-1").exists()


def test_a_run_that_ends_is_over_for_the_owner_too(life: Life) -> None:
    site = life.table.site
    ask(site, run="old-1")  # it ends while no agent is there
    life.server.repeated = lambda poll: PollAnswer(ended=[r for r in poll.runs if r == "old-1"])
    life.agent.start()
    life.until(lambda: wanted_runs(site.folder) == [], "its end was not written down")
    life.server.repeated = None
    life.say(offers=[life.table.offer])
    life.until(lambda: life.server.standings)
    assert wanted_runs(site.folder) == ["study-1"]
    life.say(ended=["study-1"])
    life.until(lambda: wanted_runs(site.folder) == [])


def test_a_strangers_plan_is_refused_before_anything_of_it_is_kept(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = table.site.folder / "site.toml"
    site.write_text(site.read_text() + 'submitters = ["bob"]\n')
    life = Life(table, monkeypatch)
    life.agent.start()
    life.say(offers=[table.offer])
    life.until(lambda: life.server.standings)
    assert life.server.standings[0].state == "refused"
    assert "anna" in life.server.standings[0].reason
    assert not (table.site.folder / "requests").exists()
    assert not (table.site.folder / "cache" / "packages").exists()
    life.agent.close()


@pytest.mark.parametrize("damage", ["site.toml", "approvals.jsonl"])
def test_a_mistake_in_the_owners_files_is_not_told_to_the_server(
    table: Table, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    more = 'submiters = ["anna"]\n' if damage == "site.toml" else "x\ny\n"
    with open(table.site.folder / damage, "a", encoding="utf-8") as file:
        file.write(more)
    offers = Offers(table.site.folder, table.desk, patient=lambda work, _: work())
    package = table.archive
    monkeypatch.setattr(
        "hansa.site.offers.download", lambda c, b, target, **_: target.write_bytes(package)
    )
    offers._consider(table.offer)
    said = table.server.standings[-1]
    assert said.state == "waiting" and "its owner must look" in said.reason
    assert str(table.site.folder) not in said.reason and "submiters" not in said.reason


def test_an_agent_whose_key_is_used_elsewhere_says_so_once_and_works_on(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []

    def answer(poll: Any) -> PollAnswer:
        said.append(poll.instance)
        return PollAnswer(twice=2 < len(said) < 9, again_s=0.01)

    life.server.repeated = answer
    life.agent.start()
    life.until(lambda: len(said) > 12)
    told = [line for line in caplog.messages if "another agent uses this site's key" in line]
    assert len(told) == 1
    assert len(set(said)) == 1 and said[0]
    assert life.agent._failure is None
