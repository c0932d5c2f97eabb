"""The line of connections that wait for their turn."""

from __future__ import annotations

import asyncio

import pytest

from gre_bridge.api.ws.line import Line, Turn
from tests.support.waiting import next_turn


async def test_visitors_alternate_however_many_connections_one_has() -> None:
    line, order = Line(1), list[str]()
    first = await line.take("a", 1)

    async def wait(visitor: str) -> None:
        turn = await line.take(visitor, 60)
        order.append(visitor)
        turn.end()

    async with asyncio.TaskGroup() as group:
        for visitor in ("a", "a", "a", "b", "c", "c"):
            group.create_task(wait(visitor))
        await next_turn(2)
        assert order == []
        first.end()
    assert order == ["a", "b", "c", "a", "c", "a"]


async def test_there_are_so_many_turns_at_a_time_and_each_ends_once() -> None:
    line = Line(2)
    turns = [await line.take("a", 1) for _ in range(2)]
    third = asyncio.create_task(line.take("a", 60))
    await next_turn(2)
    assert not third.done()
    turns[0].end()
    turns[0].end()
    assert isinstance(await third, Turn)
    fourth = asyncio.create_task(line.take("a", 60))
    await next_turn(2)
    assert not fourth.done()
    turns[1].end()
    await fourth


async def test_who_gives_up_takes_no_turn() -> None:
    line = Line(1)
    first = await line.take("a", 1)
    with pytest.raises(TimeoutError):
        await line.take("b", 0.0)
    given = asyncio.create_task(line.take("c", 60))
    await next_turn(2)
    first.end()
    given.cancel()  # its turn has come, but it does not know yet
    with pytest.raises(asyncio.CancelledError):
        await given
    async with asyncio.timeout(60):
        await line.take("d", 60)


async def test_a_visitor_with_many_makes_room_for_one_with_few() -> None:
    """A flood fills the line, not the instance: who comes with fewer takes the place of its latest one."""
    line = Line(1)
    first = await line.take("a", 1)
    flood = [asyncio.create_task(line.take("a", 60)) for _ in range(3)]
    await next_turn(2)
    assert not line.make_room("a")
    assert line.make_room("b")
    newcomer = asyncio.create_task(line.take("b", 60))
    with pytest.raises(TimeoutError):
        await flood[2]
    assert not flood[0].done() and not newcomer.done(), "the place was given, no turn"
    assert line.make_room("b")
    with pytest.raises(TimeoutError):
        await flood[1]
    assert not line.make_room("b"), "both have one"
    first.end()
    (await flood[0]).end()
    (await newcomer).end()
    async with asyncio.timeout(60):
        await line.take("c", 60)


async def test_who_has_given_up_makes_no_room() -> None:
    line = Line(1)
    await line.take("a", 1)
    with pytest.raises(TimeoutError):
        await line.take("a", 0.0)
    assert not line.make_room("b")
