"""Lists of a server come in pages, of which whoever asks wants all."""

from __future__ import annotations

from typing import Any

import msgspec

from hansa.remote.asking import all_facts
from hansa.remote.trail import server_trail


class Pages:
    """A server's list, two entries a page."""

    def __init__(self, what: str, entries: list[dict[str, Any]]) -> None:
        self.what, self.entries, self.asked = what, entries, list[str]()

    def call(self, method: str, path: str, *, kind: type) -> Any:
        self.asked.append(path)
        after = int(path.partition("after=")[2].partition("&")[0])
        told = {self.what: self.entries[after : after + 2]}
        if after + 2 < len(self.entries):
            told["next"] = after + 2  # type: ignore[assignment]
        return msgspec.convert(told, kind)


def run(number: int) -> dict[str, Any]:
    return {"run": f"r-{number}", "state": "finished", "reason": "", "submitter": "ada",
            "rounds": 3, "rounds_done": 3, "sites": []}  # fmt: skip


def test_all_pages_of_runs_are_asked_for_in_order() -> None:
    server = Pages("runs", [run(n) for n in range(5)])
    assert [facts.run for facts in all_facts(server)] == [f"r-{n}" for n in range(5)]  # type: ignore[arg-type]
    assert server.asked == [f"/v1/runs?after={n}" for n in (0, 2, 4)]


def test_each_page_of_a_runs_models_is_of_that_run() -> None:
    server = Pages("models", [])
    assert server_trail(server, "my run").models == []  # type: ignore[arg-type]
    assert server.asked == ["/v1/models?after=0&run=my%20run"]
