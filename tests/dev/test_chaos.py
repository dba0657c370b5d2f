"""Chaos without a rehearsal: when it begins, and what it says."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from hansa.dev.chaos import Chaos


def rehearsal(killed: threading.Event) -> Any:
    names = SimpleNamespace(names=[])
    return SimpleNamespace(
        proxies={}, combiners=names, names=["north"],
        kill=lambda who: killed.set(), start=lambda who: None,
    )  # fmt: skip


def test_a_run_that_ends_before_the_first_deed_is_told_apart() -> None:
    lines: list[str] = []
    with Chaos(rehearsal(threading.Event()), lines.append, pause_s=(1e6, 1e6), seed=1):
        pass
    assert lines == ["chaos: the run ended before anything was done to it; give it more --rounds"]


def test_the_first_deed_comes_sooner_than_the_others() -> None:
    lines: list[str] = []
    killed = threading.Event()
    with Chaos(rehearsal(killed), lines.append, pause_s=(0.01, 1e6), seed=1) as chaos:
        assert killed.wait(60)
    assert chaos.deeds == 1 and "kill -9" in lines[0]
