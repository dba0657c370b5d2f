"""A workflow runs in the thread it is called in, and awaits nothing but its federation."""

from __future__ import annotations

import asyncio

import pytest

from hansa.errors import RunError
from hansa.workflows import drive


async def never_waits(value: int) -> int:
    return value


def test_the_result_of_a_workflow_that_never_waits_is_returned() -> None:
    async def workflow() -> int:
        return await never_waits(3) + await never_waits(4)

    assert drive(workflow()) == 7


def test_it_runs_inside_an_event_loop_too() -> None:
    async def notebook() -> int:
        return drive(never_waits(5))

    assert asyncio.run(notebook()) == 5


def test_what_a_workflow_raises_passes_through() -> None:
    async def workflow() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(workflow())


def test_a_workflow_that_waits_for_something_else_is_ended_with_a_sentence() -> None:
    ended = []

    async def workflow() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            ended.append(True)

    with pytest.raises(RunError, match="other than its federation") as caught:
        drive(workflow())
    assert caught.value.code == "plan-impossible"
    assert ended == [True]
