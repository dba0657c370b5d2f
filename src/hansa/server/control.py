"""What sites ask and say: polls, standings, results, receipts, certificates."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hansa.clock import monotonic
from hansa.errors import IdentityError, RequestRefused, UpdateRefused
from hansa.limits import EXAMPLES_MAX
from hansa.protocol.delivery import HEADER, brought
from hansa.protocol.messages import ENDED, Phase, Poll, PollAnswer, Receipt, Standing, TaskResult
from hansa.rounds.questions import asked_in
from hansa.server.audit import TWICE
from hansa.server.auth import Principal
from hansa.server.hub import Said
from hansa.server.members import active_names
from hansa.server.results import not_ready, result_digest
from hansa.server.routes import (
    Route,
    answer,
    in_result_thread,
    in_thread,
    number,
    read_message,
    round_number,
)
from hansa.server.state import ServerState
from hansa.spans import effort

log = logging.getLogger("hansa.server")


def routes(control: Control) -> list[Route]:
    """Return the routes of sites."""
    return [
        Route("/v1/poll", "POST", ("site", "combiner"), control.poll),
        Route("/v1/runs/{run}/standing", "POST", ("site",), control.standing),
        Route("/v1/runs/{run}/rounds/{number}/{phase}/result", "POST", ("site",), control.result),
        Route("/v1/receipts", "GET", ("site", "combiner"), control.receipts),
    ]


class Control:
    """The handlers of sites' requests."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def poll(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Answer at once if there is something to do, or else when there is.

        What a poll holds while it waits is there as often as there are idle sites.
        """
        poll = await read_message(request, digest, Poll)
        for name in request.scope.keys() - _LOGGED:  # 3 KB that nobody reads again
            del request.scope[name]
        del request, digest
        hub = self._state.hub
        taken = await self._heard(poll, principal)
        until = monotonic() + hub.heartbeat_s
        with hub.waiting(principal.name) as bell:
            while (found := self._news(principal.name, poll, until)) is None:
                await bell.rung(until - monotonic())
                await self._state.gate.still(principal)
        if twice := self._state.instances.doubled(principal.name, monotonic()):
            found = msgspec.structs.replace(found, twice=twice)
        return answer(msgspec.structs.replace(found, taken=taken) if taken else found)

    def _news(self, site: str, poll: Poll, until: float) -> PollAnswer | None:
        """Return what a poll is answered with, or None if it still waits."""
        hub = self._state.hub
        found = hub.answer(site, poll)
        says_something = found.offers or found.tasks or found.cancelled or found.ended
        if not poll.wait or says_something or hub.draining or until <= monotonic():
            return found
        return None

    async def _heard(self, poll: Poll, principal: Principal) -> list[str]:
        """Note who is there; return the names behind a combiner that are others' already."""
        hub, site = self._state.hub, principal.name
        said = Said(poll.attributes, poll.resources)
        if not hub.touch(site, said):
            await in_thread(hub.heard, site, poll.version, said)
        if self._state.instances.heard(site, poll.instance, monotonic()):
            log.warning("two agents use the key of %s at once; was its folder copied?", site)
            await in_thread(self._state.audit, site, TWICE, site, "seen")
        if principal.role == "combiner":
            return await in_thread(self._relayed, site, poll)
        if hub.via(site) is not None:
            hub.comes_itself(site)  # a member's name is its own, whatever a combiner says
        return []

    def _relayed(self, combiner: str, poll: Poll) -> list[str]:
        """Note who is there behind a combiner; return the names that are others' already."""
        hub = self._state.hub
        fresh = [site for site in poll.sites if hub.via(site) != combiner]
        own = active_names(self._state.database, fresh) if fresh else set()
        return hub.relayed(combiner, poll.sites, members=own, version=poll.version)

    async def standing(
        self, request: Request, principal: Principal, digest: str | None
    ) -> Response:
        """Record whether a site takes part in a run."""
        standing = await read_message(request, digest, Standing)
        await self._state.gate.still(principal)
        if standing.examples > EXAMPLES_MAX:
            raise RequestRefused(
                "request-message",
                f"{principal.name} says that it holds {standing.examples} examples; a site can "
                f"have up to {EXAMPLES_MAX}. Nothing was done.",
                "Say how many rows of data there are.",
                status=422,
            )
        run = request.path_params["run"]
        await in_thread(self._stand, run, principal.name, standing)
        return answer({})

    def _stand(self, run: str, site: str, standing: Standing) -> None:
        row = self._state.journal.run(run)
        if row is None or row.state in ENDED:
            raise _no_run(run)
        before = self._state.journal.standings(run).get(site)
        if before != standing:
            self._state.journal.stand(run, site, standing)
        self._state.hub.stands(run, site, standing)

    async def result(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Count a result, once, and answer with its receipt."""
        result = await read_message(request, digest, TaskResult)
        run = request.path_params["run"]
        phase = _phase(request.path_params["phase"], run)
        asked = round_number(request.path_params["number"])
        return await self._counted(principal, run, asked, phase, result)

    async def delivered(
        self, request: Request, principal: Principal, upload: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Take an update, and count the result that it may bring."""
        query = request.query_params
        if "result" not in query:
            return await upload()
        if principal.role != "site":
            raise IdentityError(
                "identity-role",
                f"{principal.name} is {principal.role} and has no result of its own;"
                " nothing was done.",
                "A combiner reports partial sums.",
            )
        result = brought(request.headers.get(HEADER, ""), query["result"])
        run, phase = query.get("run", ""), _phase(query.get("phase", ""), query.get("run", ""))
        asked = round_number(query.get("round", ""))
        await upload()
        return await self._counted(principal, run, asked, phase, result)

    async def _counted(
        self, principal: Principal, run: str, asked: int, phase: Phase, result: TaskResult
    ) -> Response:
        """Count a result that is here whole, of a member that may have gone while it came."""
        await self._state.gate.still(principal)
        given = await in_result_thread(self._take, run, asked, phase, principal.name, result)
        return answer(given)

    def _take(self, run: str, number: int, phase: Phase, site: str, result: TaskResult) -> Receipt:
        exchange = self._state.hub.exchange(run, number, phase)
        if exchange is not None:
            self._note(run, phase, site, result)
            try:
                return exchange.answer(site, result)
            except (RequestRefused, UpdateRefused) as refusal:
                self._state.audit_refused(site, "result", f"{run}/{number}/{phase}", refusal.code)
                raise
        known = self._state.journal.receipt(run, number, phase=phase, client=site)
        if known is not None and result.state == "done":
            if known.digest == result_digest(result)[0]:
                return known
            code, what = "update-conflict", "another result was counted before"
        else:
            if known is None and self._state.journal.run(run) is None:
                raise _no_run(run)
            code, what = "update-late", "that exchange is not open"
            late = self._state.runs.late(run, number, phase=phase, site=site, result=result)
            if late is not None:
                return late
            hub = self._state.hub
            settling = known is None and hub.is_settling(run, number, phase, site)
            if settling or hub.is_to_come(run, number, phase):
                raise not_ready(run, number, phase)
        self._state.audit_refused(site, "result", f"{run}/{number}/{phase}", code)
        raise RequestRefused(
            code,
            f"The result of {site} for round {number} ({phase}) of {run} was not counted: {what}.",
            "Go on with the next task.",
            status=409,
        )

    def _note(self, run: str, phase: Phase, site: str, result: TaskResult) -> None:
        """Note that a result has come, and what its site says of the time that it took."""
        if (spans := self._state.hub.spans(run)) is not None:
            said = {} if result.effort is None else msgspec.structs.asdict(result.effort)
            spans.received(phase, site, result.state, **(effort(**said) if said else {}))

    async def receipts(
        self, request: Request, principal: Principal, digest: str | None
    ) -> Response:
        """Return the receipts of the site that asks."""
        after = int(number(request, "after", 0, top=2**53))
        found, following = await in_thread(self._state.journal.receipts, principal.name, after)
        return answer({"receipts": found, "next": following})


_LOGGED = ("type", "method", "path")  # parts of a request that may be told of a defect


def _phase(text: str, run: str) -> Phase:
    """Return a phase out of a path or query.

    Raises:
      RequestRefused: no run has such a one.
    """
    if text not in ("train", "evaluate") and asked_in(text) is None:
        raise _no_run(run)
    return text


def _no_run(run: Any) -> RequestRefused:
    return RequestRefused(
        "run-not-found",
        f"There is no run {str(run)[:80]!r} that is going on.",
        "It has ended, or never was; forget it.",
        status=404,
    )
