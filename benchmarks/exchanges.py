"""An exchange in this process, with the updates of all its sites on disk: no network."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hansa.aggregators import AggregationSpec, VectorSpec, mean
from hansa.identity import new_key
from hansa.params import Params, encode
from hansa.protocol.messages import BlobRef, Offer, TaskResult
from hansa.rounds.round import Terms
from hansa.server.exchange import Desk, Exchange
from hansa.server.journal import Journal
from hansa.server.round_files import Updates
from hansa.server.sums import Ask
from hansa.store.client_states import ClientStates
from hansa.store.database import open_database
from hansa.transforms import chain

DIFFERENT = 4  # files; the store has links to them, as to so many different updates


@contextlib.contextmanager
def opened(
    folder: Path, *, sites: int, size: int
) -> Iterator[tuple[Exchange, dict[str, TaskResult]]]:
    """Give an open exchange, and the result of each site; its update of `size` float32 is there."""
    folder.mkdir()
    updates = Updates(folder / "updates")
    database = open_database(folder / "hansa.db")
    names = [f"site-{n:03d}" for n in range(sites)]
    spec = AggregationSpec({"delta": VectorSpec(size, "float32", 64.0)}, 8.0 * sites)
    terms = Terms(minimum=sites)
    ask = Ask("bench-1", 1, "train", tuple(names), terms, 600.0, spec, mean, chain())
    journal = Journal(database, lambda _: None)
    journal.adopt(_offer(ask.run))
    desk = Desk(journal, updates, new_key())
    files = [_file(folder / f"update-{n}", n, size) for n in range(min(DIFFERENT, sites))]
    results = {}
    for n, name in enumerate(names):
        ref = BlobRef(digest=f"blake3:{n:064x}", size=files[n % len(files)].stat().st_size)
        path = updates.of(ask.run, ask.number, name).path(ref.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(files[n % len(files)], path)
        results[name] = TaskResult(state="done", update=ref, weight=8.0)
    try:
        yield Exchange(ask, desk, spill=ClientStates(folder / "spill")), results
    finally:
        database.close()
        shutil.rmtree(folder)


def _offer(run: str) -> Offer:
    """Return what makes a run known; nothing of it is looked at."""
    return Offer(
        run=run,
        submitter="bench",
        identity="",
        plan={},
        package=BlobRef(digest=f"blake3:{0:064x}", size=0),
        tensors=[],
        buffers=[],
        signature="",
        certificate="",
    )


def _file(path: Path, seed: int, size: int) -> Path:
    values = np.random.default_rng(seed).standard_normal(size, np.float32)
    with path.open("wb") as file:
        file.writelines(encode(Params.of({"delta": values})))
    return path
