"""An update that brings its result: what is sent, and what of it a server takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from hansa.errors import RequestRefused
from hansa.identity import to_text
from hansa.limits import CHUNK_BYTES, RESULT_HEADER_CHARS_MAX
from hansa.protocol.connection import Pieces
from hansa.protocol.delivery import HEADER, brought, deliver
from hansa.protocol.messages import BlobRef, Receipt, TaskKey, TaskResult

KEY = TaskKey(run="study-1", round=3, phase="train")
REF = BlobRef(digest=f"blake3:{blake3(b'update').hexdigest()}", size=6)
RESULT = TaskResult(state="done", update=REF, weight=2.5, metrics={"loss": (-1.25, 4.0)})


class Asked:
    """Takes what a client sends, and answers with a receipt."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes, dict[str, str], str]] = []

    def call(
        self, method: str, path: str, body: Pieces, *, headers: Any, digest: str, kind: Any
    ) -> Receipt:
        assert kind is Receipt
        self.requests.append((method, path, b"".join(map(bytes, body)), headers, digest))
        return Receipt(run="study-1", round=3, phase="train", client="north", digest=REF.digest,
                       size=6, at="")  # fmt: skip


def sent(tmp_path: Path, result: TaskResult, ref: BlobRef = REF) -> tuple[Asked, Any, list[bool]]:
    update, asked, left = tmp_path / "update", Asked(), list[bool]()
    update.write_bytes(b"update")
    answer = deliver(
        asked,  # type: ignore[arg-type]
        update, ref=ref, task=KEY, result=result, on_sent=lambda: left.append(True),
    )  # fmt: skip
    return asked, answer, left


def test_what_is_sent_is_what_the_server_reads(tmp_path: Path) -> None:
    asked, answer, left = sent(tmp_path, RESULT)
    [(method, path, body, headers, digest)] = asked.requests
    place, _, query = path.partition("?")
    said = dict(pair.split("=") for pair in query.split("&"))
    assert (method, place, body) == ("PUT", f"/v1/updates/{REF.digest}", b"update")
    assert digest == blake3(b"update").hexdigest() and left == [True]
    assert (said["run"], said["round"], said["phase"]) == ("study-1", "3", "train")
    assert brought(headers[HEADER], said["result"]) == RESULT
    assert answer.digest == REF.digest


@pytest.mark.parametrize(
    ("result", "ref"),
    [
        (RESULT, BlobRef(digest=REF.digest, size=CHUNK_BYTES + 1)),
        (TaskResult(state="done", metrics={"m" * 99 + str(n): (1.5, 2.5) for n in range(40)}), REF),
    ],
    ids=["a large update", "many words"],
)
def test_what_is_too_much_for_one_request_is_left_to_two(
    tmp_path: Path, result: TaskResult, ref: BlobRef
) -> None:
    asked, answer, left = sent(tmp_path, result, ref)
    assert answer is None and asked.requests == [] and left == []


def text_of(content: bytes) -> str:
    return to_text(content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64url!",
        text_of(b"no JSON"),
        text_of(b'{"state": "perhaps"}'),
        text_of(b"[" * 2_000),
        text_of(b" " * RESULT_HEADER_CHARS_MAX + msgspec.json.encode(RESULT)),
        "\u00e9",
    ],
)
def test_a_header_that_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(RequestRefused, match="brings no result") as caught:
        brought(text, blake3(text.encode()).hexdigest())
    assert (caught.value.status, caught.value.said) == (422, "request-message")


@pytest.mark.parametrize("digest", ["", "0" * 64, "\u00e9"])
def test_a_header_that_its_sender_has_not_signed_is_refused(digest: str) -> None:
    """A proxy that ends TLS can change headers, and not the query, which the proof is over."""
    with pytest.raises(RequestRefused, match="not the one that was signed"):
        brought(text_of(msgspec.json.encode(RESULT)), digest)
