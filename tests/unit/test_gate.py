"""The gate of a sink's requests: a semaphore of changing size."""

from __future__ import annotations

import asyncio

from gre_bridge.relay.gate import Gate
from gre_bridge.relay.policy import Window
from tests.support.waiting import next_turn


async def test_it_lets_through_as_many_as_fit_in_the_order_in_which_they_came() -> None:
    gate, inside, over = Gate(Window(2)), list[int](), asyncio.Event()

    async def request(n: int) -> None:
        async with gate.slot():
            inside.append(n)
            await over.wait()

    async with asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(request(n))
        await next_turn(3)
        assert (inside, gate.full) == ([0, 1], True)
        over.set()
    assert inside == [0, 1, 2, 3, 4]
    assert not gate.full


async def test_a_cancelled_request_gives_its_slot_back_also_when_its_turn_has_come() -> None:
    gate = Gate(Window(1))

    async def request() -> None:
        async with gate.slot():
            pass

    async with gate.slot():
        first, second = asyncio.create_task(request()), asyncio.create_task(request())
        await next_turn(2)
    first.cancel()  # its turn has come, and it has not run since
    await asyncio.wait({first, second}, timeout=60)
    assert first.cancelled()
    assert second.done() and second.exception() is None
    assert not gate.full

    async with gate.slot():
        waiting = asyncio.create_task(request())
        await next_turn(2)
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=60)
    async with asyncio.timeout(60), gate.slot():
        assert gate.full


async def test_a_window_that_shrinks_lets_nothing_through_until_it_fits_again() -> None:
    window = Window(4)
    gate, ends = Gate(window), [asyncio.Event() for _ in range(6)]
    inside = set[int]()

    async def request(n: int) -> None:
        async with gate.slot():
            inside.add(n)
            await ends[n].wait()
        inside.discard(n)

    async with asyncio.TaskGroup() as group:
        for n in range(6):
            group.create_task(request(n))
        await next_turn(2)
        window.failed(1.0, 2.0)
        assert window.size == 2
        ends[0].set()
        ends[1].set()
        await next_turn(3)
        assert inside == {2, 3}
        ends[2].set()
        await next_turn(3)
        assert inside == {3, 4}
        for end in ends:
            end.set()


async def test_one_that_is_cancelled_when_a_slot_becomes_free_leaves_quietly() -> None:
    gate, end = Gate(Window(1)), asyncio.Event()

    async def request() -> None:
        async with gate.slot():
            await end.wait()

    first, second, third = (asyncio.create_task(request()) for _ in range(3))
    await next_turn(2)
    first.cancel()
    second.cancel()  # the slot of the first one is passed on before this one runs
    end.set()
    found = await asyncio.gather(first, second, third, return_exceptions=True)
    assert [type(one) for one in found] == [asyncio.CancelledError, asyncio.CancelledError, type(None)]
    assert not gate.full
