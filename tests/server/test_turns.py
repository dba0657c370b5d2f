"""Goal: memory does not depend on how many send, and nobody waits for one who sends slowly.

Method: bodies of parts that the test hands out one by one; it counts how many are asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from hansa.errors import ServerError
from hansa.limits import RECEIVING_AT_ONCE, RECEIVING_LARGE_BYTES, RECEIVING_STALLED_S
from hansa.server import turns
from hansa.server.blobs import _Disk, _Uploads
from hansa.server.turns import Turns

LARGE, LAST = b"l" * RECEIVING_LARGE_BYTES, b"e" * RECEIVING_LARGE_BYTES
SMALL = b"s" * (RECEIVING_LARGE_BYTES - 1)


class Body:
    """A request whose parts come when the test sends them."""

    def __init__(self, size: int = 2**40) -> None:
        self.size = size
        self.asked = 0  # parts asked for
        self.taken: list[bytes] = []
        self._parts: asyncio.Queue[bytes] = asyncio.Queue()
        self.task: asyncio.Task[None]

    async def stream(self) -> AsyncIterator[bytes]:
        while True:
            self.asked += 1
            part = await self._parts.get()
            if not part:
                return
            yield part

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self._parts.put_nowait(part)

    async def take(self, shared: Turns, pause: float = 0.0) -> None:
        async for part in shared.parts(self, self.size):  # type: ignore[arg-type]
            self.taken.append(part)
            await asyncio.sleep(pause)


def run(test: Callable[[Turns], Awaitable[None]]) -> None:
    async def within() -> None:
        await asyncio.wait_for(test(Turns()), 20.0)

    asyncio.run(within())


def started(shared: Turns, count: int, *, pause: float = 0.0) -> list[Body]:
    bodies = [Body() for _ in range(count)]
    for body in bodies:
        body.task = asyncio.create_task(body.take(shared, pause))
    return bodies


async def soon() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def ended(bodies: list[Body]) -> None:
    await asyncio.gather(*(body.task for body in bodies))


async def all_turns_taken(shared: Turns) -> list[Body]:
    bodies = started(shared, RECEIVING_AT_ONCE)
    for body in bodies:
        body.send(LARGE)
    await soon()
    return bodies


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever pauses keeps its turn, so that nothing depends on how fast this machine is."""
    monkeypatch.setattr(turns, "RECEIVING_STALLED_S", 60.0)


def test_few_of_many_fast_bodies_go_on_and_all_come_whole(patient: None) -> None:
    async def test(shared: Turns) -> None:
        bodies = started(shared, 3 * RECEIVING_AT_ONCE)
        for body in bodies:
            body.send(LARGE)
        await soon()
        assert sum(body.asked == 2 for body in bodies) == RECEIVING_AT_ONCE
        for n, body in enumerate(bodies):
            body.send(b"%d" % n, LARGE, b"")
        await ended(bodies)
        assert all(body.taken == [LARGE, b"%d" % n, LARGE] for n, body in enumerate(bodies))

    run(test)


def test_those_who_wait_go_on_in_the_order_in_which_they_came(patient: None) -> None:
    async def test(shared: Turns) -> None:
        bodies = started(shared, RECEIVING_AT_ONCE + 3)
        for body in bodies:
            body.send(LARGE)
            await soon()
        for n in range(3):
            assert [body.asked for body in bodies[RECEIVING_AT_ONCE:]] == [2] * n + [1] * (3 - n)
            bodies[n].send(b"")
            await soon()
        for body in bodies[3:]:
            body.send(b"")
        await ended(bodies)

    run(test)


def test_who_sends_slowly_waits_for_nobody(patient: None) -> None:
    async def test(shared: Turns) -> None:
        fast = await all_turns_taken(shared)
        [slow] = started(shared, 1)
        slow.send(*[SMALL] * 5)
        await soon()
        assert slow.asked == 6
        for body in (*fast, slow):
            body.send(b"")
        await ended([*fast, slow])

    run(test)


def test_a_fast_sender_that_pauses_holds_up_nobody() -> None:
    async def test(shared: Turns) -> None:
        bodies = started(shared, 2 * RECEIVING_AT_ONCE + 1)
        for body in bodies:
            body.send(LARGE)
        await soon()
        while not all(body.asked == 2 for body in bodies):  # two pauses later
            await asyncio.sleep(RECEIVING_STALLED_S)
        for body in bodies:
            body.send(LARGE, b"")
        await ended(bodies)
        assert all(body.taken == [LARGE, LARGE] for body in bodies)

    run(test)


def test_a_long_body_lets_others_go_on_meanwhile(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "RECEIVING_TURN_S", 0.0)

    async def test(shared: Turns) -> None:
        bodies = started(shared, RECEIVING_AT_ONCE + 1)
        for body in bodies:
            body.send(LARGE)
        await soon()
        assert bodies[-1].asked == 1
        bodies[0].send(LARGE)
        await soon()
        assert (bodies[0].asked, bodies[-1].asked) == (2, 2)  # its turn is over
        bodies[1].send(b"")
        await soon()
        assert bodies[0].asked == 3
        for body in bodies:
            body.send(b"")
        await ended(bodies)

    run(test)


def test_a_slow_disk_is_shared_by_all_that_come(patient: None) -> None:
    async def test(shared: Turns) -> None:
        bodies = started(shared, RECEIVING_AT_ONCE + 2, pause=0.02)
        for body in bodies:
            body.send(LARGE, LARGE)
        for body in bodies:
            while body.asked < 3:
                await asyncio.sleep(0.01)
            body.send(b"")
        await ended(bodies)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(turns, "RECEIVING_STALLED_S", 0.01)
        patched.setattr(turns, "RECEIVING_AT_ONCE", 0)  # nobody would ever have a turn
        run(test)


@pytest.mark.parametrize("waits", [True, False])
def test_a_request_that_is_given_up_lets_the_next_go_on(patient: None, waits: bool) -> None:
    async def test(shared: Turns) -> None:
        bodies = started(shared, RECEIVING_AT_ONCE + 2)
        for body in bodies:
            body.send(LARGE)
            await soon()
        given_up = bodies.pop(RECEIVING_AT_ONCE if waits else 0)
        given_up.task.cancel()
        await soon()
        if waits:
            bodies[0].send(b"")
            await soon()
        assert bodies[-1 if waits else -2].asked == 2
        for body in bodies:
            body.send(b"")
        await ended(bodies)

    run(test)


def test_a_body_that_is_refused_halfway_lets_the_next_go_on(patient: None) -> None:
    async def refused(shared: Turns, body: Body) -> None:
        async with contextlib.aclosing(shared.parts(body, body.size)) as parts:  # type: ignore[arg-type]
            async for part in parts:
                if part is LAST:
                    raise ValueError

    async def test(shared: Turns) -> None:
        bodies = [Body() for _ in range(RECEIVING_AT_ONCE)]
        failing = [asyncio.create_task(refused(shared, body)) for body in bodies]
        for body in bodies:
            body.send(LARGE)
        await soon()
        waiting = started(shared, RECEIVING_AT_ONCE)
        for body in waiting:
            body.send(LARGE)
        await soon()
        assert [body.asked for body in waiting] == [1] * len(waiting)
        for body in bodies:
            body.send(LAST)
        assert all(await asyncio.gather(*failing, return_exceptions=True))
        assert [body.asked for body in waiting] == [2] * len(waiting)
        for body in waiting:
            body.send(b"")
        await ended(waiting)

    run(test)


def test_a_body_that_has_come_whole_waits_for_nobody(patient: None) -> None:
    async def test(shared: Turns) -> None:
        fast = await all_turns_taken(shared)
        whole = Body(size=len(LARGE))
        whole.task = asyncio.create_task(whole.take(shared))
        whole.send(LARGE, b"")
        await whole.task
        for body in fast:
            body.send(b"")
        await ended(fast)

    run(test)


@pytest.mark.parametrize("many", [1, 4, 37, 400])
def test_nobody_waits_as_long_as_a_sender_takes_for_silence(many: int) -> None:
    """Review: with a fixed sum of turns, one that waited alone waited for 20 s."""
    shared, longest = Turns(), 0.0
    while many > 0:
        shared._waiting.extend([None] * many)  # type: ignore[list-item]
        longest += shared._turn_s()
        shared._waiting.clear()
        many -= RECEIVING_AT_ONCE
    assert longest < 10.0  # of `Connection`


class Nowhere:
    """A writer of bytes that nobody wants."""

    def write(self, data: bytes) -> None:
        pass

    def commit(self) -> None:
        pass


def test_uploads_take_turns_and_one_that_is_refused_ends_its_own(patient: None) -> None:
    async def test(shared: Turns) -> None:
        uploads = _Uploads(lambda _: pytest.fail("no store is asked for"), shared, _Disk())
        bodies = [Body() for _ in range(RECEIVING_AT_ONCE + 1)]
        for body in bodies:
            taking = uploads._take(body, Nowhere(), size=2 * len(LARGE))  # type: ignore[arg-type]
            body.task = asyncio.create_task(taking)
            body.send(LARGE)
            await soon()
        *fast, last = bodies
        assert [body.asked for body in bodies] == [2] * len(fast) + [1]
        fast[0].send(LARGE + b"more than was announced")
        await soon()
        assert isinstance(fast[0].task.exception(), ServerError)
        assert last.asked == 2
        for body in bodies[1:]:
            body.send(b"")
            await body.task

    run(test)
