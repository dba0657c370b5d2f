"""What machines ask: is it alive, is it ready, and numbers for Prometheus."""

from __future__ import annotations

import shutil

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from hansa.clock import monotonic
from hansa.limits import DISK_READY_BYTES
from hansa.server.auth import Principal
from hansa.server.routes import Route, in_thread
from hansa.server.state import ServerState

ANYBODY_HERE = ("local", "site", "combiner", "viewer", "submitter", "admin")


def routes(state: ServerState) -> list[Route]:
    """Return the routes of machines; loopback needs no proof."""
    operations = Operations(state)
    readers = ("local", "viewer", "submitter", "admin")
    return [
        Route("/health", "GET", ANYBODY_HERE, operations.health),
        Route("/ready", "GET", ANYBODY_HERE, operations.ready),
        Route("/metrics", "GET", readers, operations.metrics),
    ]


class Operations:
    """The handlers of machines' requests."""

    def __init__(self, state: ServerState) -> None:
        self._state, self._began = state, monotonic()

    async def health(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Say that the process answers."""
        return PlainTextResponse("alive\n")

    async def ready(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Say whether work can be done: the disk takes writes, and nobody wants us to end."""
        if self._state.hub.draining:
            return PlainTextResponse("draining\n", 503)
        if self._state.database.broken is not None:
            return PlainTextResponse("the database cannot be written\n", 503)
        if shutil.disk_usage(self._state.folder).free < DISK_READY_BYTES:
            return PlainTextResponse("the disk is full\n", 503)
        return PlainTextResponse("ready\n")

    async def metrics(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Return numbers in Prometheus' text format."""
        text = await in_thread(self._metrics)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _metrics(self) -> str:
        state = self._state
        online = state.hub.online().values()
        runs = state.journal.run_states()
        lines = [
            *_metric("hansa_up_seconds", "gauge", "Seconds since the server started.",
                     {"": monotonic() - self._began}),
            *_metric("hansa_sites", "gauge", "Sites heard of since the server started.",
                     {'{state="online"}': sum(p.online for p in online),
                      '{state="silent"}': sum(not p.online for p in online)}),
            *_metric("hansa_runs", "gauge", "Runs by state.",
                     {f'{{state="{name}"}}': count for name, count in runs.items()}),
            *_metric("hansa_results_total", "counter", "Results that count, with a receipt.",
                     {"": state.journal.receipt_count()}),
            *_metric("hansa_rounds_total", "counter", "Rounds that were committed.",
                     {"": state.journal.round_count()}),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, meaning: str, values: dict[str, float]) -> list[str]:
    head = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    return head + [f"{name}{labels} {value:g}" for labels, value in values.items()]
