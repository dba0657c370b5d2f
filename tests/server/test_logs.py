import json
import logging
import sys

import pytest

from hansa.server import refusals
from hansa.server.logs import GRANIAN_LOG, Line, OnlyNews, log_to_stderr
from hansa.store.faults import disk_failed, disk_full, missing


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("hansa.server", logging.ERROR, "x.py", 1, message, args, info)


def failure() -> BaseException:
    try:
        raise ValueError("no\x1b[2Jpe")
    except ValueError as error:
        return error


def test_a_plain_line_has_time_level_and_message():
    line = Line(as_json=False).format(record("run %s waits", "study-1"))
    assert line.endswith(" error   run study-1 waits")
    assert line.startswith("20") and "\n" not in line


def test_a_stranger_cannot_write_lines_or_escape_sequences_into_the_log():
    hostile = "GET /\n2026-01-01 info all is well\x1b[2J"
    line = Line(as_json=False).format(record("%s", hostile))
    assert "\n" not in line and "\x1b" not in line


def test_a_json_line_is_one_object_also_with_a_traceback():
    text = Line(as_json=True).format(record("%s", "a\nb", error=failure()))
    assert "\n" not in text
    facts = json.loads(text)
    assert (facts["level"], facts["logger"], facts["message"]) == ("error", "hansa.server", "a b")
    assert "ValueError" in facts["traceback"]


def test_a_plain_traceback_follows_on_lines_of_its_own():
    first, *more = Line(as_json=False).format(record("failed", error=failure())).splitlines()
    assert first.endswith("failed")
    assert more[0].startswith("Traceback") and "ValueError" in more[-1]
    assert more[1].startswith("  File") and "\x1b" not in "".join(more)


def test_the_http_server_says_only_what_is_news():
    said = record("Embedded server is experimental!")
    assert not OnlyNews().filter(said)
    assert OnlyNews().filter(record("Killing worker"))
    assert all(not logger["handlers"] for logger in GRANIAN_LOG["loggers"].values())


def test_a_full_disk_is_told_to_the_operator_once_a_minute(caplog, monkeypatch):
    """Only sites and submitters are refused, and these try again and again."""
    at = [100.0]
    monkeypatch.setattr(refusals, "_told", {})
    monkeypatch.setattr(refusals, "monotonic", lambda: at[0])
    for at[0] in (100.0, 101.0, 159.0, 161.0, 170.0):
        assert refusals.answer(disk_full("blob 7")).status_code == 507
    assert [r.getMessage() for r in caplog.records] == [disk_full("blob 7").happened] * 2
    refusals.answer(disk_failed("blob 7", "Input/output error"))
    assert "Input/output error" in caplog.records[-1].getMessage()
    refusals.answer(missing("blake3:7"))
    assert len(caplog.records) == 3


@pytest.mark.parametrize("as_json", [False, True])
def test_the_log_goes_to_standard_error(monkeypatch, capsys, as_json):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log_to_stderr(as_json=as_json)
    assert logging.getLogger().handlers[0].stream is sys.stderr
    logging.getLogger("hansa.server").info("serving")
    logging.getLogger("somebody").info("chatter")
    captured = capsys.readouterr()
    assert "serving" in captured.err and "chatter" not in captured.err and captured.out == ""
