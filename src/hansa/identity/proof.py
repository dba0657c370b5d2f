"""What members sign: each request, an enrolment, a submission.

Every text begins with its own word, so that a signature over one can never serve as another.
"""

from __future__ import annotations

import threading

import msgspec

from hansa.identity.keys import MemberKey, to_text

COUNTER_MAX = 2**63 - 1
"""Largest counter of a session; at a million requests a second it lasts for 290,000 years."""


def proof_text(method: str, target: str, body_digest: str, *, session: str, counter: int) -> bytes:
    """Return what a request's signature is over.

    Args:
      method: as sent, such as `GET`.
      target: path and query as sent.
      body_digest: BLAKE3 of the whole body, 64 hexadecimal characters; of no bytes if there is
        no body.
      session: as the server gave it.
      counter: from 1, never used before in this session.
    """
    fields = (method, target, body_digest, session, counter)
    return b"hansa-request-1\n" + msgspec.json.encode(fields)


def submission_text(identity: str, package: str) -> bytes:
    """Return what a submitter signs: the identity of plan and code, and the package's digest."""
    return b"hansa-submission-1\n" + msgspec.json.encode((identity, package))


def enrolment_text(token: str) -> bytes:
    """Return what a new member signs, which shows that it holds the key it enrols with."""
    return b"hansa-enrolment-1\n" + msgspec.json.encode(token)


class Prover:
    """Signs the requests of one session; threads may share it.

    Args:
      key: the member's.
      session: as the server gave it.
    """

    def __init__(self, key: MemberKey, session: str) -> None:
        self._key = key
        self._session = session
        self._counter = 0
        self._lock = threading.Lock()

    def header(self, method: str, target: str, body_digest: str) -> str:
        """Return the value of `Hansa-Proof` for one request; a repetition needs another one."""
        with self._lock:
            self._counter += 1
            counter = self._counter
        text = proof_text(method, target, body_digest, session=self._session, counter=counter)
        return f"{self._session} {counter} {body_digest} {to_text(self._key.sign(text))}"
