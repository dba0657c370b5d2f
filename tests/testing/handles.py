"""Both handles of a federation, opened for a case of `hansa.testing`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hansa.client import failure_of, plain
from hansa.errors import HansaError
from hansa.identity import new_key
from hansa.params import Params, encode
from hansa.project import client_of
from hansa.protocol.messages import BlobRef, Poll, Standing, Submission, Task, TaskResult
from hansa.rounds.messages import from_message
from hansa.rounds.questions import asked_in
from hansa.runs import all_runs
from hansa.server.exchange import Desk
from hansa.server.federation import DeployedFederation, Pace
from hansa.server.hub import Hub
from hansa.server.journal import Journal
from hansa.server.places import Places
from hansa.server.round_files import Messages, Stores, Updates
from hansa.simulation import Simulation, Unwatched, open_run
from hansa.simulation.engine import Inline
from hansa.simulation.federation import SimulatedFederation
from hansa.simulation.runner import Runner
from hansa.store.blobs import BlobStore
from hansa.store.client_states import ClientStates
from hansa.store.database import open_database
from hansa.store.files import load_params
from hansa.store.spares import Spares
from hansa.testing.case import Case, Interruption
from hansa.workflows import Progress


@contextmanager
def simulated(case: Case, folder: Path) -> Iterator[SimulatedFederation]:
    runs = list(all_runs(folder))
    run = runs[0] if runs else open_run(case.project, Simulation(folder), case.population)[0]
    layout = case.seed.layout
    states = ClientStates(run.path / "clients")
    client = client_of(case.project, layout)
    runner = Runner(case.project, case.population, client=client, states=states)
    yield SimulatedFederation(
        case.project,
        case.population,
        engine=Inline(runner),
        folder=run,
        layout=layout,
        states=states,
        watcher=Unwatched(),
    )


NOTHING = BlobRef(digest="blake3:" + "0" * 64, size=0)


class StandIns:
    """One thread for each client: polls, trains, answers."""

    def __init__(self, case: Case, handle: DeployedFederation, hub: Hub, stores: Stores) -> None:
        self.case, self.handle, self.hub, self.stores = case, handle, hub, stores
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(c,)) for c in case.clients]

    def work(self, client: str) -> None:
        while not self.over.is_set():
            self.hub.heard(client)
            for task in self.hub.answer(client, Poll(runs=(self.handle.run,))).tasks:
                try:
                    self.perform(client, task)
                except Interruption:
                    self.handle.leave()
                    return
                except HansaError:  # refused, or too late
                    pass
            self.over.wait(0.002)

    def perform(self, client: str, task: Task) -> None:
        key = task.key
        exchange = self.hub.exchange(key.run, key.round, key.phase)
        if exchange is None:
            return
        digest = task.message.digest  # the committed model's own file, or a message beside it
        store = next(s for s in (self.stores.messages.store, self.stores.blobs) if s.has(digest))
        found = load_params(store.path(digest))
        message = from_message(self.handle.layout, found)
        try:
            if asked := asked_in(key.phase):
                answer = self.case.answer(client, key.round, *asked, found)
                place = self.stores.updates.of(key.run, key.round, client)
                ref = place.put_bytes(encode(answer))
                result = TaskResult(state="done", update=BlobRef(digest=ref[0], size=ref[1]))
            elif key.phase == "evaluate":
                metrics = plain(self.case.evaluate(client, message))
                result = TaskResult(state="done", metrics=metrics)
            else:
                update = self.case.train(client, key.round, message, task.steps)
                place = self.stores.updates.of(key.run, key.round, client)
                ref = place.put_bytes(encode(Params.of(dict(update.vectors))))
                result = TaskResult(
                    state="done",
                    metrics=plain(update.metrics),
                    update=BlobRef(digest=ref[0], size=ref[1]),
                    weight=update.weight,
                )
        except Exception as error:  # noqa: BLE001 - as a worker tells what user code raises
            told = failure_of(error)
            result = TaskResult(state="failed", code=told.code, reason=told.message)
        exchange.answer(client, result)


@contextmanager
def deployed(case: Case, folder: Path) -> Iterator[DeployedFederation]:
    database = open_database(folder / "hansa.db")
    hub = Hub(5.0)
    journal = Journal(database, hub.wake_followers)
    spares = Spares(folder / "spare")
    stores = Stores(
        BlobStore(folder / "blobs", durable=True),
        Messages(BlobStore(folder / "messages", durable=False, spares=spares)),
        Updates(folder / "updates", spares),
        folder / "spill",
        spares,
        threading.Lock(),
    )
    seed = stores.blobs.put_bytes(encode(case.seed.params))
    submission = Submission(
        id="0" * 32,
        identity=NOTHING.digest,
        plan=msgspec.to_builtins(case.plan),
        package=NOTHING,
        seed_model=BlobRef(digest=seed[0], size=seed[1]),
        tensors=[(s.name, s.dtype, list(s.shape)) for s in case.seed.layout.layout.specs],
        buffers=list(case.seed.layout.buffers.names),
        signature="",
        certificate="",
    )
    run, fresh = journal.submit(submission, "ada")
    if fresh:
        fact = {"kind": "committed", "round": 0, "model": seed[0], "model_size": seed[1]}
        fact |= {"state": None, "row": {}, "progress": Progress()._asdict(), "elapsed": 0.0}
        journal.commit(run, fact, keep=lambda _: True)
        for client in case.clients:
            journal.stand(run, client, Standing(state="ready", examples=0))
    handle = DeployedFederation(
        journal.run(run),
        case.plan,
        case.project.method,
        hub=hub,
        desk=Desk(journal, stores.updates, new_key()),
        stores=stores,
        pace=Pace(2.0, 30.0),
        places=Places(1),
    )
    for client in case.clients:
        hub.heard(client)
    hub.activate(handle)
    sites = StandIns(case, handle, hub, stores)
    for thread in sites.threads:
        thread.start()
    try:
        yield handle
    finally:
        sites.over.set()
        for thread in sites.threads:
            thread.join()
        handle.close()
        database.close()
