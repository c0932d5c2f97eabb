"""Looking for work without being woken: often while there is much of it, hardly ever when there is none.

Wake-ups come over Realtime, which counts each one against the limit of the whole project and drops silently what is
above it. So a process that is woken often says to the database that it needs no wake-up for a while, and looks by
itself meanwhile: the number of wake-ups has a bound, whatever the rate of messages. It must not know what the work is.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gre_bridge.errors import BridgeError

AWAKE = 1.5
"""Seconds for which a process says that it needs no wake-up."""
PROLONG = 0.5
"""Seconds after which it says so again, while there is much to do."""
GRACE = 1.0
"""Seconds for which it looks on as often after that: a transaction that read "awake" may commit later."""
AGAIN = 1.0
"""Seconds after which a word that was not answered is said again."""
REFRESH = 5.0
"""Seconds between two words of a process that has nothing else to say; it is forgotten after 15, and awake after 8."""
EVENTS = 10
"""Events a second that wake-ups may cause in Realtime, each counted as sent and for each process that hears it."""
MOST_WAKEUPS = 4
"""Wake-ups in a second at which a process takes to looking by itself, however few hear them."""
KEEP = 4
"""Wake-ups or finds in two seconds with which it goes on."""
QUICKEST, SLOWEST = 0.003, 0.02
"""Seconds between two looks of a process that is awake."""
SHARE = 1 / 3
"""Part of the time from one message to the next after which it looks again."""
SINCE = 0.125
"""The same for the time since work was last found, of a process that cannot rely on wake-ups."""
ISOLATED = 1.0
"""Seconds after which a process that was woken looks by itself for the first time; later the time since then."""
LATE = 2.0
"""Seconds after which a wake-up for committed work should have come."""
RECENT = 2.0
"""Age in seconds above which work is a backlog: it says nothing of how often there is new work."""
EARLY = 0.05
"""Seconds by which the age of work may be off."""
FAREWELL = 2.0


@dataclass(frozen=True, slots=True)
class Listening:
    """The answer of `gre_relay_listen_v1`."""

    listeners: int
    """Processes that are woken, this one included."""
    hubs: int
    """Those of them that serve sockets."""
    broadcasts: bool
    """Whether the database can send broadcasts."""
    snapshot: str | None = None
    """What this look saw, for the next one."""
    sessions: frozenset[str] | None = None
    """Sessions that changed since the snapshot given; None when that is not known."""


class Wakeups(Protocol):
    """What the poller asks of the feed."""

    @property
    def healthy(self) -> bool:
        """Whether wake-ups can be relied on."""

    @property
    def last_wakeup(self) -> float:
        """When a wake-up last came, by the poller's clock."""

    @property
    def listening_since(self) -> float:
        """From when on wake-ups should have been heard, by the poller's clock; infinity when they are not."""

    def report_missed_wakeup(self) -> None:
        """Record work that no wake-up announced."""

    def set_row_changes(self, enabled: bool) -> None:
        """Subscribe to row changes in any case, or only where broadcasts are unavailable."""


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
    """How much there was of one kind, lately."""

    def __init__(self) -> None:
        self.work = _Window(1.0)
        """All of it; of what is found at once, the other two count two at the most."""
        self.second, self.two = _Window(1.0), _Window(2.0)

    def add(self, now: float, count: int) -> None:
        self.work.add(now, count)
        for window in (self.second, self.two):
            window.add(now, min(count, 2))
            window.total(now)
        self.work.total(now)


class PollPolicy:
    """From how often there was work: whether to be awake, and when to look next. All times are in seconds of one clock."""

    def __init__(self, *, slow: float, fast: float) -> None:
        """Without work it looks each `slow` seconds, each `fast` seconds while wake-ups cannot be relied on."""
        self._slow = slow
        self._fast = fast
        self._wakeups = _Activity()
        self._finds: defaultdict[str, _Activity] = defaultdict(_Activity)
        self._last_find = -math.inf
        self._found_awake = False
        self.awake_until = -math.inf
        """Until then the database sends no wake-up for this process's sake."""
        self.listeners = 1
        """Processes that hear each wake-up."""

    def woken(self, now: float) -> None:
        """A wake-up came."""
        self._wakeups.add(now, 1)

    def found(self, now: float, source: str, ages: Sequence[float]) -> None:
        """A look of `source` found new work of these ages."""
        if recent := sum(age < RECENT for age in ages):
            self._finds[source].add(now, recent)
        self._last_find = now
        self._found_awake = self.looks_often(now)

    def busy(self, now: float) -> bool:
        """Whether there is so much to do that wake-ups would be too many."""
        if now < self.awake_until:
            return max(one.two.total(now) for one in (self._wakeups, *self._finds.values())) >= KEEP
        # One event for each wake-up that is sent, and one for each process that hears it.
        most = max(1, min(MOST_WAKEUPS, EVENTS // (1 + self.listeners)))
        return max(one.second.total(now) for one in (self._wakeups, *self._finds.values())) >= most

    def looks_often(self, now: float) -> bool:
        """Whether it is awake, or was just now."""
        return now < self.awake_until + GRACE

    def interval(self, now: float, *, healthy: bool) -> float:
        """Seconds from a look to the next one."""
        since = now - self._last_find
        if self.looks_often(now):
            count = max((one.work.total(now) for one in self._finds.values()), default=0)
            return min(max(SHARE / count, QUICKEST, since * SINCE), SLOWEST) if count else SLOWEST
        if not healthy or self._found_awake:
            return min(max(since * SINCE, SLOWEST), self._slow if healthy else self._fast)
        return min(max(since, ISOLATED), self._slow)


class Poller:
    """Makes one process look when the policy says so, and tells the database when it need not be woken."""

    def __init__(
        self,
        *,
        listen: Callable[[str, float], Awaitable[Listening]],
        unlisten: Callable[[str], Awaitable[None]],
        idle: Callable[[str], Awaitable[Listening]] | None = None,
        look: Callable[[], None],
        wakeups: Wakeups,
        slow: float,
        fast: float,
        on_missed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`listen` says for how many seconds no wake-up is needed, under an id; `idle` that none is, though they are heard;
        `unlisten` that the process has gone.

        `look` must not block; what it came to is told by `looked`. `on_missed` hears of work that no wake-up announced.
        """
        self.id = str(uuid.uuid4())
        self.policy = PollPolicy(slow=slow, fast=fast)
        self.polls = 0
        """Looks so far."""
        self.hubs = 0
        """Processes with sockets at the last word, this one included."""
        self._listen = listen
        self._unlisten = unlisten
        self._idle = idle
        self._look = look
        self._wakeups = wakeups
        self._on_missed = on_missed
        self._clock = clock
        self._active = True
        self._listed = asyncio.Event()
        self._changed = asyncio.Event()
        self._looked = clock()
        self._took = 0.0
        self._said = self._said_awake = -math.inf
        self._saying: asyncio.Task[None] | None = None
        self._expected: float | None = None

    @property
    def listed(self) -> asyncio.Event:
        """Set while the database knows of this process."""
        return self._listed

    def activate(self, active: bool) -> None:
        """Whether anybody here wants to hear of anything."""
        if active != self._active:
            self._active = active
            self._said = -math.inf
            self._expected = None
            self._listed.clear()
            self._changed.set()

    def woken(self) -> None:
        """A wake-up came, and is being followed."""
        self.policy.woken(self._clock())
        self._changed.set()

    def refresh(self) -> None:
        """Whether wake-ups can be relied on has changed."""
        self._changed.set()

    def looked(self, source: str, ages: Sequence[float], took: float) -> None:
        """A look has found work of these ages, which is new; it took so long. All in seconds."""
        now = self._clock()
        self._looked, self._took = now, took
        if ages:
            self._expect(now - min(ages))
            self.policy.found(now, source, ages)
            self._changed.set()

    def _expect(self, committed: float) -> None:
        """Remember work that a wake-up should have announced and has not: it may still come."""
        feed = self._wakeups
        if (
            self._expected is None
            and feed.healthy
            and feed.listening_since < committed
            and feed.last_wakeup < committed - EARLY
            and self.policy.awake_until + GRACE < committed
        ):
            self._expected = committed

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._turn(group)
        finally:
            self._listed.clear()
            with contextlib.suppress(BridgeError, TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await self._unlisten(self.id)

    async def _turn(self, group: asyncio.TaskGroup) -> None:
        self._changed.clear()
        now = self._clock()
        word = self._next_word(now)
        if now >= word:
            self._said, word = now, math.inf
            self._saying = group.create_task(self._say())
        if not self._active:
            await self._wait(word - now)
            return
        due = self._looked + max(self.policy.interval(now, healthy=self._wakeups.healthy), self._took)
        if now >= due:
            self.polls += 1
            self._looked = now
            self._look()
            due = now + self.policy.interval(now, healthy=self._wakeups.healthy)
        await self._wait(min(due, word, self._check(now)) - now)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else max(0.0, seconds)):
                await self._changed.wait()

    def _next_word(self, now: float) -> float:
        """When to speak to the database next: soon while it does not know of this process or there is much to do."""
        if self._saying is not None:
            return math.inf
        if not self._active:
            return self._said + REFRESH
        if not self._listed.is_set():
            return self._said + AGAIN
        return self._said_awake + PROLONG if self.policy.busy(now) else self._said + REFRESH

    def _check(self, now: float) -> float:
        """See whether the wake-up that was expected has come in time; when to look again."""
        if self._expected is None:
            return math.inf
        committed = self._expected
        if self._wakeups.last_wakeup >= committed - EARLY or not self._wakeups.healthy:
            self._expected = None
        elif now >= committed + LATE:
            self._expected = None
            self._on_missed()
            self._wakeups.report_missed_wakeup()
        else:
            return committed + LATE
        return math.inf

    async def _say(self) -> None:
        active = self._active
        awake = AWAKE if active and self.policy.busy(self._clock()) else 0.0
        if awake:
            self._said_awake = self._said
        try:
            say = self._listen(self.id, awake) if active or self._idle is None else self._idle(self.id)
            answer = await say
        except BridgeError:
            pass  # whoever looks for work tells of it
        else:
            self.policy.listeners, self.hubs = answer.listeners, answer.hubs
            self._wakeups.set_row_changes(not answer.broadcasts)
            if active and self._active and not self._listed.is_set():
                self._listed.set()
                self._looked = -math.inf  # what was committed before woke others at the most
        finally:
            self._saying = None
            if awake:  # also after a lost answer: it may have been heard
                self.policy.awake_until = max(self.policy.awake_until, self._clock() + awake)
            self._changed.set()
