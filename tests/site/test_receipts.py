"""The server's receipts, page by page, and those that it did not sign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from sample_site import Sample, make_site

from hansa.identity import load_membership, sign_receipt
from hansa.protocol.messages import Receipt
from hansa.site.receipts import fetch_receipts, forged


@pytest.fixture
def site(tmp_path: Path) -> Sample:
    return make_site(tmp_path / "north")


def receipt(site: Sample, number: int) -> Receipt:
    facts: dict[str, Any] = {
        "run": "study-1", "round": number, "phase": "train", "client": "north",
        "digest": f"blake3:{number:064}", "size": 40, "at": "2026-01-01",
    }  # fmt: skip
    return Receipt(**facts, signature=sign_receipt(site.receipts, *facts.values()))


def test_all_pages_are_fetched_and_the_connection_is_closed(
    site: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [receipt(site, number) for number in range(1, 8)]
    asked: list[str] = []

    class Server:
        def __init__(self, url: str, **_: Any) -> None:
            asked.append(url)

        def call(self, method: str, path: str, *, kind: Any) -> Any:
            asked.append(f"{method} {path}")
            after = int(path.partition("after=")[2])
            page = there[after : after + 3]
            return msgspec.convert(
                {"receipts": msgspec.to_builtins(page), "next": after + len(page)}, kind
            )

        def close(self) -> None:
            asked.append("closed")

    monkeypatch.setattr("hansa.protocol.enrolment.Connection", Server)
    assert fetch_receipts(load_membership(site.folder)) == there
    assert asked[0] == "https://hansa.test:443"
    assert asked[1:3] == ["GET /v1/receipts?after=0", "GET /v1/receipts?after=3"]
    assert asked[-1] == "closed"


def test_only_what_the_server_signed_for_this_site_is_no_forgery(site: Sample) -> None:
    true = receipt(site, 1)
    membership = load_membership(site.folder)
    assert forged([true], membership) == []
    for change in ({"round": 2}, {"size": 41}, {"at": "x"}, {"phase": "evaluate"},
                   {"signature": ""}, {"signature": "!"}, {"client": "south"}):  # fmt: skip
        (found,) = forged([msgspec.structs.replace(true, **change)], membership)
        assert found.run == "study-1"
