"""What a server does with a plan's own parts before their run has a place."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hansa.errors import RunError
from hansa.functions import Place
from hansa.limits import OWN_MADE_AT_ONCE
from hansa.own.process import Model, Parts
from hansa.own.serving import with_own
from hansa.plan import Plan


def test_runs_that_wait_have_few_processes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty of them are resumed with the server: each asks a process what its parts are."""
    more = threading.Barrier(OWN_MADE_AT_ONCE + 1)

    def facts(self: Parts) -> Any:
        with pytest.raises(threading.BrokenBarrierError):
            more.wait(0.3)  # for one too many
        raise RunError("function-failed", "It is only counted.", "Go on.")

    monkeypatch.setattr(Parts, "facts", facts)
    plan = Plan(workflow="mine.py:mine")

    def made(_: int) -> None:
        with pytest.raises(RunError, match="only counted"):
            with_own(plan, Place({}), Model([("w", "F32", [3])], []))

    with ThreadPoolExecutor(6) as runs:
        assert list(runs.map(made, range(6))) == [None] * 6
