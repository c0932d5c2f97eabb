"""When a process looks by itself, when it says that it needs no wake-up, and which wake-up it missed_wakeups."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gre_bridge.errors import TransientError
from gre_bridge.polling import (
    FIRST_POLL,
    GAP_SHARE,
    GRACE,
    LONGEST,
    MAX_EVENTS,
    MAX_WAKEUPS,
    POLLS_FOR,
    RECENT,
    SHORTEST,
    Listening,
    Poller,
    PollPolicy,
)
from tests.support.relay import elapse, now, until, virtual
from tests.support.waiting import pause


class Feed:
    """Wake-ups that can be relied on until one is missed."""

    def __init__(self) -> None:
        self.healthy = True
        self.last_wakeup = -math.inf
        self.listening_since = now()
        self.missed_wakeups = 0
        self.changes = False

    def report_missed_wakeup(self) -> None:
        self.missed_wakeups += 1
        self.healthy = False

    def set_row_changes(self, enabled: bool) -> None:
        self.changes = enabled


class World:
    """A database that wakes one poller, as `gre.notify_workers` does, and what it found."""

    def __init__(self, *, listeners: int = 1, slow: float = 5.0) -> None:
        self.feed = Feed()
        self.listeners = listeners
        self.polls_until = -math.inf
        self.known = False
        self.words: list[tuple[float, float]] = []
        self.polls: list[float] = []
        self.waiting: list[float] = []
        self.delays: list[float] = []
        self.wakeups = 0
        self.dropping = False
        self.away = False
        self.broadcasts = True
        self.poller = Poller(
            listen=self._listen, unlisten=self._unlisten, idle=self._idle, poll=self.look, wakeups=self.feed, slow=slow, fast=1.0,
            clock=now,
        )  # fmt: skip

    async def _listen(self, _id: str, awake: float) -> Listening:
        self.words.append((now(), awake))
        await pause(0.002, "latency of the database")
        if self.away:
            raise TransientError("away")
        self.known = True
        self.polls_until = max(self.polls_until, now() + awake)
        return Listening(self.listeners, 1, self.broadcasts)

    async def _idle(self, _id: str) -> Listening:
        self.words.append((now(), math.inf))
        self.known = False
        return Listening(self.listeners, 0, True)

    async def _unlisten(self, _id: str) -> None:
        self.known = False

    def look(self) -> None:
        self.polls.append(now())
        ages = [now() - at for at in self.waiting]
        self.delays += ages
        self.waiting.clear()
        self.poller.record_poll("pusher", ages, 0.001)

    def commit(self, *, awake: bool | None = None, began: float | None = None) -> None:
        """A message, written when its transaction `began`; `awake` is what this has read."""
        self.waiting.append(now() if began is None else began)
        if awake if awake is not None else now() < self.polls_until:
            return
        self.wakeups += 1
        if not self.dropping:
            self.feed.last_wakeup = now()
            self.poller.on_wakeup()
            self.look()

    async def pace(self, rate: float, seconds: float) -> None:
        for _ in range(int(rate * seconds)):
            self.commit()
            await pause(1 / rate, "the rate of writing")


@contextlib.asynccontextmanager
async def polling(**options: Any) -> AsyncIterator[World]:
    world = World(**options)
    task = asyncio.create_task(world.poller.run())
    try:
        await until(world.poller.registered.is_set)
        yield world
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert not world.known


def during(times: list[float], since: float) -> int:
    return sum(at >= since for at in times)


@virtual
async def test_whatever_the_rate_the_events_have_a_bound_and_work_is_found_soon() -> None:
    for listeners in (1, 2, 3, 5):
        for rate in (1, 1.9, 2.9, 3.5, 5, 50, 400):
            async with polling(listeners=listeners) as world:
                await world.pace(rate, 20)
                await elapse(1)
                assert world.wakeups * (1 + listeners) / 20 <= MAX_EVENTS, (listeners, rate)
                assert max(world.delays) <= LONGEST + 0.002, (listeners, rate)
                assert not world.waiting
                assert world.feed.missed_wakeups == 0


@virtual
async def test_isolated_messages_cost_a_look_or_two_and_idle_ones_none() -> None:
    async with polling() as world:
        await elapse(60)
        assert 10 <= len(world.polls) <= 13
        assert len(world.words) <= 14, "the refreshing ones"
        began = now()
        await world.pace(1, 60)
        assert during(world.polls, began) <= 130, "the message's own, and one after it"
        began = now()
        await world.pace(0.1, 600)
        assert during(world.polls, began) <= 60 * 6


@virtual
async def test_at_50_a_second_it_looks_a_few_times_for_each_message() -> None:
    async with polling() as world:
        await world.pace(50, 5)
        began = now()
        world.delays.clear()
        await world.pace(50, 10)
        assert 2 <= during(world.polls, began) / 500 <= 3.2
        assert sorted(world.delays)[len(world.delays) // 2] < 0.007
        assert all(at < now() for at in world.polls)
        spoken = [at for at, awake in world.words if at > began and awake]
        assert len(spoken) <= 21, "twice a second"


@virtual
async def test_it_falls_asleep_and_finds_what_was_committed_by_whoever_saw_it_awake() -> None:
    for held in (0.1, 1.0, 2.0, 5.0, 20.0):
        async with polling() as world:
            await world.pace(50, 3)
            wrote = now()
            await elapse(held)
            world.commit(awake=True, began=wrote)
            began = now()
            await until(lambda w=world: not w.waiting)
            assert now() - began <= max(LONGEST, (held + POLLS_FOR) / 6) + 0.01, held
            assert world.feed.missed_wakeups == 0, "no wake-up was sent for it"


@virtual
async def test_it_looks_often_until_the_grace_is_over_and_then_ever_less() -> None:
    async with polling() as world:
        await world.pace(50, 3)
        await until(lambda: now() > world.polls_until, 10)
        began = now()
        await elapse(GRACE - 0.1)
        assert during(world.polls, began) >= 40
        began = now()
        await elapse(60)
        assert during(world.polls, began) <= 60, "some thirty until it is as slow as when it is idle"


@virtual
async def test_a_backlog_is_no_reason_to_look_often() -> None:
    async with polling() as world:
        await elapse(10)
        for _ in range(20):
            world.feed.last_wakeup = now()
            world.poller.record_poll("pusher", [RECENT + 1] * 100, 0.01)
            await elapse(0.05)
        began = now()
        assert not world.poller.policy.busy(began)
        await elapse(5)
        assert during(world.polls, began) <= 5


@virtual
async def test_a_word_that_was_lost_may_have_been_heard() -> None:
    async with polling() as world:
        world.away = True
        for _ in range(MAX_WAKEUPS):
            world.commit(awake=False)
            await elapse(0.05)
        assert world.words[-1][1] == POLLS_FOR
        world.commit(awake=True)
        began = now()
        await until(lambda: not world.waiting)
        assert now() - began <= LONGEST + SHORTEST


@virtual
async def test_a_wake_up_that_does_not_come_is_missed_once_and_polled_for() -> None:
    async with polling() as world:
        await elapse(10)
        world.dropping = True
        world.commit()
        await until(lambda: world.feed.missed_wakeups, 20)
        assert world.feed.missed_wakeups == 1
        world.delays.clear()
        await world.pace(5, 30)  # nobody wakes it
        delays = sorted(world.delays[10:])
        assert delays[len(delays) // 2] <= LONGEST
        assert world.feed.missed_wakeups == 1


@virtual
async def test_a_late_wake_up_is_none_that_was_missed() -> None:
    async with polling() as world:
        await elapse(10)
        world.dropping = True
        world.commit()
        await elapse(1.5)
        world.feed.last_wakeup = now()
        await until(lambda: not world.waiting, 20)
        await elapse(10)
        assert world.feed.missed_wakeups == 0
        world.feed.listening_since = now()
        world.poller.record_poll("pusher", [30.0], 0.001)  # older than the link: nobody would have heard it
        await elapse(10)
        assert world.feed.missed_wakeups == 0


@virtual
async def test_who_is_not_concerned_is_not_known_and_does_not_look() -> None:
    async with polling() as world:
        world.poller.set_active(False)
        await until(lambda: not world.known)
        looks, words = len(world.polls), len(world.words)
        await elapse(100)
        assert len(world.polls) == looks
        assert 19 <= len(world.words) - words <= 22, "it hears wake-ups, so it counts"
        world.commit()
        world.poller.set_active(True)
        await until(lambda: world.known and not world.waiting)


@virtual
async def test_slow_looks_leave_the_database_as_much_time_as_they_take() -> None:
    async with polling() as world:
        await world.pace(50, 3)
        world.poller.record_poll("pusher", [], 0.2)
        began = now()
        await until(lambda: during(world.polls, began))
        assert now() - began >= 0.19


@virtual
async def test_a_database_that_cannot_broadcast_makes_row_changes_wanted() -> None:
    async with polling() as world:
        assert not world.feed.changes
        world.broadcasts = False
        await until(lambda: world.feed.changes, 30)


@virtual
async def test_a_database_that_does_not_know_of_it_is_told_again() -> None:
    world = World()
    world.away = True
    task = asyncio.create_task(world.poller.run())
    await elapse(5)
    assert 4 <= len(world.words) <= 6
    assert not world.poller.registered.is_set()
    world.away = False
    await until(lambda: world.known)
    task.cancel()
    await asyncio.wait({task})


def test_the_interval_follows_the_rate() -> None:
    policy = PollPolicy(slow=5.0, fast=1.0)
    assert policy.interval(0.0, healthy=True) == 5.0
    assert policy.interval(0.0, healthy=False) == 1.0
    policy.polls_until = 100.0
    assert policy.interval(0.0, healthy=True) == LONGEST

    def settled(rate: int, since: int) -> float:
        for n in range(rate):
            policy.record_work(since + n / rate, "pusher", [0.0])
        return policy.interval(since + 0.999, healthy=True)

    assert settled(50, 1) == pytest.approx(GAP_SHARE / 50)
    assert settled(20, 3) == pytest.approx(GAP_SHARE / 20)
    assert settled(500, 5) == SHORTEST
    policy.polls_until = 7.0
    policy.record_work(8.5, "pusher", [0.0])
    assert policy.interval(8.6, healthy=True) == FIRST_POLL
