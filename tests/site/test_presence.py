"""What a running agent leaves in its folder for `hansa site status`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.site.presence import (
    AGENT_FILE,
    TROUBLE_FILE,
    Troubles,
    present,
    trouble_of,
    was_killed,
)


def test_a_trouble_is_kept_from_its_first_reason_until_it_is_over(tmp_path: Path) -> None:
    troubles = Troubles(tmp_path)
    assert not troubles.over()
    assert trouble_of(tmp_path) is None
    troubles.told("The server is away.")
    first = trouble_of(tmp_path)
    assert first is not None and first.reason == "The server is away."
    troubles.told("The server is busy.")
    second = trouble_of(tmp_path)
    assert second is not None and (second.reason, second.since) == (
        "The server is busy.",
        first.since,
    )
    assert troubles.over() and not troubles.over()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_down_does_not_end_the_agent(tmp_path: Path) -> None:
    troubles = Troubles(tmp_path / "gone")
    troubles.told("No space left on device")
    troubles.over()
    (tmp_path / TROUBLE_FILE).write_bytes(b"{")
    assert trouble_of(tmp_path) is None


def test_an_agent_that_was_killed_is_told_from_one_that_has_ended(tmp_path: Path) -> None:
    (tmp_path / TROUBLE_FILE).write_bytes(b'{"reason":"old","since":"then"}')
    with present(tmp_path):
        facts = (tmp_path / AGENT_FILE).read_bytes()
        assert trouble_of(tmp_path) is None  # it was another agent's
    assert not was_killed(tmp_path)
    with pytest.raises(KeyboardInterrupt), present(tmp_path):
        raise KeyboardInterrupt
    assert not was_killed(tmp_path)
    (tmp_path / AGENT_FILE).write_bytes(facts)
    assert was_killed(tmp_path)
