"""Every refusal as an answer: a status, and JSON with code, message and hint."""

from __future__ import annotations

import logging
import math

import msgspec
from starlette.responses import Response

from hansa.clock import monotonic
from hansa.errors import (
    HansaError,
    PackageError,
    ParamsError,
    PlanError,
    RequestRefused,
    RunError,
    UpdateRefused,
)
from hansa.limits import DISK_TOLD_S, INVITE_LOCK_S, RETRY_AFTER_S
from hansa.protocol.messages import ErrorAnswer

log = logging.getLogger("hansa.server")

STATUS: dict[str, int] = {
    "function-refused": 403,
    "identity-certificate": 401,
    "identity-expired": 401,
    "identity-member": 401,
    "identity-proof": 401,
    "identity-replayed": 401,
    "identity-session": 401,
    "identity-signature": 401,
    "identity-role": 403,
    "invite-malformed": 422,
    "invite-refused": 403,
    "invite-locked": 429,
    "too-many-requests": 429,
    "member-exists": 409,
    "member-invalid": 422,
    "member-missing": 404,
    "blob-missing": 404,
    "blob-address": 404,
    "blob-digest": 422,
    "blob-too-large": 413,
    "run-not-found": 404,
    "run-ended": 409,
    "run-busy": 409,
    "round-not-open": 503,
    "update-duplicate": 409,
    "server-disk-full": 507,
    "server-disk": 503,
    "server-database": 503,
    "server-unreachable": 503,
    "request-route": 404,
    "request-message": 422,
    "upload-unwanted": 409,
    "update-late": 409,
    "update-conflict": 409,
    "update-not-asked": 409,
    "update-failed": 409,
    "update-missing": 409,
}
"""Of the codes that a server answers with; the others have the status of their kind."""

_KINDS: dict[type[HansaError], int] = {
    PackageError: 422,
    ParamsError: 422,
    PlanError: 422,
    RunError: 409,
    UpdateRefused: 422,
}

_SOON = "round-not-open"
"""Mostly over in milliseconds; who asks waits a little longer each time by itself."""


def status_of(error: HansaError) -> int:
    """Return the status of an error; 500 where nobody has thought of it."""
    if isinstance(error, RequestRefused):
        return error.status
    of_kind = (status for kind, status in _KINDS.items() if isinstance(error, kind))
    return STATUS.get(error.code) or next(of_kind, 500)


_told: dict[str, float] = {}
"""When the log was last told of a fault of the disk, by code."""


def _tell_log(error: HansaError) -> None:
    """Let the operator know what only those who were refused would see; seldom, they ask again."""
    if error.code.startswith("server-disk") and not isinstance(error, RequestRefused):
        at = monotonic()
        if at - _told.get(error.code, -math.inf) >= DISK_TOLD_S:
            _told[error.code] = at
            log.error("%s", error.happened)


def answer(error: HansaError) -> Response:
    """Return a refusal as people and programs get it."""
    status = status_of(error)
    _tell_log(error)
    said = error.said if isinstance(error, RequestRefused) else error.code
    body = ErrorAnswer(error={"code": said, "message": error.happened, "hint": error.hint})
    headers = {"Cache-Control": "no-store"}
    if status in RETRY_AFTER_S and said != _SOON:
        wait = INVITE_LOCK_S if error.code == "invite-locked" else RETRY_AFTER_S[status]
        headers["Retry-After"] = f"{wait:.0f}"
    if status == 401:
        headers["WWW-Authenticate"] = "Hansa-Proof"
    return Response(
        msgspec.json.encode(body), status, headers=headers, media_type="application/json"
    )
