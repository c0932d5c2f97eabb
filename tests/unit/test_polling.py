"""When a process polls, when it reports that it needs no wake-up, and which wake-ups count as missed."""

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


class Subscription:
    """Wake-ups that can be relied on until one is missed."""

    def __init__(self) -> None:
        self.healthy = True
        self.last_wakeup = -math.inf
        self.listening_since = now()
        self.missed_wakeups = 0
        self.row_changes = False

    def report_missed_wakeup(self) -> None:
        self.missed_wakeups += 1
        self.healthy = False

    def set_row_changes(self, enabled: bool) -> None:
        self.row_changes = enabled


class World:
    """A database that sends wake-ups as `gre.notify_workers` does, one poller, and the work that it found."""

    def __init__(self, *, listeners: int = 1, slow: float = 5.0) -> None:
        self.subscription = Subscription()
        self.listeners = listeners
        self.polls_until = -math.inf
        self.registered: str | None = None
        self.reports: list[tuple[float, float]] = []
        """The time of each report, and for how long it needs no wake-up, in seconds."""
        self.polls: list[float] = []
        self.waiting: list[float] = []
        self.delays: list[float] = []
        self.wakeups = 0
        self.dropping = False
        self.unreachable = False
        self.broadcasts = True
        self.missed = 0
        self.poller = Poller(
            registry=self, target=self, wakeups=self.subscription, slow=slow, fast=1.0, clock=now
        )

    async def listen(self, listener: str, polls_for: float, *, idle: bool = False) -> Listening:
        """See ListenerRegistry."""
        self.reports.append((now(), math.inf if idle else polls_for))
        await pause(0.002, "latency of the database")
        if self.unreachable:
            raise TransientError("unreachable")
        self.registered = None if idle else listener
        self.polls_until = max(self.polls_until, now() + polls_for)
        return Listening(self.listeners, 0 if idle else 1, self.broadcasts)

    async def unlisten(self, listener: str) -> None:
        """See ListenerRegistry."""
        if listener == self.registered:
            self.registered = None

    def on_missed_wakeup(self) -> None:
        """See PollTarget."""
        self.missed += 1

    def poll(self) -> None:
        """See PollTarget."""
        self.polls.append(now())
        ages = [now() - at for at in self.waiting]
        self.delays += ages
        self.waiting.clear()
        self.poller.record_poll("pusher", ages, 0.001)

    def commit(self, *, polls: bool | None = None, began: float | None = None) -> None:
        """Commit a message of a transaction that `began` then and has read that the process `polls`."""
        self.waiting.append(now() if began is None else began)
        if polls if polls is not None else now() < self.polls_until:
            return
        self.wakeups += 1
        if not self.dropping:
            self.subscription.last_wakeup = now()
            self.poller.on_wakeup()
            self.poll()

    async def pace(self, rate: float, seconds: float) -> None:
        for _ in range(int(rate * seconds)):
            self.commit()
            await pause(1 / rate, "the rate of messages")


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
    assert not world.registered


def during(times: list[float], since: float) -> int:
    return sum(at >= since for at in times)


@virtual
async def test_the_number_of_wakeups_is_bounded_at_any_rate_of_messages_and_work_is_found_soon() -> None:
    for listeners in (1, 2, 3, 5):
        for rate in (1, 1.9, 2.9, 3.5, 5, 50, 400):
            async with polling(listeners=listeners) as world:
                await world.pace(rate, 20)
                await elapse(1)
                assert world.wakeups * (1 + listeners) / 20 <= MAX_EVENTS, (listeners, rate)
                assert max(world.delays) <= LONGEST + 0.002, (listeners, rate)
                assert not world.waiting
                assert world.subscription.missed_wakeups == 0


@virtual
async def test_an_isolated_message_costs_at_most_two_polls_and_an_idle_process_polls_rarely() -> None:
    async with polling() as world:
        await elapse(60)
        assert 10 <= len(world.polls) <= 13
        assert len(world.reports) <= 14, "the regular reports"
        began = now()
        await world.pace(1, 60)
        assert during(world.polls, began) <= 130, "one for the message, and one after it"
        began = now()
        await world.pace(0.1, 600)
        assert during(world.polls, began) <= 60 * 6


@virtual
async def test_at_50_messages_a_second_there_are_two_or_three_polls_for_each() -> None:
    async with polling() as world:
        await world.pace(50, 5)
        began = now()
        world.delays.clear()
        await world.pace(50, 10)
        assert 2 <= during(world.polls, began) / 500 <= 3.2
        assert sorted(world.delays)[len(world.delays) // 2] < 0.007
        assert all(at < now() for at in world.polls)
        reports = [at for at, polls_for in world.reports if at > began and polls_for]
        assert len(reports) <= 21, "twice a second"


@virtual
async def test_a_message_of_a_transaction_that_read_that_the_process_polls_is_found_after_it_stopped() -> (
    None
):
    for held in (0.1, 1.0, 2.0, 5.0, 20.0):
        async with polling() as world:
            await world.pace(50, 3)
            wrote = now()
            await elapse(held)
            world.commit(polls=True, began=wrote)
            began = now()
            await until(lambda w=world: not w.waiting)
            assert now() - began <= max(LONGEST, (held + POLLS_FOR) / 6) + 0.01, held
            assert world.subscription.missed_wakeups == 0, "no wake-up was sent for it"


@virtual
async def test_polls_stay_frequent_for_the_grace_period_and_then_become_rarer() -> None:
    async with polling() as world:
        await world.pace(50, 3)
        await until(lambda: now() > world.polls_until, 10)
        began = now()
        await elapse(GRACE - 0.1)
        assert during(world.polls, began) >= 40
        began = now()
        await elapse(60)
        assert during(world.polls, began) <= 60, "about thirty until the interval is that of an idle process"


@virtual
async def test_a_backlog_does_not_cause_frequent_polls() -> None:
    async with polling() as world:
        await elapse(10)
        for _ in range(20):
            world.subscription.last_wakeup = now()
            world.poller.record_poll("pusher", [RECENT + 1] * 100, 0.01)
            await elapse(0.05)
        began = now()
        assert not world.poller.policy.busy(began)
        await elapse(5)
        assert during(world.polls, began) <= 5


@virtual
async def test_a_report_without_an_answer_counts_as_received() -> None:
    async with polling() as world:
        world.unreachable = True
        for _ in range(MAX_WAKEUPS):
            world.commit(polls=False)
            await elapse(0.05)
        assert world.reports[-1][1] == POLLS_FOR
        world.commit(polls=True)
        began = now()
        await until(lambda: not world.waiting)
        assert now() - began <= LONGEST + SHORTEST


@virtual
async def test_a_missing_wakeup_is_reported_once_and_polls_replace_it() -> None:
    async with polling() as world:
        await elapse(10)
        world.dropping = True
        world.commit()
        await until(lambda: world.subscription.missed_wakeups, 20)
        assert world.subscription.missed_wakeups == world.missed == 1
        world.delays.clear()
        await world.pace(5, 30)  # without wake-ups
        delays = sorted(world.delays[10:])
        assert delays[len(delays) // 2] <= LONGEST
        assert world.subscription.missed_wakeups == 1


@virtual
async def test_a_late_wakeup_does_not_count_as_missed() -> None:
    async with polling() as world:
        await elapse(10)
        world.dropping = True
        world.commit()
        await elapse(1.5)
        world.subscription.last_wakeup = now()
        await until(lambda: not world.waiting, 20)
        await elapse(10)
        assert world.subscription.missed_wakeups == 0
        world.subscription.listening_since = now()
        world.poller.record_poll("pusher", [30.0], 0.001)  # committed before the connection
        await elapse(10)
        assert world.subscription.missed_wakeups == 0


@virtual
async def test_an_inactive_process_is_not_registered_as_polling_and_does_not_poll() -> None:
    async with polling() as world:
        world.poller.set_active(False)
        await until(lambda: not world.registered)
        polls, reports = len(world.polls), len(world.reports)
        await elapse(100)
        assert len(world.polls) == polls
        assert 19 <= len(world.reports) - reports <= 22, "it receives wake-ups, so it counts as a listener"
        world.commit()
        world.poller.set_active(True)
        await until(lambda: world.registered and not world.waiting)


@virtual
async def test_the_pause_after_a_slow_poll_is_as_long_as_the_poll() -> None:
    async with polling() as world:
        await world.pace(50, 3)
        world.poller.record_poll("pusher", [], 0.2)
        began = now()
        await until(lambda: during(world.polls, began))
        assert now() - began >= 0.19


@virtual
async def test_row_changes_are_subscribed_to_if_the_database_cannot_broadcast() -> None:
    async with polling() as world:
        assert not world.subscription.row_changes
        world.broadcasts = False
        await until(lambda: world.subscription.row_changes, 30)


@virtual
async def test_a_failed_registration_is_repeated() -> None:
    world = World()
    world.unreachable = True
    task = asyncio.create_task(world.poller.run())
    await elapse(5)
    assert 4 <= len(world.reports) <= 6
    assert not world.poller.registered.is_set()
    world.unreachable = False
    await until(lambda: world.registered)
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
