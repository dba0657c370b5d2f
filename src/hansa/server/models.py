"""The model trail of a server: every committed model of every run, and which are still there."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, func, select
from starlette.requests import Request
from starlette.responses import Response

from hansa.limits import MODELS_PER_PAGE
from hansa.protocol.messages import ModelFacts, ModelPage, Submission
from hansa.runs.trail import model_facts
from hansa.server.auth import Principal
from hansa.server.people import READERS
from hansa.server.routes import Route, answer, in_thread, number
from hansa.server.state import ServerState
from hansa.store.tables import events, runs, trail


def routes(state: ServerState) -> list[Route]:
    """Return the routes of models; their tensors are blobs."""
    return [Route("/v1/models", "GET", READERS, Models(state).models)]


class Models:
    """The handler of the trail."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def models(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """List models from a position on, of all runs or of one."""
        after = int(number(request, "after", 0, top=2**53))
        return answer(await in_thread(self._page, request.query_params.get("run"), after))

    def _page(self, run: str | None, after: int) -> ModelPage:
        found = self._state.database.read(lambda c: list(_models(c, run, after)))
        following = after + len(found) if len(found) == MODELS_PER_PAGE else None
        return ModelPage(models=found, next=following)


class _Begun(NamedTuple):
    metric: str  # that the run is judged by
    origin: str  # of its seed model
    kept: set[int]


def _models(c: Connection, run: str | None, after: int) -> list[ModelFacts]:
    """Return a page of models; a combiner has runs of which it holds none."""
    query = (
        select(runs.c.run, events.c.at, events.c.data)
        .join(events, events.c.run == runs.c.run)
        .where(events.c.kind == "committed", func.json_extract(events.c.data, "$.model") != "")
        .order_by(runs.c.created_at, runs.c.run, events.c.seq)
        .offset(after)
        .limit(MODELS_PER_PAGE)
    )
    if run is not None:
        query = query.where(runs.c.run == run)
    begun: dict[str, _Begun] = {}
    found = []
    for name, at, data in c.execute(query).all():
        event: dict[str, Any] = {"at": at, **msgspec.json.decode(data)}
        about = begun.get(name) or begun.setdefault(name, _begun(c, name))
        kept, size = event["round"] in about.kept, event["model_size"]
        found.append(
            model_facts(name, event, metric=about.metric, origin=about.origin, kept=kept, size=size)
        )
    return found


def _begun(c: Connection, run: str) -> _Begun:
    text = c.execute(select(runs.c.submission).where(runs.c.run == run)).scalar_one()
    submission = msgspec.json.decode(text, type=Submission)
    rounds = c.execute(select(trail.c.round).where(trail.c.run == run)).scalars()
    metric = str(submission.plan.get("stop", {}).get("metric", ""))
    return _Begun(metric, submission.origin, set(rounds))
