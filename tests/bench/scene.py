"""What is simulated, what a simulation found, and CPU in virtual time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import Counter
from dataclasses import dataclass, field

from tests.support.waiting import pause

QUANTUM = 0.002
"""Seconds of CPU after which another thread has its turn."""


class Cores:
    """CPU cores in virtual time. As in an operating system, the thread that has used least is next."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.used = 0.0
        """CPU seconds so far."""
        self.least = 0.0
        """What the thread had used that was next last; one that slept counts as if it had used nearly as much."""
        self._free = count
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._asked = itertools.count()

    async def work(self, seconds: float, before: float = 0.0) -> float:
        """Use a core for so many seconds, a QUANTUM at a time; `before` and the result: what the thread has used."""
        self.used += seconds
        spent = max(before, self.least - QUANTUM)
        while seconds > 0:
            await self._turn(spent)
            try:
                await pause(min(seconds, QUANTUM), "CPU in virtual time")
            finally:
                self._free += 1
                self._next()
            spent += min(seconds, QUANTUM)
            seconds -= QUANTUM
        return spent

    async def _turn(self, spent: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (spent, next(self._asked), turn))
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            self._free += turn.done() and not turn.cancelled()
            raise

    def _next(self) -> None:
        while self._free and self._waiting:
            spent, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= 1
                self.least = max(self.least, spent)
                turn.set_result(None)


class Thread:
    """A process with one interpreter: it does one thing at a time, on one of these cores."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._lock = asyncio.Lock()
        self._used = 0.0

    async def work(self, seconds: float) -> None:
        """Wait for the thread, then use it for so many seconds."""
        async with self._lock:
            self._used = await self._cores.work(seconds, self._used)


@dataclass(frozen=True)
class Scene:
    """What is simulated.

    `rate` (messages a second, for `seconds`) is written while the workers run; without it `backlog` messages wait at the
    start. A share `busy` of the sessions writes half of all messages. `cores` are the database's. With `together`
    everything runs on them, as in the bench: workers, the stand-in of PostgREST (one thread) and the sink.
    """

    sessions: int = 500
    workers: int = 1
    cores: int = 2
    rate: float = 0.0
    seconds: float = 10.0
    backlog: int = 20_000
    busy: float = 0.0
    together: bool = False
    distance: float = 0.05
    spread: float = 0.0
    """The share of the time of the sink's answers that varies (exponentially, with `distance` as the average)."""
    concurrency: int = 64
    others: int = 0
    """Programs that always use these cores, too."""
    patience: float = 600.0
    """Virtual seconds after which it ends, whatever has arrived."""
    indexed: bool = True


@dataclass
class Found:
    """What a simulation found; times are seconds, from the commit to the arrival at the sink."""

    scene: Scene
    written: int = 0
    times: dict[str, float] = field(default_factory=dict)
    """By message: how long it took."""
    first: float = math.inf
    last: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    shares: list[int] = field(default_factory=list)
    """Messages that each worker sent."""
    used: float = 0.0
    """Share of the database's cores that was used."""
    worker: float = 0.0
    """Share of a core that the busiest worker used."""
    out_of_order: int = 0
    repeats: int = 0

    @property
    def throughput(self) -> float:
        """Messages a second, from the first arrival to the last."""
        return len(self.times) / (self.last - self.first) if self.last > self.first else 0.0

    def at(self, share: float, *, busy: bool | None = None) -> float:
        """A percentile of the times; `busy`: of busy sessions only, or of the others only."""
        times = sorted(
            t for name, t in self.times.items() if busy is None or is_busy(self.scene, name) == busy
        )
        return times[min(len(times) - 1, int(len(times) * share))] if times else math.nan

    @property
    def evenness(self) -> float:
        """Messages of the worker that sent the fewest, as a share of those of the one that sent the most."""
        return min(self.shares) / max(self.shares) if max(self.shares, default=0) else 0.0


def is_busy(scene: Scene, message: str) -> bool:
    """Return True if this message is of a busy session."""
    return int(message.split(".", maxsplit=1)[0][1:]) < scene.sessions * scene.busy


def describe(found: Found) -> str:
    """Return the result as lines of text."""
    sent = max(len(found.times), 1)
    calls = ", ".join(f"{name} {count / sent:.3f}" for name, count in sorted(found.calls.items()))
    return "\n".join(
        (
            f"written {found.written}, arrived {len(found.times)}, out of order {found.out_of_order}, repeats {found.repeats}",
            f"messages a second {found.throughput:.0f}",
            f"commit to sink, ms: p50 {found.at(0.5) * 1000:.0f}, p99 {found.at(0.99) * 1000:.0f}",
            f"calls a message: {calls}; requests to the sink {found.requests / sent:.3f}",
            f"the database's cores used {found.used:.0%}, the busiest worker's {found.worker:.0%}",
            f"fewest ÷ most messages of a worker {found.evenness:.2f}",
        )
    )
