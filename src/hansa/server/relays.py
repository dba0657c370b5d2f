"""What combiners say: the standings of their sites, and partial sums."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hansa.errors import RequestRefused, UpdateRefused
from hansa.limits import EXAMPLES_MAX, RELAYED_STANDINGS_MAX
from hansa.protocol.messages import ENDED, Partial, Phase, Receipt, Standings
from hansa.server.auth import Principal
from hansa.server.results import not_ready, result_digest
from hansa.server.routes import (
    Route,
    answer,
    in_result_thread,
    in_thread,
    read_message,
    round_number,
)
from hansa.server.state import ServerState


def routes(state: ServerState) -> list[Route]:
    """Return the routes of combiners alone."""
    relays = Relays(state)
    return [
        Route("/v1/runs/{run}/standings", "POST", ("combiner",), relays.standings),
        Route(
            "/v1/runs/{run}/rounds/{number}/{phase}/partial", "POST", ("combiner",), relays.partial
        ),
    ]


class Relays:
    """The handlers of combiners' requests."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def standings(
        self, request: Request, principal: Principal, digest: str | None
    ) -> Response:
        """Record whether sites behind a combiner take part in a run."""
        standings = await read_message(request, digest, Standings)
        await self._state.gate.still(principal)
        await in_thread(self._stand, request.path_params["run"], principal.name, standings)
        return answer({})

    def _stand(self, run: str, combiner: str, standings: Standings) -> None:
        journal, hub = self._state.journal, self._state.hub
        row = journal.run(run)
        if row is None or row.state in ENDED:
            raise no_run(run)
        before, behind = dict(journal.standings(run)), hub.behind(combiner)
        for site, standing in sorted(standings.sites.items()):
            if site not in behind:  # gone meanwhile, or the name is another's
                continue
            if standing.examples > EXAMPLES_MAX:
                raise RequestRefused(
                    "request-message",
                    f"{combiner} says that {site} holds {standing.examples} examples; a site can "
                    f"have up to {EXAMPLES_MAX}. Nothing of it was recorded.",
                    "Say how many rows of data there are.",
                    status=422,
                )
            if site not in before and len(before) >= RELAYED_STANDINGS_MAX:
                raise RequestRefused(
                    "request-message",
                    f"{combiner} speaks for {site}, and the word of {len(before)} sites is kept "
                    f"for {run}; there is no room for more.",
                    "Tell the operator of the server; a combiner should not make up names.",
                    status=422,
                )
            if before.get(site) != standing:
                journal.stand(run, site, standing)
                before[site] = standing
            hub.stands(run, site, standing)

    async def partial(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Count a partial sum, once, and answer with its receipt."""
        partial = await read_message(request, digest, Partial)
        await self._state.gate.still(principal)
        where = request.path_params
        phase: Phase = "evaluate" if where["phase"] == "evaluate" else "train"
        if where["phase"] != phase:
            raise no_run(where["run"])
        asked = round_number(request.path_params["number"])
        given = await in_result_thread(
            self._take, where["run"], asked, phase, principal.name, partial
        )
        return answer(given)

    def _take(
        self, run: str, number: int, phase: Phase, combiner: str, partial: Partial
    ) -> Receipt:
        state, where = self._state, f"{run}/{number}/{phase}"
        exchange = state.hub.exchange(run, number, phase)
        if exchange is not None:
            behind = state.hub.behind(combiner) & exchange.state.clients.keys()
            try:
                return exchange.merged(combiner, partial, behind=behind)
            except (RequestRefused, UpdateRefused) as refusal:
                state.audit_refused(combiner, "partial", where, refusal.code)
                raise
        known = state.journal.receipt(run, number, phase=phase, client=combiner)
        if known is not None and known.digest == result_digest(partial)[0]:
            return known
        if known is None and state.journal.run(run) is None:
            raise no_run(run)
        hub = state.hub
        settling = hub.is_settling(run, number, phase, combiner)
        if known is None and (settling or hub.is_to_come(run, number, phase)):
            raise not_ready(run, number, phase)
        code = "update-late" if known is None else "update-conflict"
        state.audit_refused(combiner, "partial", where, code)
        raise RequestRefused(
            code,
            f"The partial sum of {combiner} for round {number} ({phase}) of {run} was not counted: "
            + ("that exchange is not open." if known is None else "another was counted before."),
            "Go on with the next task.",
            status=409,
        )


def no_run(run: str) -> RequestRefused:
    """Return the refusal of what is said of a run that is not going on."""
    return RequestRefused(
        "run-not-found",
        f"There is no run {run[:80]!r} that is going on.",
        "It has ended, or never was; forget it.",
        status=404,
    )
