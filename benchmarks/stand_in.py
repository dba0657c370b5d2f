"""A site without a worker: it polls, fetches the message, sends an update that lies ready.

What it costs is what a site's transfer costs and little more, so that many of them on one machine
measure the server.  It uses `hansa.protocol` exactly as an agent does, the copying of known chunks
included; it keeps no ledger and no outbox.

    python -m benchmarks.stand_in MEMBERSHIP UPDATE

prints one line of JSON for each round: when it was given the task, had the message, had sent the
update, and had the receipt; seconds of the system's monotonic clock.  It ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from hansa.errors import HansaError
from hansa.identity import Membership, load_membership
from hansa.protocol.connection import Connection
from hansa.protocol.messages import BlobRef, Poll, PollAnswer, Receipt, Standing, Task, TaskResult
from hansa.protocol.transfer import Known, download, upload
from hansa.store.addresses import digest_of_file
from hansa.store.spares import Spares

EXAMPLES = 8


class StandIn:
    """One site.

    Args:
      membership: of the site; its folder holds the messages.
      update: file that is sent in every round.
    """

    def __init__(self, membership: Membership, update: Path) -> None:
        self._cache = membership.folder / "cache"
        self._cache.mkdir(exist_ok=True)
        self._spares = Spares(membership.folder / "spare")
        self._update = update
        digest, size = digest_of_file(update)
        self._ref = BlobRef(digest=digest, size=size)
        self._runs: list[str] = []
        self._chunks: dict[Path, Sequence[str]] = {}
        self._connection = Connection(
            membership.url,
            authority_pem=membership.authority_pem,
            key=membership.key(),
            certificate=membership.certificate,
            timeout_s=300.0,
        )

    def turn(self) -> None:
        """Ask once, and do what is asked."""
        poll = Poll(runs=tuple(self._runs), version="stand-in")
        answer = self._connection.call("POST", "/v1/poll", poll, kind=PollAnswer)
        for offer in answer.offers:
            self._runs.append(offer.run)
            ready = Standing(state="ready", examples=EXAMPLES)
            path = f"/v1/runs/{offer.run}/standing"
            self._connection.call("POST", path, ready, kind=dict[str, str])
        self._runs = [run for run in self._runs if run not in answer.ended]
        for task in answer.tasks:
            self._perform(task)

    def _perform(self, task: Task) -> None:
        times = [time.monotonic()]
        target = self._cache / task.message.digest.removeprefix("blake3:")
        if not target.exists():
            kept = sorted(self._cache.iterdir(), key=lambda p: p.stat().st_mtime_ns)
            known = [Known(path, self._chunks.get(path, ())) for path in kept[-1:]]
            for old in kept[:-1]:
                self._spares.give(old)
                self._chunks.pop(old, None)
            self._chunks[target] = download(
                self._connection, task.message, target, known=known, spares=self._spares
            )
        times.append(time.monotonic())
        result = TaskResult(state="done")
        if task.key.phase == "train":
            upload(self._connection, self._update, to="updates", ref=self._ref, task=task.key)
            result = TaskResult(state="done", update=self._ref, weight=float(EXAMPLES))
        times.append(time.monotonic())
        key = task.key
        path = f"/v1/runs/{key.run}/rounds/{key.round}/{key.phase}/result"
        self._connection.call("POST", path, result, kind=Receipt)
        times.append(time.monotonic())
        print(json.dumps([key.round, *times]), flush=True)


def end_with_input() -> None:
    """End this process when its standard input ends, in a thread of its own."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main(membership: Path, update: Path) -> None:
    """Be a site until the input ends."""
    end_with_input()
    site = StandIn(load_membership(membership), update)
    while True:
        try:
            site.turn()
        except HansaError as error:
            print(error, file=sys.stderr, flush=True)
            time.sleep(0.5)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
