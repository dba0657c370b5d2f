"""Goal: what people ask: following, members, invitations, revocation, the trail."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import pytest
from league import League, refused

from hansa.identity import parse_invite
from hansa.protocol.messages import EventPage, ModelPage, Offer, RunPage


def test_whoever_follows_hears_at_once_what_happens(league: League) -> None:
    run = league.begin("north")
    path = f"/v1/runs/{run}/events"
    league.north.task(run)
    league.server.until(lambda: league.server.events(run, "opened"), "the round is recorded")
    page = league.server.ask(league.ada, "GET", path).read(EventPage)
    heard: list[EventPage] = []

    def follow() -> None:
        target = f"{path}?after={page.next}&wait_s=30"
        heard.append(league.server.ask(league.ada, "GET", target).read(EventPage))

    thread = threading.Thread(target=follow)
    thread.start()
    began = time.monotonic()
    assert league.send("north", run).status == 200
    thread.join(10)
    assert time.monotonic() - began < 5
    assert heard and heard[0].events[0]["kind"] == "result"


def test_a_wait_beyond_the_limit_is_refused(league: League) -> None:
    run = league.server.submit(league.ada)
    for query in ("wait_s=1e9", "wait_s=-1", "wait_s=nan", "after=-1", "after=x"):
        answer = league.server.ask(league.ada, "GET", f"/v1/runs/{run}/events?{query}")
        assert refused(answer) == (422, "request-message"), query


def test_an_admin_invites_lists_revokes_and_reads_the_trail(league: League) -> None:
    root = league.server.join("root", "admin")
    ask = league.server.ask
    asked = {"name": "east", "role": "site", "org": "East", "expires_s": 60.0}
    line = ask(root, "POST", "/v1/invites", asked).read(dict[str, Any])["invite"]
    assert parse_invite(line).fingerprint == league.server.state.authority.fingerprint
    league.north.poll()
    rows = ask(root, "GET", "/v1/members").read(dict[str, Any])["members"]
    states = {row["name"]: row["state"] for row in rows}
    assert (states["north"], states["south"], states["ada"]) == ("active", "silent", "member")
    assert ask(root, "POST", "/v1/members/south/revoke", {}).status == 200
    rows = ask(root, "GET", "/v1/members").read(dict[str, Any])["members"]
    assert {r["name"]: r["state"] for r in rows}["south"] == "revoked"
    assert refused(ask(root, "POST", "/v1/members/nobody/revoke", {})) == (404, "member-missing")
    trail = ask(root, "GET", "/v1/audit").read(dict[str, Any])["audit"]
    assert [r["id"] for r in trail] == sorted(r["id"] for r in trail)
    done = [(r["who"], r["action"], r["object"]) for r in trail]
    assert any(who == "root" and what == "east" for who, _, what in done)
    assert any(who == "root" and what == "south" for who, _, what in done)
    middle = trail[len(trail) // 2]["id"]
    later = ask(root, "GET", f"/v1/audit?after={middle}").read(dict[str, Any])["audit"]
    assert [r["id"] for r in later] == [r["id"] for r in trail if r["id"] > middle]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"name": "../x"}, "request-message"),
        ({"name": "east", "role": "god"}, "request-message"),
        ({"name": "east", "role": "local"}, "request-message"),
        ({"name": "east", "expires_s": -1}, "member-invalid"),
        ({"name": "east", "expires_s": 1e12}, "member-invalid"),
        ({"name": "north"}, "member-exists"),
    ],
)
def test_an_invitation_that_cannot_be_is_refused(
    league: League, asked: dict[str, Any], code: str
) -> None:
    root = league.server.join("root", "admin")
    assert league.server.ask(root, "POST", "/v1/invites", asked).code == code


def test_runs_are_listed_in_pages(league: League, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hansa.server.people.RUNS_PER_PAGE", 2)
    runs = [league.server.submit(league.ada, name=f"study-{i}") for i in range(3)]
    first = league.server.ask(league.ada, "GET", "/v1/runs").read(RunPage)
    assert ([facts.run for facts in first.runs], first.next) == (runs[:2], 2)
    second = league.server.ask(league.ada, "GET", "/v1/runs?after=2").read(RunPage)
    assert ([facts.run for facts in second.runs], second.next) == (runs[2:], None)


def test_models_are_listed_beside_a_run_from_above_which_has_none_here(league: League) -> None:
    """A combiner adopts runs; its round 0 is where it has begun."""
    submission, *_ = league.server.submission(league.ada)
    offer = msgspec.to_builtins(submission) | {"run": "above-1", "submitter": "ada"}
    league.server.state.journal.adopt(msgspec.convert(offer, Offer))
    run = league.begin("north")
    league.send("north", run)
    league.server.ended(run)
    page = league.server.ask(league.ada, "GET", "/v1/models").read(ModelPage)
    assert [model.name for model in page.models] == [f"{run}:0", f"{run}:1"]
