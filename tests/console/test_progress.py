"""Where a run stands: told from events, with who is silent and since when."""

from __future__ import annotations

import pytest

from hansa.console.answers import client_rows, done, engine, run_lines, table
from hansa.console.progress import Progress
from hansa.limits import CONSOLE_KEPT
from hansa.protocol.messages import RunFacts


def event(kind: str, second: int, **facts: object) -> dict[str, object]:
    return {"kind": kind, "at": f"12:00:{second:02}", **facts}


def opened(second: int, number: int, phase: str = "train") -> dict[str, object]:
    return event("opened", second, round=number, phase=phase, cohort=["a", "b", "c"])


def result(second: int, client: str, state: str, phase: str = "train") -> dict[str, object]:
    return event("result", second, round=2, phase=phase, client=client, state=state)


def row(number: int) -> dict[str, object]:
    return {"round": number}


def test_who_has_not_answered_is_named_with_the_round_and_the_time() -> None:
    progress = Progress()
    progress.take([event("started", 0), opened(1, 2), result(5, "a", "accepted")])
    progress.take([result(7, "b", "lost")])
    assert progress.read == 4
    assert progress.silent() == ["b", "c"]
    facts = RunFacts(run="r-1", state="running", submitter="ada", rounds_done=1, rounds=5)
    lines = list(run_lines(facts, progress))
    assert lines[0] == "Run: r-1 of ada, running; round 1 of 5 is committed"
    assert lines[1] == "Round 2: 3 asked to train since 12:00:01, 1 answered; not yet: b, c"
    assert progress.parts == {
        "a": ("update counted", "12:00:05"),
        "b": ("not heard of", "12:00:07"),
        "c": ("training", "12:00:01"),
    }
    progress.take([result(8, "b", "returned"), result(9, "b", "failed")])
    assert progress.parts["b"] == ("failed", "12:00:09") and progress.silent() == ["c"]
    progress.take([event("closed", 10), opened(11, 2, "evaluate")])
    assert progress.silent() == ["a", "b", "c"]
    progress.take([result(12, "a", "accepted", "evaluate")])
    assert progress.parts["a"] == ("evaluation counted", "12:00:12")
    progress.take([event("committed", 13, round=2, row=row(2))])
    assert progress.silent() == [] and progress.committed == 2 and progress.rows == [row(2)]


def test_a_long_run_takes_no_more_memory_than_a_short_one() -> None:
    progress = Progress()
    for number in range(1, 200):
        problem = event("problem", 0, round=number, client="a", what="failed", code="", message="m")
        progress.take([problem, event("committed", 0, round=number, row=row(number))])
    assert len(progress.rows) == len(progress.problems) == CONSOLE_KEPT
    assert progress.rows[-1] == row(199)


def test_why_a_run_waits_and_how_it_ended() -> None:
    progress = Progress()
    progress.take([event("waiting", 1, reason="1 of 2 sites is ready")])
    waits = RunFacts(run="r-1", state="waiting", reason="1 of 2 sites is ready", rounds=5)
    assert "Waiting: 1 of 2 sites is ready" in list(run_lines(waits, progress))
    progress.take([event("ended", 2, state="failed", reason="nobody\x1b", code="run-too-few")])
    ended = RunFacts(run="r-1", state="failed", reason="nobody\x1b", rounds=5)
    assert list(run_lines(ended, progress))[-1] == "Ended: nobody\\u001b"


@pytest.mark.parametrize(
    ("state", "word"),
    [("waiting", "starting"), ("running", "started"), ("finished", "stopped"),
     ("failed", "stopped"), ("stopped", "stopped")],
)  # fmt: skip
def test_the_engine_is_told_in_flares_words(state: str, word: str) -> None:
    assert engine(RunFacts(run="r-1", state=state)) == word  # type: ignore[arg-type]
    assert engine(None) == "stopped"


def test_each_client_is_told_with_its_reason() -> None:
    progress = Progress()
    progress.take([opened(1, 2), result(5, "a", "accepted")])
    members = {name: {"state": "active"} for name in "abdef"} | {"g": {"state": "silent"}}
    said = {"a": ("ready", ""), "b": ("ready", ""), "d": ("waiting", "it asks"),
            "e": ("refused", "no"), "x": ("ready", "")}  # fmt: skip
    heard = {"a": "T1", "g": "T2"}
    names = ["a", "b", "d", "e", "f", "g", "h", "x"]
    rows = client_rows(names, members, progress, said, heard)
    assert rows == [
        ["a", "T1", "round 2: update counted since 12:00:05"],
        ["b", "never", "round 2: training since 12:00:01"],
        ["d", "never", "its owner has not decided: it asks"],
        ["e", "never", "does not take part: no"],
        ["f", "never", "has not answered to the run yet"],
        ["g", "T2", "No Reply since T2"],
        ["h", "never", "has not answered to the run yet"],
        ["x", "never", "not asked in round 2"],
    ]
    assert client_rows(["a"], members, None, {}, {}) == [["a", "never", "ready"]]


def test_a_table_has_flares_frame_and_no_control_characters() -> None:
    assert table(["CLIENT", "RESPONSE"], [["site-1", "OK"], ["s", "No Reply"]]).splitlines() == [
        "---------------------",
        "| CLIENT | RESPONSE |",
        "---------------------",
        "| site-1 | OK       |",
        "| s      | No Reply |",
        "---------------------",
    ]
    text = table(["CLIENT"], [["a\x1bb"]])
    assert "\x1b" not in text and len({len(line) for line in text.splitlines()}) == 1


def test_the_closing_line_is_flares() -> None:
    assert (
        done(0.0015, "2026-01-01T00:00:00+00:00") == "Done [1500 usecs] 2026-01-01T00:00:00+00:00"
    )
