"""The one way in: who a request is from, and whether that member may make it.

A `Principal` is made here alone, and only of a request that has proven itself.  Code that takes
one can therefore not be reached by a request that has not.
"""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Literal, NamedTuple

from starlette.requests import Request

from hansa.clock import monotonic, wall
from hansa.errors import IdentityError
from hansa.identity import (
    Authority,
    MemberCertificate,
    Role,
    Sessions,
    check_certificate,
    renewal_due,
    token_hash,
)
from hansa.limits import (
    MEMBER_CACHE_MAX,
    MEMBER_CACHE_S,
    RENEWAL_DAYS,
    SESSION_S,
)
from hansa.protocol.messages import SessionAnswer, SessionRequest
from hansa.server import members
from hansa.server.members import Member
from hansa.server.sources import Rates, from_this_machine, source_of
from hansa.server.tokens import token_by_hash, token_member
from hansa.store.database import Database

_LOOKS = ("GET", "HEAD")


class Principal(NamedTuple):
    """Who a request is from, as proven."""

    name: str
    kind: Literal["site", "combiner", "person", "token", "local"]
    role: Role | Literal["local"]  # local: a process on the server's own machine
    fingerprint: str  # of the key; of a bearer token its hash; empty if local


class Gate:
    """Admits requests.

    Args:
      db: knows the members.
      authority: has signed their certificates.
      sessions: those that are open.
      rates: of addresses that have proven nothing.
      loopback: whether a request from this machine needs no proof where the role `local` may ask.
        Never behind a proxy on this machine: all requests would seem to be from here.
      clock: seconds that never go back.
    """

    def __init__(
        self,
        db: Database,
        authority: Authority,
        sessions: Sessions,
        *,
        rates: Rates | None = None,
        loopback: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._db = db
        self._authority = authority
        self._sessions = sessions
        self._clock = clock
        self.rates = rates or Rates()
        self._loopback = loopback
        self._lock = threading.Lock()  # of the cache: a revocation comes from another thread
        self._asked = 0  # grows when what the database has said no longer counts
        self._cache: OrderedDict[str, tuple[Member | None, float]] = OrderedDict()

    async def admit(
        self, request: Request, roles: Collection[str], *, renewing: bool = False
    ) -> tuple[Principal, str | None]:
        """Return who asks, and the digest that the body must have.

        Args:
          request: its body has not been read, and must not be used before its digest is checked.
          roles: those that may ask this; none of them: nobody may.
          renewing: whether an expired certificate will do, as for its own renewal.

        Returns:
          the principal; and 64 hexadecimal characters, or None where nothing was signed: then the
          request must not have a body.

        Raises:
          IdentityError: identity-proof, identity-session, identity-replayed, identity-member,
            identity-expired; identity-role, the member may not do this.
          ServerError: too-many-requests, from an address that shows tokens which are none; and as
            `Database.read`.
        """
        proofs = request.headers.getlist("hansa-proof")
        bearers = request.headers.getlist("authorization")
        plain = not proofs and not bearers
        if plain and "local" in roles and self._loopback and from_this_machine(request):
            return Principal("local", "local", "local", ""), None
        if len(proofs) == 1 and not bearers:
            principal, digest = await self._proven(request, proofs[0], renewing=renewing)
        elif len(bearers) == 1 and not proofs:
            principal, digest = await self._bearer(request, bearers[0]), None
        else:
            raise _no_proof(f"it brings {len(proofs)} proofs and {len(bearers)} tokens")
        if principal.role not in roles:
            raise IdentityError(
                "identity-role",
                f"{principal.name} is {principal.role} and may not {request.method}"
                f" {request.url.path[:200]}; nothing was done.",
                f"It takes {' or '.join(roles) or 'nobody'}."
                " The federation's operator gives out roles.",
            )
        return principal, digest

    async def open_session(self, asked: SessionRequest) -> SessionAnswer:
        """Open a session for a member who shows its certificate; it proves nothing yet.

        An expired certificate opens one that is good for its own renewal alone.

        Raises:
          IdentityError: identity-certificate, identity-expired, identity-member.
          ServerError: as `Database.read`.
        """
        at = wall()
        certificate, renewing = self._certificate(asked.certificate, at=at)
        found = await asyncio.to_thread(members.member_by_name, self._db, certificate.name)
        if found is None or not found.active:
            raise members.not_a_member(certificate.name)
        if not hmac.compare_digest(found.public, certificate.public):
            raise IdentityError(
                "identity-certificate",
                f"A certificate was refused: {found.name} has another key by now.",
                "Use the folder that joined last under this name.",
            )
        # With its certificate a session ends too; the next one is opened with the renewed one.
        seconds = SESSION_S if renewing else min(SESSION_S, certificate.not_after - at)
        token, seconds = self._sessions.open(
            found.fingerprint, found.name, seconds=seconds, renewing=renewing
        )
        return SessionAnswer(session=token, seconds=seconds, renew=renewal_due(certificate, at=at))

    async def renew(self, principal: Principal) -> tuple[Member, str]:
        """Return the member with a new certificate; sessions of the expired one end.

        Raises:
          IdentityError: identity-member.
          ServerError: as `Database.write`.
        """
        renewed = await asyncio.to_thread(
            members.renew, self._db, self._authority, principal.name, at=wall()
        )
        self._sessions.close_member(principal.fingerprint, renewing=True)
        return renewed

    async def still(self, principal: Principal) -> None:
        """Return if the principal of a request that waits may still be answered.

        Raises:
          IdentityError: identity-member, it was revoked meanwhile.
          ServerError: as `Database.read`.
        """
        if principal.kind == "local":
            return
        if principal.kind == "token":
            holds: object = await asyncio.to_thread(
                token_by_hash, self._db, principal.fingerprint, at=wall()
            )
        else:
            holds = await self._member(principal.fingerprint)
        if holds is None:
            raise members.not_a_member(principal.name)

    def forget(self, fingerprint: str | None = None) -> None:
        """Let a revocation by this process be felt at once; those by others are within seconds.

        Args:
          fingerprint: of the member's key; None: ask the database anew about all.
        """
        with self._lock:
            if fingerprint is None:
                self._cache.clear()
            else:
                self._cache.pop(fingerprint, None)
            self._asked += 1
        if fingerprint is not None:
            self._sessions.close_member(fingerprint)

    async def _proven(
        self, request: Request, header: str, *, renewing: bool
    ) -> tuple[Principal, str]:
        fingerprint = self._sessions.holder(header)
        member = await self._member(fingerprint)

        def key(of: str) -> bytes | None:
            return member.public if member is not None and of == member.fingerprint else None

        method, target = request.method, target_of(request)
        proof = self._sessions.check(header, method, target, public_key_of=key)
        if member is None:  # unreachable: there was no key to check with
            raise members.not_a_member(proof.member)
        if proof.renewing and not renewing:
            raise IdentityError(
                "identity-expired",
                f"The certificate of {member.name} has expired; it is good for its renewal only.",
                "Renew it; a site's agent and the command line do so by themselves.",
            )
        principal = Principal(member.name, member.kind, member.role, member.fingerprint)
        return principal, proof.body_digest

    async def _bearer(self, request: Request, header: str) -> Principal:
        scheme, _, token = header.partition(" ")
        if request.method not in _LOOKS or scheme.lower() != "bearer":
            raise _no_proof("a token lets nobody do more than look")
        found = await asyncio.to_thread(token_member, self._db, token, at=wall())
        if found is None:
            self.rates.take(source_of(request))
            raise _no_proof("its token is unknown, revoked or too old")
        return Principal(found.name, "token", found.role, token_hash(token))

    async def _member(self, fingerprint: str) -> Member | None:
        """Return an active member by its key, as it was at most `MEMBER_CACHE_S` ago."""
        with self._lock:
            member, since = self._cache.get(fingerprint, (None, float("-inf")))
            asked = self._asked
        if self._clock() - since < MEMBER_CACHE_S:
            return member
        since = self._clock()  # before the database is asked: what it says may be as old
        found = await asyncio.to_thread(members.member_by_fingerprint, self._db, fingerprint)
        member = found if found is not None and found.active else None
        with self._lock:
            if asked == self._asked:
                self._cache[fingerprint] = (member, since)
                self._cache.move_to_end(fingerprint)
            if len(self._cache) > MEMBER_CACHE_MAX:
                self._cache.popitem(last=False)
        return member

    def _certificate(self, pem: str, *, at: float) -> tuple[MemberCertificate, bool]:
        """Return a certificate, and whether it is good for its renewal only."""
        try:
            return check_certificate(pem, self._authority.pem, at=at), False
        except IdentityError as error:
            if error.code != "identity-expired":
                raise
        certificate = check_certificate(pem, self._authority.pem, at=None)
        if at - certificate.not_after >= RENEWAL_DAYS * 86_400:
            raise IdentityError(
                "identity-expired",
                f"The certificate of {certificate.name} expired more than {RENEWAL_DAYS:g} days"
                " ago, and cannot be renewed any more.",
                "Ask the operator to revoke and invite this member again, then join again.",
            )
        return certificate, True


def target_of(request: Request) -> str:
    """Return path and query exactly as they came, which is what a proof is over."""
    path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    query: bytes = request.scope.get("query_string", b"")
    return (path + b"?" + query if query else path).decode("latin-1")


def _no_proof(why: str) -> IdentityError:
    return IdentityError(
        "identity-proof",
        f"The request was refused: {why}; nothing was done.",
        "Sign the request with a member's key, or look with a token: Authorization: Bearer ...",
    )
