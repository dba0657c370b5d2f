"""An update that brings its result along: one request, whose answer is the receipt.

The body is the update.  The result is a header, whose digest is in the query, so that the proof of
the request is over both.  Results of many words, and large updates, are two requests.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path

import msgspec
from blake3 import blake3

from hansa.errors import IdentityError, RequestRefused
from hansa.identity.keys import from_text, to_text
from hansa.limits import CHUNK_BYTES, RESULT_HEADER_CHARS_MAX
from hansa.protocol.connection import Connection, Pieces
from hansa.protocol.messages import BlobRef, Receipt, TaskKey, TaskResult
from hansa.store.addresses import hex_of, mapped

HEADER = "Hansa-Result"


def deliver(
    connection: Connection,
    update: Path,
    *,
    ref: BlobRef,
    task: TaskKey,
    result: TaskResult,
    on_sent: Callable[[], None],
) -> Receipt | None:
    """Send an update with its result; resending is always safe.

    Args:
      connection: to the server.
      update: file that does not change meanwhile.
      ref: its digest and size.
      task: that it was computed for.
      result: names it.
      on_sent: called when all has left.

    Returns:
      the receipt; None if they do not go into one request, and nothing was sent.

    Raises:
      RequestRefused, ServerError, IdentityError: as `Connection.call`.
      OSError: the file cannot be read.
    """
    text = to_text(msgspec.json.encode(result))
    if ref.size > CHUNK_BYTES or len(text) > RESULT_HEADER_CHARS_MAX:
        return None
    query = f"run={task.run}&round={task.round}&phase={task.phase}&result={_digest(text)}"
    with mapped(update) as data:
        return connection.call(
            "PUT",
            f"/v1/updates/{ref.digest}?{query}",
            Pieces(data, CHUNK_BYTES, lambda _: on_sent()),
            headers={HEADER: text},
            digest=hex_of(ref.digest),
            kind=Receipt,
        )


def brought(text: str, digest: str) -> TaskResult:
    """Return the result that has come with an update.

    Args:
      text: of the header.
      digest: out of the query, which its sender has signed.

    Raises:
      RequestRefused: it is not the one that was signed, or none.
    """
    try:
        if len(text) > RESULT_HEADER_CHARS_MAX or not hmac.compare_digest(
            _digest(text).encode(), digest.encode()
        ):
            raise ValueError("the header is not the one that was signed")
        return msgspec.json.decode(from_text(text), type=TaskResult)
    except IdentityError:
        why = "the header is not base64url"
    except (ValueError, RecursionError) as error:
        why = str(error)
    raise RequestRefused(
        "request-message",
        f"The update brings no result: {why}. Nothing was done.",
        f"Use the server's release of Hansa; a proxy must pass the header {HEADER}.",
        status=422,
    )


def _digest(text: str) -> str:
    return blake3(text.encode()).hexdigest()
