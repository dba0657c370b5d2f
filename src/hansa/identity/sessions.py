"""The server's side of proofs: sessions, and a window of counters against replays.

A request counts if its session is one that this process has given out and still knows, its
signature is by the member's key over all of the request, and its counter was not seen before.

A session's token is its name in the table, drawn at random, and says nothing by itself.  What makes
dropping a session safe: one that is not in the table is refused, and never taken up again, so its
counters cannot be used a second time; the member opens another one.  The same holds for all of
them when the process starts again.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from hansa.clock import monotonic
from hansa.errors import IdentityError
from hansa.identity.keys import from_text, to_text, verify
from hansa.identity.proof import COUNTER_MAX, proof_text
from hansa.limits import (
    REPLAY_WINDOW,
    SESSION_S,
    SESSIONS_MAX,
    SESSIONS_OF_MEMBER_MAX,
)

_HEADER = re.compile(r"([A-Za-z0-9_-]{96}) ([1-9][0-9]{0,18}) ([0-9a-f]{64}) ([A-Za-z0-9_-]{86})")
_TOKEN_BYTES = 72  # 96 characters


class Proof(NamedTuple):
    """What a request has proven."""

    fingerprint: str  # of the member's key
    member: str  # name, as it was when the session was opened
    body_digest: str  # BLAKE3 that the body must have, 64 hexadecimal characters
    renewing: bool  # the session was opened with an expired certificate: good to renew it only


class _Session:
    """One open session; `seen` has bit i set if counter `highest - i` was used."""

    __slots__ = ("expiry", "fingerprint", "highest", "member", "renewing", "seen", "turn")

    def __init__(self, fingerprint: str, member: str, *, expiry: float, renewing: bool) -> None:
        self.fingerprint = fingerprint
        self.member = member
        self.expiry = expiry
        self.renewing = renewing
        self.highest = 0
        self.seen = 0
        self.turn = 0  # of its last use among those of all sessions; 0: it was never used

    def use(self, counter: int) -> bool:
        """Take a counter; False if it was used, or is so old that nobody knows."""
        ahead = counter - self.highest
        if ahead > 0:
            # A jump beyond the window forgets all of it; shifting by it could take any memory.
            kept = self.seen << ahead if ahead < REPLAY_WINDOW else 0
            self.seen = (kept & ((1 << REPLAY_WINDOW) - 1)) | 1
            self.highest = counter
            return True
        bit = 1 << -ahead if -ahead < REPLAY_WINDOW else 0
        fresh = bool(bit) and not self.seen & bit
        self.seen |= bit
        return fresh


class Sessions:
    """All open sessions of one server process; threads may share it.

    Args:
      clock: seconds that never go back.
      per_member: how many sessions one member may have.
      limit: how many there may be in all.
    """

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        *,
        per_member: int = SESSIONS_OF_MEMBER_MAX,
        limit: int = SESSIONS_MAX,
    ) -> None:
        self._clock = clock
        self._per_member = per_member
        self._limit = limit
        self._lock = threading.Lock()
        self._of: dict[str, list[str]] = {}  # fingerprint -> sessions, oldest first
        self._turn = 0
        # In order of their last use.  Anybody who has seen a member's certificate can open
        # sessions in its name, but prove nothing with them: those that have proven nothing go
        # first, so that nobody can push out the sessions of another.
        self._new: OrderedDict[str, _Session] = OrderedDict()
        self._used: OrderedDict[str, _Session] = OrderedDict()

    def open(
        self, fingerprint: str, member: str, *, seconds: float = SESSION_S, renewing: bool = False
    ) -> tuple[str, float]:
        """Open a session for the holder of a key; return its token and its seconds.

        Args:
          fingerprint: of the member's key, 32 hexadecimal characters.
          member: its name.
          seconds: at most so long; never longer than the limit.
          renewing: it was opened with an expired certificate.
        """
        seconds = min(seconds, SESSION_S)
        now, token = self._clock(), to_text(os.urandom(_TOKEN_BYTES))
        session = _Session(fingerprint, member, expiry=now + seconds, renewing=renewing)
        with self._lock:
            self._drop_ended(now)
            if len(self._of.get(fingerprint, ())) >= self._per_member:
                # One that has proven nothing, or else the longest idle.
                self._drop(min(self._of[fingerprint], key=lambda t: self._session(t).turn))
            if len(self._new) + len(self._used) >= self._limit:
                self._drop(next(iter(self._new or self._used)))
            self._new[token] = session
            self._of.setdefault(fingerprint, []).append(token)
        return token, seconds

    def holder(self, header: str) -> str:
        """Return the fingerprint that a request says it is of; nothing is proven by that.

        Raises:
          IdentityError: identity-proof, identity-session.
        """
        token, *_ = _parse(header)
        with self._lock:
            return self._find(token).fingerprint

    def check(
        self,
        header: str,
        method: str,
        target: str,
        *,
        public_key_of: Callable[[str], bytes | None],
    ) -> Proof:
        """Return what a request has proven; it is then used up and cannot be repeated.

        Args:
          header: value of `Hansa-Proof`.
          method: as received.
          target: path and query as received.
          public_key_of: the key of a member by its fingerprint; None: it is not a member, or no
            longer one.

        Raises:
          IdentityError: identity-proof, the header is malformed or its signature is not over this
            request; identity-session, the session has ended or is unknown; identity-replayed;
            identity-member, there is no such member.
        """
        token, counter, digest, signature = _parse(header)
        with self._lock:
            session = self._find(token)
        public = public_key_of(session.fingerprint)
        if public is None:
            raise IdentityError(
                "identity-member",
                f"{session.member} is not a member of this federation, or no longer one.",
                "Ask the operator of the federation for an invitation.",
            )
        text = proof_text(method, target, digest, session=token, counter=counter)
        try:
            verify(public, signature, text)
        except IdentityError:
            raise _bad_proof("its signature is not over this request by this member") from None
        with self._lock:
            session = self._find(token)  # it may have been dropped meanwhile
            fresh = session.use(counter)
            self._new.pop(token, None)
            self._used[token] = session
            self._used.move_to_end(token)
            self._turn += 1
            session.turn = self._turn
        if not fresh:
            raise IdentityError(
                "identity-replayed",
                f"A request of {session.member} came twice, or {REPLAY_WINDOW} or more requests"
                f" late (counter {counter}); it was not carried out again.",
                "Sign a repetition anew.  If nothing was repeated, somebody else sends copies.",
            )
        return Proof(session.fingerprint, session.member, digest, session.renewing)

    def close_member(self, fingerprint: str, *, renewing: bool = False) -> None:
        """End all sessions of a key, as when its member is revoked.

        Args:
          fingerprint: of the key.
          renewing: end those alone that were opened with an expired certificate.
        """
        with self._lock:
            for token in tuple(self._of.get(fingerprint, ())):
                if self._session(token).renewing or not renewing:
                    self._drop(token)

    def __len__(self) -> int:
        return len(self._new) + len(self._used)

    def _find(self, token: str) -> _Session:
        """Return the session of a token; the lock is held."""
        session = self._new.get(token) or self._used.get(token)
        if session is None or self._clock() >= session.expiry:
            raise IdentityError(
                "identity-session",
                "The session has ended, or is not of this process of the server.",
                "Open another one and repeat the request; Hansa's own programs do so themselves.",
            )
        return session

    def _session(self, token: str) -> _Session:
        return self._new.get(token) or self._used[token]

    def _drop(self, token: str) -> None:
        session = self._new.pop(token, None) or self._used.pop(token)
        of = self._of[session.fingerprint]
        of.remove(token)
        if not of:
            del self._of[session.fingerprint]

    def _drop_ended(self, now: float) -> None:
        """Drop sessions from the idle end that are over; the limits bound what is left."""
        for table in (self._new, self._used):
            while table and (first := next(iter(table.items())))[1].expiry <= now:
                self._drop(first[0])


@functools.lru_cache(maxsize=256)  # asked twice for each request
def _parse(header: str) -> tuple[str, int, str, bytes]:
    """Return token, counter, body digest and signature."""
    match = _HEADER.fullmatch(header) if len(header) <= 300 else None
    if match is None or int(match[2]) > COUNTER_MAX:
        raise _bad_proof("it is not `SESSION COUNTER DIGEST SIGNATURE`")
    try:
        return match[1], int(match[2]), match[3], from_text(match[4])
    except IdentityError:
        raise _bad_proof("its signature has another spelling") from None


def _bad_proof(why: str) -> IdentityError:
    return IdentityError(
        "identity-proof",
        f"The proof of a request was refused: {why}; nothing was done.",
        "Send the request exactly as it was signed.  A proxy on the way may have changed it.",
    )
