"""What people ask: runs to be done, how they go, who is a member, what has happened."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import hansa
from hansa.clock import monotonic, wall
from hansa.errors import RequestRefused
from hansa.identity import Role
from hansa.limits import (
    FOLLOW_GATHER_S,
    FOLLOW_WAIT_S_MAX,
    INVITE_S,
    RUNS_PER_PAGE,
    SUBMISSION_BYTES_MAX,
)
from hansa.protocol.messages import (
    ENDED,
    EventPage,
    Name,
    RunDetails,
    RunFacts,
    RunPage,
    SiteStanding,
    Submission,
)
from hansa.server import audit, members
from hansa.server.auth import Principal
from hansa.server.combining import check_combiners
from hansa.server.journal import RunRow
from hansa.server.routes import (
    Route,
    answer,
    in_thread,
    number,
    parsed,
    read_body,
    read_message,
)
from hansa.server.state import ServerState
from hansa.server.submissions import check_submission, check_uploaded

READERS = ("viewer", "submitter", "admin")


class InviteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for an invitation."""

    name: Name
    role: Role = "site"
    org: str = ""
    expires_s: float = INVITE_S


def routes(state: ServerState) -> list[Route]:
    """Return the routes of people."""
    people = People(state)
    return [
        Route("/v1/runs", "POST", ("submitter", "admin"), people.submit),
        Route("/v1/runs", "GET", READERS, people.runs),
        Route("/v1/runs/{run}", "GET", READERS, people.run),
        Route("/v1/runs/{run}/events", "GET", READERS, people.events),
        Route("/v1/runs/{run}/stop", "POST", ("submitter", "admin"), people.stop),
        Route("/v1/members", "GET", ("viewer", "admin"), people.members),
        Route("/v1/audit", "GET", ("admin",), people.audit),
        Route("/v1/invites", "POST", ("admin",), people.invite),
        Route("/v1/members/{name}/revoke", "POST", ("admin",), people.revoke),
    ]


class People:
    """The handlers of people's requests."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def submit(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Check a submission whole, record it, and start it."""
        body = await read_body(request, limit=SUBMISSION_BYTES_MAX, digest=digest)
        submission = parsed(body, Submission)
        return answer(await in_thread(self._submit, submission, principal.name))

    def _submit(self, submission: Submission, submitter: str) -> RunFacts:
        state = self._state
        plan = check_submission(
            submission,
            submitter,
            authority=state.authority,
            blobs=state.blobs,
            serving=state.serving,
            at=wall(),
        )
        check_combiners(submission.plan, members.combiners(state.database))
        if state.stores.lineages is not None:
            state.stores.lineages.check(plan.keep)
        with state.trail:  # what is found to be there is not removed before it is recorded
            check_uploaded(submission, state.blobs)
            run = state.runs.submit(submission, submitter)
            needed = {submission.package.digest, submission.seed_model.digest}
            state.unsubmitted.submitted(submitter, needed)
        state.audit(submitter, "submit", run, "ok")
        return self._facts(run)

    async def runs(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """List runs from a position on, oldest first."""
        after = int(number(request, "after", 0, top=2**53))
        return answer(await in_thread(self._runs_page, after))

    def _runs_page(self, after: int) -> RunPage:
        rows = self._state.journal.runs(after=after, limit=RUNS_PER_PAGE)
        following = after + len(rows) if len(rows) == RUNS_PER_PAGE else None
        return RunPage(runs=[self._facts_of(row) for row in rows], next=following)

    async def run(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Return all that is needed to follow a run."""
        return answer(await in_thread(self._details, request.path_params["run"]))

    def _details(self, run: str) -> RunDetails:
        row = self._row(run)
        return RunDetails(
            facts=self._facts_of(row), submission=row.submission, hansa=hansa.__version__
        )

    async def events(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Return a run's events from a position on, as soon as there are any."""
        run = request.path_params["run"]
        after = int(number(request, "after", 0, top=2**53))
        until = monotonic() + number(request, "wait_s", 0, top=FOLLOW_WAIT_S_MAX)
        with self._state.hub.following(run) as bell:
            while True:
                page = await in_thread(self._page, run, after)
                left = until - monotonic()
                ended = page.state in ENDED
                if page.events or ended or left <= 0 or self._state.hub.draining:
                    return answer(page)
                await bell.rung(left)
                await asyncio.sleep(min(FOLLOW_GATHER_S, left))
                await self._state.gate.still(principal)

    def _page(self, run: str, after: int) -> EventPage:
        state, found = self._state.journal.page(run, after)
        if state is None:
            raise _no_run(run)
        # One who has read more than there is must hear that the server was set back.
        start = after if found else min(after, self._state.journal.event_count(run))
        return EventPage(events=found, next=start + len(found), state=state)

    async def stop(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """End a run: one's own, or any as an admin."""
        await read_message(request, digest, dict[str, Any])
        return answer(await in_thread(self._stop, request.path_params["run"], principal))

    def _stop(self, run: str, principal: Principal) -> RunFacts:
        row = self._row(run)
        if principal.role != "admin" and row.submitter != principal.name:
            raise RequestRefused(
                "identity-role",
                f"{run} was submitted by {row.submitter}; {principal.name} may not stop it.",
                "Ask its submitter or an admin.",
                status=403,
            )
        self._state.runs.stop(run, principal.name)
        self._state.audit(principal.name, "stop", run, "ok")
        return self._facts(run)

    async def members(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """List members; sites with when they were heard of."""
        return answer({"members": await in_thread(self._members)})

    def _members(self) -> list[dict[str, Any]]:
        return self._state.member_facts()

    async def audit(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Return the audit log from a position on."""
        after = int(number(request, "after", 0, top=2**53))
        rows = await in_thread(audit.audit, self._state.database, after)
        return answer({"audit": rows})

    async def invite(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Make an invitation; its line is told once."""
        wanted = await read_message(request, digest, InviteRequest)
        line = await in_thread(self._invite, wanted, principal.name)
        return answer({"invite": line})

    def _invite(self, wanted: InviteRequest, by: str) -> str:
        return self._state.invite(
            wanted.name, role=wanted.role, org=wanted.org, expires_s=wanted.expires_s, by=by
        )

    async def revoke(self, request: Request, principal: Principal, digest: str | None) -> Response:
        """Revoke a member at once."""
        await read_message(request, digest, dict[str, Any])
        name = request.path_params["name"]
        await in_thread(self._revoke, name, principal.name)
        return answer({})

    def _revoke(self, name: str, by: str) -> None:
        member = members.revoke(self._state.database, name, by=by)
        self._state.forget(name, member.fingerprint)

    def _row(self, run: str) -> RunRow:
        row = self._state.journal.run(run)
        if row is None:
            raise _no_run(run)
        return row

    def _facts(self, run: str) -> RunFacts:
        return self._facts_of(self._row(run))

    def _facts_of(self, row: RunRow) -> RunFacts:
        journal = self._state.journal
        there = self._state.hub.online()
        said = journal.standings(row.run)
        sites = [
            SiteStanding(
                site=name,
                state=standing.state,
                reason=standing.reason,
                online=name in there and there[name].online,
            )
            for name, standing in sorted(said.items())
        ]
        state = self._state
        reason = state.runs.places.why(row.run) or row.reason or state.hub.held_up(row.run)
        return msgspec.structs.replace(journal.facts(row), reason=reason, sites=sites)


def _no_run(run: str) -> RequestRefused:
    return RequestRefused(
        "run-not-found",
        f"There is no run {run[:80]!r} at this server.",
        "List them with: hansa ls --on URL",
        status=404,
    )
