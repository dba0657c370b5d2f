"""Goal: A1: nobody does what nobody has allowed.  Default deny, for every route and every sender.

Method: `ALLOWED` says once more, by hand, who may do what; every route of the application is tried
by everybody.  A route that the table here does not name fails the build.  Then the objects of
others: what a right role may do to its own run, task or update, and to those of somebody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from blake3 import blake3
from in_process import (
    SEED,
    InProcess,
    Member,
    Reply,
    Site,
    digest_of,
    done,
    in_process,
    key_of,
    update_bytes,
)
from starlette.routing import Route as StarletteRoute

from hansa.clock import wall
from hansa.identity import ROLES, Prover, Sessions
from hansa.server import auth
from hansa.server.app import OPEN_ROUTES, make_app, table
from hansa.server.tokens import create_token

ALLOWED: dict[tuple[str, str], str] = {
    ("GET", "/health"): "local site combiner viewer submitter admin",
    ("GET", "/ready"): "local site combiner viewer submitter admin",
    ("GET", "/metrics"): "local viewer submitter admin",
    ("POST", "/v1/certificates"): "site combiner viewer submitter admin",
    ("POST", "/v1/poll"): "site combiner",
    ("POST", "/v1/runs/{run}/standing"): "site",
    ("POST", "/v1/runs/{run}/rounds/{number}/{phase}/result"): "site",
    ("GET", "/v1/receipts"): "site combiner",
    ("POST", "/v1/runs/{run}/standings"): "combiner",
    ("POST", "/v1/runs/{run}/rounds/{number}/{phase}/partial"): "combiner",
    ("GET", "/v1/blobs/{digest}"): "site combiner viewer submitter admin",
    ("GET", "/v1/blobs/{digest}/chunks"): "site combiner viewer submitter admin",
    ("PUT", "/v1/blobs/{digest}"): "submitter admin",
    ("PUT", "/v1/blobs/{digest}/chunks/{n}"): "submitter admin",
    ("PUT", "/v1/updates/{digest}"): "site combiner",
    ("GET", "/v1/updates/{digest}/chunks"): "site combiner",
    ("PUT", "/v1/updates/{digest}/chunks/{n}"): "site combiner",
    ("POST", "/v1/runs"): "submitter admin",
    ("POST", "/v1/runs/{run}/stop"): "submitter admin",
    ("GET", "/v1/runs"): "viewer submitter admin",
    ("GET", "/v1/runs/{run}"): "viewer submitter admin",
    ("GET", "/v1/runs/{run}/events"): "viewer submitter admin",
    ("GET", "/v1/models"): "viewer submitter admin",
    ("GET", "/v1/members"): "viewer admin",
    ("GET", "/v1/audit"): "admin",
    ("POST", "/v1/invites"): "admin",
    ("POST", "/v1/members/{name}/revoke"): "admin",
}
FILLED = {
    "{run}": "study-1",
    "{number}": "1",
    "{phase}": "train",
    "{digest}": "blake3:" + "0" * 64,
    "{n}": "0",
    "{name}": "nobody",
}
EMPTY = blake3(b"").hexdigest()
CASES = [pytest.param(*key, id=f"{key[0]} {key[1]}") for key in ALLOWED]


class World(InProcess):
    """A server with one member of each role, and others whose proofs no longer hold."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.of = {role: self.join(f"{role}-1", role) for role in ROLES}
        self.gone = {role: self.join(f"{role}-gone", role) for role in ROLES}
        self.gone_sessions = {role: self.session(m) for role, m in self.gone.items()}
        admin = self.of["admin"]
        for member in self.gone.values():
            path = f"/v1/members/{member.name}/revoke"
            assert self.ask(admin, "POST", path, {}).status == 200
        self.foreign = Sessions()  # of another server, with a secret of its own
        self.token = create_token(
            self.state.database, "grafana", expires_s=900.0, by="test", at=wall()
        )

    def signed(self, member: Member, session: str, method: str, target: str) -> Reply:
        header = Prover(member.key, session).header(method, target, EMPTY)
        return self.raw(method, target, headers={"hansa-proof": header})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("matrix"))
    yield world
    world.leave()


def filled(path: str) -> str:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    assert "{" not in path, f"{path}: give its parameter a value in FILLED"
    return path + "?size=8" if path.endswith("chunks/0") else path


def test_every_route_of_the_application_is_in_this_matrix_and_names_its_roles(world: World) -> None:
    served = {(r.method, r.path): set(r.roles) for r in table(world.state)}
    assert served == {place: set(roles.split()) for place, roles in ALLOWED.items()}
    assert all(served.values())
    there: set[tuple[str, str]] = set()
    for route in make_app(world.state).router.routes:
        assert isinstance(route, StarletteRoute), f"{route} cannot be guarded"
        there |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
    assert there == set(ALLOWED) | set(OPEN_ROUTES)
    assert OPEN_ROUTES == (
        ("GET", "/v1/authority"),
        ("POST", "/v1/sessions"),
        ("POST", "/v1/enrolments"),
    )


@pytest.mark.parametrize(("method", "path"), CASES)
def test_without_a_proof_nobody_gets_in(world: World, method: str, path: str) -> None:
    target = filled(path)
    for headers in ({}, {"hansa-proof": "x"}, {"cookie": "a=b"}, {"x-forwarded-for": "127.0.0.1"}):
        answer = world.raw(method, target, headers=headers)
        assert (answer.status, answer.code) == (401, "identity-proof"), headers


@pytest.mark.parametrize(("method", "path"), CASES)
def test_only_the_named_roles_get_in(world: World, method: str, path: str) -> None:
    for role in ROLES:
        answer = world.ask(world.of[role], method, filled(path))
        if role in ALLOWED[method, path].split():
            assert answer.status not in (401, 403, 405, 500), (role, answer)
        else:
            assert (answer.status, answer.code) == (403, "identity-role"), role


@pytest.mark.parametrize(("method", "path"), CASES)
def test_an_expired_certificate_is_good_for_its_renewal_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    for role in ALLOWED[method, path].split():
        if role == "local":
            continue
        with monkeypatch.context() as patch:
            patch.setattr(auth, "wall", lambda: wall() + 25 * 3600)
            session = world.session(world.of[role])
        answer = world.signed(world.of[role], session, method, filled(path))
        if path == "/v1/certificates":
            assert answer.status == 200
        else:
            assert (answer.status, answer.code) == (401, "identity-expired"), role


@pytest.mark.parametrize(("method", "path"), CASES)
def test_a_revoked_member_gets_in_nowhere(world: World, method: str, path: str) -> None:
    for role, member in world.gone.items():
        answer = world.signed(member, world.gone_sessions[role], method, filled(path))
        assert answer.status == 401, (role, answer)
        assert answer.code in ("identity-session", "identity-member")


def test_a_revoked_member_opens_no_session(world: World) -> None:
    for member in world.gone.values():
        body = msgspec.json.encode({"certificate": member.certificate})
        answer = world.stranger("POST", "/v1/sessions", body)
        assert (answer.status, answer.code) == (401, "identity-member")


@pytest.mark.parametrize(("method", "path"), CASES)
def test_a_session_of_another_server_is_none(world: World, method: str, path: str) -> None:
    for role in ROLES:
        member = world.of[role]
        token, _ = world.foreign.open(member.key.fingerprint, member.name)
        answer = world.signed(member, token, method, filled(path))
        assert (answer.status, answer.code) == (401, "identity-session"), role


@pytest.mark.parametrize(("method", "path"), CASES)
def test_anothers_key_signs_nothing_in_a_members_session(
    world: World, method: str, path: str
) -> None:
    for role in ROLES:
        thief = world.of["viewer" if role != "viewer" else "site"]
        answer = world.signed(thief, world.session(world.of[role]), method, filled(path))
        assert (answer.status, answer.code) == (401, "identity-proof"), role


@pytest.mark.parametrize(("method", "path"), CASES)
def test_a_token_looks_where_viewers_do_and_changes_nothing(
    world: World, method: str, path: str
) -> None:
    answer = world.raw(method, filled(path), headers={"authorization": f"Bearer {world.token}"})
    if method != "GET":
        assert (answer.status, answer.code) == (401, "identity-proof")
    elif "viewer" in ALLOWED[method, path].split():
        assert answer.status not in (401, 403, 405, 500)
    else:
        assert (answer.status, answer.code) == (403, "identity-role")


@pytest.mark.parametrize(("method", "path"), CASES)
def test_a_proof_counts_once_and_for_its_own_request(world: World, method: str, path: str) -> None:
    role = next(r for r in ROLES if r in ALLOWED[method, path].split())
    member, target = world.of[role], filled(path)
    prover = Prover(member.key, world.session(member))
    header = prover.header(method, target, EMPTY)
    first = world.raw(method, target, headers={"hansa-proof": header})
    assert first.status not in (401, 403)
    again = world.raw(method, target, headers={"hansa-proof": header})
    assert (again.status, again.code) == (401, "identity-replayed")
    for meant in (
        (method, target + ("&" if "?" in target else "?") + "x=1"),
        (method, target + "/"),
        ("DELETE", target),
    ):
        other = prover.header(*meant, EMPTY)
        answer = world.raw(method, target, headers={"hansa-proof": other})
        assert (answer.status, answer.code) == (401, "identity-proof"), meant


@pytest.mark.parametrize(("method", "path"), [c for c in CASES if c.values[0] != "GET"])
def test_a_body_that_was_changed_on_the_way_is_not_acted_on(
    world: World, method: str, path: str
) -> None:
    role = next(r for r in ROLES if r in ALLOWED[method, path].split())
    member, target = world.of[role], filled(path)
    header = Prover(member.key, world.session(member)).header(method, target, EMPTY)
    answer = world.raw(method, target, b"{}", headers={"hansa-proof": header})
    assert answer.status in (409, 413, 422), (
        answer
    )  # unwanted before it is even read, or not signed
    assert answer.code in ("blob-digest", "upload-unwanted", "blob-too-large")


@pytest.mark.parametrize("path", sorted({path for _, path in ALLOWED}))
def test_other_methods_and_other_places_are_refused(world: World, path: str) -> None:
    admin, named = world.of["admin"], {m for m, p in ALLOWED if p == path}
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} - named:
        answer = world.ask(admin, method, filled(path))
        assert (answer.status, answer.code) == (405, "request-route"), method
    for target in (
        filled(path).partition("?")[0] + "/x/y",
        "/v2" + filled(path),
        filled(path).upper(),
    ):
        answer = world.ask(admin, "GET", target)
        assert (answer.status, answer.code) == (404, "request-route"), target


@pytest.mark.parametrize(("method", "path"), [k for k in ALLOWED if k[0] == "POST"])
def test_a_body_that_is_no_message_is_refused(world: World, method: str, path: str) -> None:
    if path == "/v1/certificates":
        return  # takes no message
    role = next(r for r in ROLES if r in ALLOWED[method, path].split())
    for body in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'"x"', b"NaN"):
        answer = world.ask(world.of[role], method, filled(path), body=body)
        assert (answer.status, answer.code) == (422, "request-message"), body[:20]


# ---- the objects of others


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcess]:
    with in_process(tmp_path) as server:
        yield server


def test_a_run_is_stopped_by_its_submitter_or_an_admin_and_nobody_else(server: InProcess) -> None:
    ada, bob, root = (
        server.join("ada", "submitter"),
        server.join("bob", "submitter"),
        server.join("root", "admin"),
    )
    first, second = server.submit(ada), server.submit(ada, rounds=2)
    refused = server.ask(bob, "POST", f"/v1/runs/{first}/stop", {})
    assert (refused.status, refused.code) == (403, "identity-role")
    assert server.facts(first).state == "waiting"
    assert server.ask(ada, "POST", f"/v1/runs/{first}/stop", {}).status == 200
    assert server.ask(root, "POST", f"/v1/runs/{second}/stop", {}).status == 200
    assert [server.facts(run).reason for run in (first, second)] == [
        "stopped by ada",
        "stopped by root",
    ]


def test_a_site_neither_answers_for_another_nor_sees_what_it_sent(server: InProcess) -> None:
    """Method: the thief knows everything: run, round, digest, weight.  Only the key is missing."""
    north, south, thief = (Site(server, name) for name in ("north", "south", "thief"))
    run = server.begin(server.join("ada", "submitter"), {north: 10, south: 10})
    task = north.task(run)
    south.task(run)
    thief.poll([run])
    assert thief.put(update_bytes([9.0, 9.0, 9.0])).code == "upload-unwanted"
    assert north.send(task.key, [1.0, -2.0, 4.0], 1.0).status == 200
    sent = update_bytes([1.0, -2.0, 4.0])
    answer = thief.report(task.key, done(sent, 1.0))
    assert (answer.status, answer.code) == (409, "update-not-asked")
    for member in (thief.member, south.member, north.member):
        seen = server.ask(member, "GET", f"/v1/blobs/{digest_of(sent)}")
        assert (seen.status, seen.code) == (404, "blob-missing")
        assert server.ask(member, "GET", f"/v1/updates/{digest_of(sent)}").status == 405
    assert [r.client for r in north.receipts()] == ["north"]
    assert thief.receipts() == south.receipts() == []
    asked = thief.ask("GET", "/v1/receipts?after=0&client=north&name=north")
    assert asked.read(dict)["receipts"] == []
    assert south.send(task.key, [1.0, -2.0, 4.0], 1.0).status == 200
    assert server.ended(run).state == "finished"
    assert np.array_equal(server.model(run, 1), SEED + np.float32([1, -2, 4]))


def test_a_submission_under_another_name_is_refused(server: InProcess) -> None:
    """Method: bob sends what ada has signed, as it is."""
    ada, bob = server.join("ada", "submitter"), server.join("bob", "submitter")
    submission, package, model = server.submission(ada)
    server.upload(bob, package, model)
    refused = server.ask(bob, "POST", "/v1/runs", submission)
    assert (refused.status, refused.code) == (401, "identity-signature")
    assert server.state.journal.runs() == []


@pytest.mark.parametrize("number", ["9" * 30, "9" * 4_301, "1.5", "-1", "x"])
def test_a_number_of_a_round_that_is_none_is_refused_and_never_a_defect(
    server: InProcess, number: str
) -> None:
    """Python converts no more than 4,300 digits, and a database holds 19."""
    site, combiner = Site(server, "north"), server.join("hub", "combiner")
    target = f"/v1/runs/study-1/rounds/{number}/train"
    asked = f"{target}/result"
    assert server.raw("POST", asked).code == "identity-proof"
    failed = {"state": "failed", "code": "client-failed"}
    answer = site.ask("POST", asked, failed)
    assert (answer.status, answer.code) == (422, "request-message")
    answer = server.ask(combiner, "POST", asked.replace("result", "partial"), {"weight": 1.0})
    assert (answer.status, answer.code) == (422, "request-message")


def test_a_run_that_does_not_exist_is_nobodys(server: InProcess) -> None:
    site, root = Site(server, "north"), server.join("root", "admin")
    assert site.fail(key_of("study-9")).code == "run-not-found"
    assert server.ask(root, "POST", "/v1/runs/study-9/stop", {}).code == "run-not-found"
    assert server.ask(root, "GET", "/v1/runs/study-9").code == "run-not-found"
    assert server.ask(root, "GET", "/v1/runs/study-9/events").code == "run-not-found"
    answer = site.ask("POST", "/v1/runs/study-9/standing", {"state": "ready"})
    assert answer.code == "run-not-found"
    for n in ("-1", "x", "1e99", "nan"):
        assert site.ask("GET", f"/v1/receipts?after={n}").code == "request-message"
