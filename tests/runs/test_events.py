"""The event log: what is acknowledged is there, and damage is either a torn tail or an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.errors import RunError
from hansa.runs.events import EventLog


def written(path: Path) -> bytes:
    log = EventLog(path)
    log.append("started", engine="inline")
    log.append("committed", round=1, row={"loss": 0.5})
    log.append("committed", round=2, row={"loss": 0.25})
    return path.read_bytes()


def test_a_log_cut_at_any_byte_keeps_every_whole_line_and_can_be_continued(tmp_path: Path) -> None:
    content = written(tmp_path / "log")
    for cut in range(len(content)):
        path = tmp_path / "cut"
        path.write_bytes(content[:cut])
        log = EventLog(path)
        whole = content[:cut].count(b"\n")
        assert len(log.events) == whole, cut
        log.append("resumed")
        again = EventLog(path)
        assert [e["kind"] for e in again.events] == [
            *["started", "committed", "committed"][:whole],
            "resumed",
        ]


def test_a_flipped_byte_is_either_seen_or_leaves_the_line_valid_json(tmp_path: Path) -> None:
    content = written(tmp_path / "log")
    first_line = content.index(b"\n")
    seen = 0
    for position in range(first_line):
        damaged = bytearray(content)
        damaged[position] ^= 0x80  # never valid UTF-8 in an ASCII line
        path = tmp_path / "flipped"
        path.write_bytes(damaged)
        with pytest.raises(RunError) as error:
            EventLog(path)
        assert error.value.code == "run-damaged"
        seen += 1
    assert seen == first_line


def test_an_event_is_synchronised_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    log = EventLog(tmp_path / "log")
    log.append("started")
    assert synced == [(tmp_path / "log").stat().st_size]


def test_a_failed_sync_is_an_error_and_the_event_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    log = EventLog(tmp_path / "log")
    log.append("started")

    def refuse(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="Input/output"):
            log.append("committed", round=1)
    assert [e["kind"] for e in log.events] == ["started"]
    log.append("resumed")
    assert [e["kind"] for e in EventLog(tmp_path / "log").events] == ["started", "resumed"]


def test_a_log_that_somebody_else_has_continued_is_not_cut(tmp_path: Path) -> None:
    ours = EventLog(tmp_path / "log")
    ours.append("started")
    theirs = EventLog(tmp_path / "log")
    theirs.append("committed", round=1)
    content = (tmp_path / "log").read_bytes()
    with pytest.raises(RunError) as error:
        ours.append("resumed")
    assert error.value.code == "run-busy"
    assert (tmp_path / "log").read_bytes() == content
