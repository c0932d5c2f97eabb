"""When to poll the database for work without a wake-up: often under load, rarely when idle.

Realtime counts each wake-up against the limit of the whole project, and silently drops those above it. So a process
that gets many wake-ups reports to the database that it needs none for a while, and polls often meanwhile. This bounds
the number of wake-ups, whatever the rate of messages. The module must not know what the work is.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gre_bridge.errors import BridgeError

POLLS_FOR = 1.5
"""Seconds for which a process reports that it needs no wake-up."""
RENEW_AFTER = 0.5
"""Seconds after which it reports so again, under load."""
GRACE = 1.0
"""Seconds for which it still polls as often after that: a transaction that saw its report may commit later."""
REPORT_AGAIN = 1.0
"""Seconds after which a report that was not answered is repeated."""
REPORT_INTERVAL = 5.0
"""Seconds between two reports of an idle process. The database forgets it after 15 s, after 8 s if it polled often."""
MAX_EVENTS = 10
"""Events per second that wake-ups may cause in Realtime: one for each that is sent, and one for each receiver."""
MAX_WAKEUPS = 4
"""Wake-ups in a second at which a process starts to poll, however few processes receive them."""
KEEP_POLLING = 4
"""Wake-ups, or polls that found work, in two seconds with which it continues to poll."""
SHORTEST, LONGEST = 0.003, 0.02
"""Shortest and longest time in seconds between two polls of a process that polls often."""
GAP_SHARE = 1 / 3
"""The share of the average time between two messages after which it polls again."""
IDLE_SHARE = 0.125
"""The same for the time since the last work, of a process that cannot rely on wake-ups."""
FIRST_POLL = 1.0
"""Seconds from the last work to the first poll of an idle process; each later poll waits as long as it was idle."""
WAKEUP_LATE = 2.0
"""Seconds after which the wake-up of committed work counts as missing."""
RECENT = 2.0
"""Age in seconds above which work is a backlog and does not count towards the rate of new work."""
AGE_TOLERANCE = 0.05
"""Error in seconds of the age of work."""
UNREGISTER_WITHIN = 2.0
"""Seconds for the last call of a process that stops."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The answer of `gre_relay_listen_v1`."""

    listeners: int
    """Processes that receive wake-ups, this one included."""
    hubs: int
    """Those of them that serve sockets."""
    broadcasts: bool
    """True if the database can send broadcasts."""
    snapshot: str | None = None
    """The snapshot of this call, for the next one."""
    sessions: frozenset[str] | None = None
    """Sessions that changed since the given snapshot; None if that is unknown."""


class Wakeups(Protocol):
    """The subscription to Realtime, as the poller needs it."""

    @property
    def healthy(self) -> bool:
        """True while wake-ups can be relied on."""

    @property
    def last_wakeup(self) -> float:
        """Time of the last wake-up, by the poller's clock."""

    @property
    def listening_since(self) -> float:
        """Time since which wake-ups arrive, by the poller's clock; infinity while they do not."""

    def report_missed_wakeup(self) -> None:
        """Record work that no wake-up announced."""

    def set_row_changes(self, enabled: bool) -> None:
        """Subscribe to row changes in any case, or only where broadcasts are unavailable."""


class ListenerRegistry(Protocol):
    """The registration of this process in the database. The methods raise BridgeError."""

    async def listen(self, listener: str, polls_for: float, *, idle: bool = False) -> Listening:
        """Register a process that needs no wake-up for `polls_for` seconds, or none at all while it is `idle`."""

    async def unlisten(self, listener: str) -> None:
        """Remove a process that stops."""


class PollTarget(Protocol):
    """The part of the process that looks for work."""

    def poll(self) -> None:
        """Begin to look for work, without blocking; `Poller.record_poll` gets the result."""

    def on_missed_wakeup(self) -> None:
        """Record work that no wake-up announced."""


class _Window:
    """A sum over the last seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._counts: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, now: float, count: int) -> None:
        self._counts.append((now, count))
        self._total += count

    def total(self, now: float) -> int:
        while self._counts and self._counts[0][0] <= now - self._seconds:
            self._total -= self._counts.popleft()[1]
        return self._total


class _Activity:
    """Counts of one kind of event over the last seconds."""

    def __init__(self) -> None:
        self.work = _Window(1.0)
        """Everything. The other two windows count at most two of one poll."""
        self.second, self.two = _Window(1.0), _Window(2.0)

    def add(self, now: float, count: int) -> None:
        self.work.add(now, count)
        for window in (self.second, self.two):
            window.add(now, min(count, 2))
            window.total(now)
        self.work.total(now)


class PollPolicy:
    """Decides from the rate of work whether to poll often, and when to poll next. Pure; times are seconds of one clock."""

    def __init__(self, *, slow: float, fast: float) -> None:
        """`slow` and `fast`: longest interval between polls while wake-ups can be relied on, and while not."""
        self._slow = slow
        self._fast = fast
        self._wakeups = _Activity()
        self._work: defaultdict[str, _Activity] = defaultdict(_Activity)
        self._last_work = -math.inf
        self._found_polling = False
        self.polls_until = -math.inf
        """Time until which the database sends this process no wake-up."""
        self.listeners = 1
        """Processes that receive each wake-up."""

    def on_wakeup(self, now: float) -> None:
        """Record a wake-up."""
        self._wakeups.add(now, 1)

    def record_work(self, now: float, source: str, ages: Sequence[float]) -> None:
        """Record new work of these ages (seconds), found for `source`."""
        if recent := sum(age < RECENT for age in ages):
            self._work[source].add(now, recent)
        self._last_work = now
        self._found_polling = self.polls_often(now)

    def busy(self, now: float) -> bool:
        """Return True if the rate of work would cause too many wake-ups."""
        if now < self.polls_until:
            return max(one.two.total(now) for one in (self._wakeups, *self._work.values())) >= KEEP_POLLING
        # Realtime counts one event for each wake-up that is sent, and one for each receiver.
        most = max(1, min(MAX_WAKEUPS, MAX_EVENTS // (1 + self.listeners)))
        return max(one.second.total(now) for one in (self._wakeups, *self._work.values())) >= most

    def polls_often(self, now: float) -> bool:
        """Return True while the process polls often, and for GRACE seconds after that."""
        return now < self.polls_until + GRACE

    def interval(self, now: float, *, healthy: bool) -> float:
        """Return the seconds from a poll to the next one."""
        since = now - self._last_work
        if self.polls_often(now):
            count = max((one.work.total(now) for one in self._work.values()), default=0)
            return min(max(GAP_SHARE / count, SHORTEST, since * IDLE_SHARE), LONGEST) if count else LONGEST
        if not healthy or self._found_polling:
            return min(max(since * IDLE_SHARE, LONGEST), self._slow if healthy else self._fast)
        return min(max(since, FIRST_POLL), self._slow)


class Poller:
    """Polls when the policy says so, and reports to the database when this process needs no wake-up."""

    def __init__(
        self,
        *,
        registry: ListenerRegistry,
        target: PollTarget,
        wakeups: Wakeups,
        slow: float,
        fast: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`slow` and `fast` are the intervals of `PollPolicy`, in seconds."""
        self.id = str(uuid.uuid4())
        self.policy = PollPolicy(slow=slow, fast=fast)
        self.hubs = 0
        """Processes that serve sockets by the last answer, this one included."""
        self._registry = registry
        self._target = target
        self._wakeups = wakeups
        self._clock = clock
        self._active = True
        self.registered = asyncio.Event()
        """Set while this process is registered as a listener in the database."""
        self._changed = asyncio.Event()
        self._polled_at = clock()
        self._took = 0.0
        self._reported_at = self._announced_at = -math.inf
        self._reporting: asyncio.Task[None] | None = None
        self._expected: float | None = None

    def set_active(self, active: bool) -> None:
        """Poll and listen only while `active`."""
        if active != self._active:
            self._active = active
            self._reported_at = -math.inf
            self._expected = None
            self.registered.clear()
            self._changed.set()

    def on_wakeup(self) -> None:
        """Record a wake-up; the caller reads what it announces."""
        self.policy.on_wakeup(self._clock())
        self._changed.set()

    def refresh(self) -> None:
        """Compute the next poll again: `healthy` of the subscription has changed."""
        self._changed.set()

    def record_poll(self, source: str, ages: Sequence[float], took: float) -> None:
        """Record a poll for `source`: the ages of the new work, and the time it took. All in seconds."""
        now = self._clock()
        self._polled_at, self._took = now, took
        if ages:
            self._expect(now - min(ages))
            self.policy.record_work(now, source, ages)
            self._changed.set()

    def _expect(self, committed: float) -> None:
        """Remember work without a wake-up: it may still come."""
        wakeups = self._wakeups
        if (
            self._expected is None
            and wakeups.healthy
            and wakeups.listening_since < committed
            and wakeups.last_wakeup < committed - AGE_TOLERANCE
            and self.policy.polls_until + GRACE < committed
        ):
            self._expected = committed

    async def run(self) -> None:
        """Poll until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._iterate(group)
        finally:
            self.registered.clear()
            with contextlib.suppress(BridgeError, TimeoutError):
                async with asyncio.timeout(UNREGISTER_WITHIN):
                    await self._registry.unlisten(self.id)

    async def _iterate(self, group: asyncio.TaskGroup) -> None:
        self._changed.clear()
        now = self._clock()
        report_at = self._next_report_at(now)
        if now >= report_at:
            self._reported_at, report_at = now, math.inf
            self._reporting = group.create_task(self._report())
        if not self._active:
            await self._wait(report_at - now)
            return
        due = self._polled_at + max(self.policy.interval(now, healthy=self._wakeups.healthy), self._took)
        if now >= due:
            self._polled_at = now
            self._target.poll()
            due = now + self.policy.interval(now, healthy=self._wakeups.healthy)
        await self._wait(min(due, report_at, self._check_expected(now)) - now)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else max(0.0, seconds)):
                await self._changed.wait()

    def _next_report_at(self, now: float) -> float:
        """Return the time of the next report: soon while this process is not registered, or under load."""
        if self._reporting is not None:
            return math.inf
        if not self._active:
            return self._reported_at + REPORT_INTERVAL
        if not self.registered.is_set():
            return self._reported_at + REPORT_AGAIN
        return (
            self._announced_at + RENEW_AFTER if self.policy.busy(now) else self._reported_at + REPORT_INTERVAL
        )

    def _check_expected(self, now: float) -> float:
        """Report an expected wake-up that did not come in time; return the time of the next check."""
        if self._expected is None:
            return math.inf
        committed = self._expected
        if self._wakeups.last_wakeup >= committed - AGE_TOLERANCE or not self._wakeups.healthy:
            self._expected = None
        elif now >= committed + WAKEUP_LATE:
            self._expected = None
            self._target.on_missed_wakeup()
            self._wakeups.report_missed_wakeup()
        else:
            return committed + WAKEUP_LATE
        return math.inf

    async def _report(self) -> None:
        active = self._active
        polls_for = POLLS_FOR if active and self.policy.busy(self._clock()) else 0.0
        if polls_for:
            self._announced_at = self._reported_at
        try:
            answer = await self._registry.listen(self.id, polls_for, idle=not active)
        except BridgeError:
            pass  # the next poll reports the error
        else:
            self.policy.listeners, self.hubs = answer.listeners, answer.hubs
            self._wakeups.set_row_changes(not answer.broadcasts)
            if active and self._active and not self.registered.is_set():
                self.registered.set()
                self._polled_at = -math.inf  # poll at once: earlier work sent no wake-up to this process
        finally:
            self._reporting = None
            if polls_for:  # also after a lost answer: the database may have it
                self.policy.polls_until = max(self.policy.polls_until, self._clock() + polls_for)
            self._changed.set()
