"""A stranger with the CA's certificate and the network can do nothing but be refused.

Every route of the server's own table is tried, with nothing, with made-up proofs and tokens, with
the certificate of an authority of the stranger's own, and with a true certificate but another key.
Oracle: the statuses, and the server's database and folders, which must not change.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import urllib3
from blake3 import blake3
from federations import FAST, project, rows

from hansa.dev import Rehearsal
from hansa.errors import HansaError, RequestRefused
from hansa.identity import (
    Invite,
    create_authority,
    enrolment_text,
    load_authority,
    new_key,
    new_token,
    to_text,
)
from hansa.identity.proof import Prover
from hansa.protocol.connection import Connection
from hansa.protocol.enrolment import enrol
from hansa.protocol.messages import Enrolment, SessionRequest
from hansa.server.app import OPEN_ROUTES, table
from hansa.server.founding import found
from hansa.server.settings import ServerSettings
from hansa.server.state import ServerState

REFUSED = {401, 403, 404, 422, 429}
VALUES = {
    "digest": "blake3:" + 64 * "0",
    "n": "0",
    "run": "tiny-1",
    "number": "1",
    "phase": "train",
    "name": "client-0",
}
BODIES: dict[str, bytes] = {"GET": b"", "HEAD": b"", "POST": b"{}", "PUT": b"\0" * 64}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("stranger")
    with Rehearsal(folder / "r", project(folder / "tiny"), settings=FAST) as rehearsal:
        run = rehearsal.submit()
        assert rehearsal.follow(run) == "finished"
        yield rehearsal


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, bool]]:
    """Method, path, and whether it needs no proof from this very machine."""
    folder = tmp_path_factory.mktemp("another")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANSA_HOME", str(folder / "home"))
        found(folder / "server", ServerSettings(url="https://localhost:1", host="127.0.0.1"))
    state = ServerState(folder / "server")
    try:
        found_routes = [(r.method, _filled(r.path), "local" in r.roles) for r in table(state)]
    finally:
        state.close()
    assert len(found_routes) >= 20
    return [*found_routes, *((method, path, False) for method, path in OPEN_ROUTES)]


def _filled(path: str) -> str:
    return re.sub(r"{(\w+)(:\w+)?}", lambda found: VALUES[found[1]], path)


@pytest.fixture(scope="module")
def pool(federation: Rehearsal) -> Iterator[urllib3.HTTPSConnectionPool]:
    context = ssl.create_default_context(cadata=federation.membership.authority_pem)
    with urllib3.HTTPSConnectionPool(
        "localhost", federation.port, ssl_context=context, retries=False
    ) as pool:
        yield pool


def ask(
    pool: urllib3.HTTPSConnectionPool, method: str, path: str, headers: Mapping[str, str]
) -> urllib3.BaseHTTPResponse:
    body = BODIES[method]
    return pool.urlopen(method, path, body=body or None, headers=dict(headers), timeout=10.0)


def state_of(federation: Rehearsal) -> dict[str, Any]:
    """All that is in the database but the audit trail, and all files but logs of the database."""
    tables = [name for (name,) in rows(federation, "select name from sqlite_master")]
    wanted = [t for t in tables if not t.startswith(("sqlite", "audit", "ix_"))]
    found_rows: dict[str, Any] = {}
    for name in wanted:
        if rows(federation, f"select type from sqlite_master where name = '{name}'") == [
            ("table",)
        ]:
            found_rows[name] = rows(federation, f"select * from {name}")
    folder = federation.folder / "server"
    files = {p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("hansa.db")}
    found_rows["files"] = {str(p): p.read_bytes() for p in files if p.name != "lock"}
    assert found_rows["members"] and found_rows["receipts"] and found_rows["runs"]
    return found_rows


def kinds_of_headers(federation: Rehearsal) -> dict[str, Mapping[str, str]]:
    return {
        "nothing": {},
        "a token that was made up": {"Authorization": f"Bearer hansa_{new_token()}"},
        "a proof that is none": {"Hansa-Proof": "x 1 y z"},
        "both": {"Hansa-Proof": "x 1 y z", "Authorization": "Bearer hansa_x"},
    }


def test_every_route_refuses_who_proves_nothing(
    federation: Rehearsal,
    routes: list[tuple[str, str, bool]],
    pool: urllib3.HTTPSConnectionPool,
) -> None:
    before = state_of(federation)
    for what, headers in kinds_of_headers(federation).items():
        for method, path, local in routes:
            if (method, path) == ("GET", "/v1/authority") or (local and not headers):
                continue  # the authority is public; probes from this machine need no proof
            answer = ask(pool, method, path, headers)
            assert answer.status in REFUSED, f"{method} {path} with {what}: {answer.status}"
            assert b"Traceback" not in answer.data
    assert state_of(federation) == before


def test_every_route_refuses_a_key_that_no_member_has(
    federation: Rehearsal,
    routes: list[tuple[str, str, bool]],
    pool: urllib3.HTTPSConnectionPool,
) -> None:
    before = state_of(federation)
    key = new_key()
    session = stolen_session(federation, pool)
    for told in (session, to_text(b"\1" * 72)):
        prover = Prover(key, told)
        for method, path, _ in routes:
            if (method, path) in OPEN_ROUTES:
                continue
            digest = blake3(BODIES[method]).hexdigest()
            proof = prover.header(method, path, digest)
            answer = ask(pool, method, path, {"Hansa-Proof": proof})
            assert answer.status in REFUSED, f"{method} {path}: {answer.status}"
    assert state_of(federation) == before


def stolen_session(federation: Rehearsal, pool: urllib3.HTTPSConnectionPool) -> str:
    """Show the admin's own certificate: it is no secret, and proves nothing."""
    asked = msgspec.json.encode(SessionRequest(certificate=federation.membership.certificate()))
    answer = pool.urlopen("POST", "/v1/sessions", body=asked)
    if answer.status != 200:
        assert answer.status in REFUSED
        return to_text(b"\2" * 72)
    session: str = msgspec.json.decode(answer.data)["session"]
    return session


def test_a_certificate_of_another_authority_opens_no_session(
    federation: Rehearsal, tmp_path: Path
) -> None:
    create_authority(tmp_path, federation="rehearsal")
    key = new_key()
    certificate = load_authority(tmp_path).issue_member("admin", "admin", key.public)
    before = state_of(federation)
    with Connection(
        federation.url,
        authority_pem=federation.membership.authority_pem,
        key=key,
        certificate=certificate,
    ) as asked:
        for method, path in (("GET", "/v1/members"), ("GET", "/v1/runs")):
            with pytest.raises(HansaError) as refused:
                asked.call(method, path, kind=dict[str, Any])
            assert isinstance(refused.value, RequestRefused)
            assert refused.value.status in REFUSED
    assert state_of(federation) == before


def test_nobody_enrols_without_an_invitation_that_holds(
    federation: Rehearsal, tmp_path: Path
) -> None:
    before = state_of(federation)
    authority = load_authority(federation.folder / "server").fingerprint
    for n, token in enumerate((new_token(), "", "x" * 80, new_token())):
        with pytest.raises(HansaError):
            enrol(Invite(federation.url, token, authority), tmp_path / f"{n}")
        assert not (tmp_path / f"{n}" / "member.json").exists()
    key = new_key()
    token = new_token()
    other_proof = Enrolment(
        token=token,
        public_key=to_text(key.public),
        proof=to_text(new_key().sign(enrolment_text(token))),
    )
    with (
        Connection(federation.url, authority_pem=federation.membership.authority_pem) as asked,
        pytest.raises(RequestRefused),
    ):
        asked.call("POST", "/v1/enrolments", other_proof, kind=dict[str, Any])
    assert state_of(federation) == before


def test_a_server_with_another_authority_is_not_spoken_to(
    federation: Rehearsal, tmp_path: Path
) -> None:
    create_authority(tmp_path, federation="rehearsal")
    other = load_authority(tmp_path)
    with (
        pytest.raises(HansaError) as refused,
        Connection(federation.url, authority_pem=other.pem) as asked,
    ):
        asked.call("GET", "/v1/members", kind=dict[str, Any])
    assert refused.value.code == "identity-tls"
    with pytest.raises(HansaError):
        enrol(Invite(federation.url, new_token(), other.fingerprint), tmp_path / "member")
