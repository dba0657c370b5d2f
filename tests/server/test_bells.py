"""Bells wake requests that wait in the event loop, and lose no ring."""

import asyncio
import threading

from hansa.server.bells import Bell, Bells


async def woken(bell: Bell, seconds: float = 20.0) -> bool:
    """Return whether it was rung, for no timer of a bell is so short as this one's."""
    try:
        async with asyncio.timeout(0.05):
            await bell.rung(seconds)
    except TimeoutError:
        return False
    return True


def test_a_ring_wakes_those_who_wait_for_that_name_and_no_others():
    async def run() -> None:
        bells = Bells()
        bells.attach(asyncio.get_running_loop())
        with Bell(bells, "north") as north, Bell(bells, "south") as south:
            threading.Thread(target=bells.ring, args=(["north", "west"],)).start()
            await north.rung(20.0)
            assert not await woken(south)
            bells.ring()  # all
            await north.rung(20.0)
            await south.rung(20.0)
            assert not await woken(north)

    asyncio.run(run())


def test_a_ring_before_somebody_waits_is_not_lost_and_counts_once():
    async def run() -> None:
        bells = Bells()
        bells.attach(asyncio.get_running_loop())
        with Bell(bells, "north") as bell:
            bells.ring(["north"])
            bells.ring(["north"])
            await asyncio.sleep(0)  # both have come
            assert await woken(bell)
            assert not await woken(bell)

    asyncio.run(run())


def test_a_wait_ends_by_itself():
    async def run() -> None:
        with Bell(Bells(), "north") as bell:
            await bell.rung(0.01)

    asyncio.run(run())


def test_who_has_left_is_forgotten():
    async def run() -> None:
        bells = Bells()
        bells.attach(asyncio.get_running_loop())
        with Bell(bells, "north") as bell, Bell(bells, "north"):
            assert len(bells._of["north"]) == 2
            assert not await woken(bell, 3600.0)
        assert not bells._of
        assert bell._timer is not None and bell._timer.cancelled()  # which knows the bell
        bells.ring(["north"])

    asyncio.run(run())
