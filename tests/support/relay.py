"""A relay without a network: an outbox in memory, a sink that does as it is told, and time that jumps.

`virtual` runs a coroutine on a loop whose clock leaps to the next timer as soon as nothing else can run: an
hour's outage takes milliseconds, every wait has its exact length, and what waits for nothing fails at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import selectors
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from gre_bridge.db.relay import RelayDatabase, Settled
from gre_bridge.db.types import Claim, Delivery, Lane, LaneResult
from gre_bridge.errors import BridgeError, PermanentError, TransientError
from gre_bridge.metrics import Metrics
from gre_bridge.relay.dispatcher import Dispatcher
from gre_bridge.relay.policy import Breaker, RetryPolicy
from gre_bridge.sinks.base import Outcome, Parcel, PusherEvent, Result

START = 1000.0
DOWN = TransientError("no connection")
REFUSED = PermanentError("400", code="400")


class _Leap(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """A selector that moves the clock instead of waiting."""

    now = START

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits for something that never comes")
        if not ready and timeout:
            self.now += timeout
        return list(ready)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.now


async def elapse(seconds: float) -> None:
    """Let so much virtual time pass."""
    await asyncio.sleep(seconds)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in virtual time, an hour of it at most."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(3600):
                await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(bounded())

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], Any], within: float = 60.0) -> None:
    """Return as soon as `condition` holds; fail after `within` (virtual) seconds."""
    deadline = now() + within
    while not condition():
        assert now() < deadline, f"not within {within} s of virtual time"
        await asyncio.sleep(within / 5000)


@dataclass
class _Row:
    id: str
    ord: int
    created: float
    attempts: int = 0
    state: str = "pending"
    error: str = ""


@dataclass
class _Queue:
    rows: list[_Row] = field(default_factory=list)
    ready: float | None = None
    until: float = 0.0
    token: str | None = None

    @property
    def pending(self) -> list[_Row]:
        return [row for row in self.rows if row.state == "pending"]


class Outbox:
    """The outbox of one sink as its SQL functions behave, shared by any number of workers.

    `latency` is how long each call takes, in seconds. `fail` has a function's next calls fail. Lanes in
    `locked` are held by a portal's open transaction. `calls` has (function, time, arguments).
    """

    def __init__(self, *, latency: float = 0.001) -> None:
        self.latency = latency
        self.lanes: dict[str, _Queue] = defaultdict(_Queue)
        self.locked: set[str] = set()
        self.calls: list[tuple[str, float, dict[str, Any]]] = []
        self.refuse: Callable[[list[LaneResult]], bool] = lambda _: False
        self._failures: dict[str, list[tuple[BridgeError, bool]]] = defaultdict(list)
        self._ord = itertools.count(1)
        self._rows: dict[str, _Row] = {}

    @property
    def store(self) -> RelayDatabase:
        """Itself, as the relay's parts take it."""
        return cast("RelayDatabase", self)

    def put(self, lane: str, *ids: str, age: float = 0.0) -> None:
        """Commit deliveries."""
        queue = self.lanes[lane]
        for name in ids:
            self._rows[name] = _Row(name, next(self._ord), now() - age)
            queue.rows.append(self._rows[name])
        if queue.ready is None:
            queue.ready = now() - age

    def fail(
        self, function: str, error: BridgeError = DOWN, *, times: int = 1, applied: bool = False
    ) -> None:
        """Let the next calls fail; `applied`: the statement still commits, only its answer is lost."""
        self._failures[function] += [(error, applied)] * times

    def crash(self, *lanes: str) -> None:
        """Keep the claims of these lanes and forget what was settled since. Nobody is told."""
        for _, at, call in reversed([call for call in self.calls if call[0] == "settle"]):
            for result in call["results"]:
                queue = self.lanes[result["lane"]]
                if result["lane"] in lanes and queue.token is None:
                    queue.token, queue.until, queue.ready = result["token"], at + 30.0, at
                    for name in result.get("done", ()):
                        self._rows[name].state = "pending"

    def heal(self) -> None:
        self._failures.clear()

    def count(self, function: str) -> int:
        return sum(call[0] == function for call in self.calls)

    def times(self, function: str) -> list[float]:
        return [call[1] for call in self.calls if call[0] == function]

    def rows(self) -> dict[str, _Row]:
        return self._rows

    def states(self) -> dict[str, str]:
        return {name: row.state for name, row in self.rows().items()}

    def drained(self) -> bool:
        """Whether nothing waits and nothing is leased."""
        return not any(q.pending or q.token for q in self.lanes.values())

    async def _call(self, function: str, apply: Callable[[], Any], **arguments: Any) -> Any:
        self.calls.append((function, now(), arguments))
        await asyncio.sleep(self.latency)
        error, applied = self._failures[function].pop(0) if self._failures[function] else (None, True)
        answer = apply() if applied else None
        if error is not None:
            raise error
        return answer

    async def claim(self, *, sink: str, token: str, lanes: int, per_lane: int, lease: float) -> Claim:
        def apply() -> Claim:
            free = [
                (q.ready, key)
                for key, q in self.lanes.items()
                if q.ready is not None and q.ready <= now() and q.until <= now() and key not in self.locked
            ]
            taken = []
            for _, key in sorted(free)[:lanes]:
                queue = self.lanes[key]
                if not queue.pending:
                    queue.ready, queue.token, queue.until = None, None, 0.0
                    continue
                queue.token, queue.until = token, now() + lease
                taken.append(
                    Lane(
                        key,
                        tuple(
                            Delivery(r.id, r.ord, "message", r.attempts, now() - r.created)
                            for r in queue.pending[:per_lane]
                        ),
                    )
                )
            others = [
                max(q.ready, q.until) for q in self.lanes.values() if q.ready is not None and q.token != token
            ]
            nearest = now() if len(free) >= lanes else min(others, default=None)
            return Claim(token, tuple(taken), None if nearest is None else max(0.0, nearest - now()))

        return cast(
            "Claim", await self._call("claim", apply, sink=sink, token=token, lanes=lanes, per_lane=per_lane)
        )

    async def settle(self, *, sink: str, results: Iterable[LaneResult]) -> Settled:
        batch = list(results)
        if self.refuse(batch):
            self.fail("settle", PermanentError("settle: 22P02"))

        def apply() -> Settled:
            rows = self.rows()
            for result in batch:
                for name in (*result.done, *result.expired):
                    if rows[name].state == "pending":
                        rows[name].state = "done" if name in result.done else "expired"
            freed = [(r.lane_key, self._free(r)) for r in batch if not r.keep]
            return Settled(
                frozenset(lane for lane, what in freed if what == "busy"),
                frozenset(lane for lane, what in freed if what == "lost"),
                sum(what == "waiting" for _, what in freed),
            )

        return cast(
            "Settled", await self._call("settle", apply, sink=sink, results=[r.to_json() for r in batch])
        )

    def _free(self, result: LaneResult) -> str:
        """Free a lane as its settle says; returns busy, lost, waiting (it has more to do) or rest."""
        queue, failure = self.lanes[result.lane_key], result.failure
        if result.lane_key in self.locked:
            return "busy"
        if queue.token != result.token:
            return "lost"
        for row in queue.pending:
            if failure is not None and row.id in failure.deliveries:
                row.attempts += failure.spend
                row.error = failure.error
                row.state = "dead" if failure.state == "dead" else row.state
        queue.token, queue.until, queue.ready = None, 0.0, None
        if queue.pending:
            queue.ready = now() + failure.retry_in if failure else queue.pending[0].created
            return "waiting"
        return "rest"

    async def extend(
        self, *, sink: str, token: str, lanes: list[str], lease: float
    ) -> tuple[frozenset[str], frozenset[str]]:
        def apply() -> tuple[frozenset[str], frozenset[str]]:
            mine = {key for key in lanes if self.lanes[key].token == token}
            for key in mine - self.locked:
                self.lanes[key].until = now() + lease
            return frozenset(mine - self.locked), frozenset(mine & self.locked)

        return cast(
            "tuple[frozenset[str], frozenset[str]]",
            await self._call("extend", apply, sink=sink, token=token, lanes=lanes),
        )

    async def release(self, *, sink: str, token: str, lanes: list[str] | None = None) -> bool:
        def apply() -> bool:
            mine = [k for k, q in self.lanes.items() if q.token == token and (lanes is None or k in lanes)]
            for key in set(mine) - self.locked:
                self.lanes[key].token, self.lanes[key].until = None, 0.0
            return not set(mine) & self.locked

        return cast("bool", await self._call("release", apply, sink=sink, token=token))


Answer = Callable[[Parcel], BridgeError | None]


class ScriptedSink:
    """A sink that keeps the protocol of sinks/base.py and does as it is told.

    `answer` says for each parcel what goes wrong: a permanent error refuses it, any other means that the
    service as a whole failed. `received` has (time, delivery), `requests` the ids of each request.
    """

    name = "pusher"

    def __init__(
        self,
        *,
        batch_size: int = 10,
        concurrency: int = 8,
        latency: float = 0.005,
        answer: Answer = lambda _: None,
    ) -> None:
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.latency = latency
        self.answer = answer
        self.raises: Callable[[Sequence[Parcel]], bool] = lambda _: False
        self.received: list[tuple[float, str]] = []
        self.requests: list[list[str]] = []
        self.times: list[float] = []
        self.flying = 0
        self.most = 0

    async def send(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        assert sum(len(p.payloads) for p in parcels) <= self.batch_size or len(parcels) == 1
        self.requests.append([name for p in parcels for name in p.deliveries])
        self.times.append(now())
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(self.latency)
        finally:
            self.flying -= 1
        if self.raises(parcels):
            raise ZeroDivisionError("a bug with chat text in its message")
        outcomes: list[Outcome] = []
        stopped: set[str] = set()
        down = False
        for parcel in parcels:
            error = None if parcel.decided() else self.answer(parcel)
            if parcel.lane_key in stopped or (down and not parcel.decided()):
                outcomes.append(Outcome(Result.UNSENT))
            elif (decided := parcel.decided()) is not None:
                outcomes.append(decided)
            elif error is None:
                self.received += [(now(), name) for name in parcel.deliveries]
                outcomes.append(Outcome(Result.ACCEPTED))
            elif isinstance(error, PermanentError):
                outcomes.append(Outcome(Result.REJECTED, error))
            else:
                down = True
                outcomes.append(Outcome(Result.FAILED, error))
            if outcomes[-1].result is not Result.ACCEPTED:
                stopped.add(parcel.lane_key)
        return outcomes

    async def aclose(self) -> None:
        """Nothing to close."""

    @property
    def arrived(self) -> list[str]:
        """First arrivals, in order."""
        return list(dict.fromkeys(name for _, name in self.received))


def one_each(lane: Lane, _: Claim) -> list[Parcel]:
    """Route every delivery to one event of its own."""
    return [
        Parcel(lane.key, (d.id,), (PusherEvent("c", "e", d.id),), attempts=d.attempts)
        for d in lane.deliveries
    ]


class Relay:
    """A dispatcher with what the tests look at."""

    def __init__(self, outbox: Outbox, sink: ScriptedSink, **options: Any) -> None:
        self.outbox, self.sink = outbox, sink
        self.metrics = Metrics()
        self.healthy = True
        self.looks: list[tuple[str, list[float]]] = []
        """What each claim told: the sink, and the ages of what was new."""
        settings: dict[str, Any] = {
            "store": outbox.store, "sink": sink, "route": one_each, "metrics": self.metrics,
            "retry": RetryPolicy(jitter=lambda: 1.0), "breaker": Breaker(jitter=lambda: 0.0),
            "sweep_interval": 30.0, "fast_sweep_interval": 1.0, "clock": now,
            "feed_healthy": lambda: self.healthy, "on_looked": lambda sink, ages, _: self.looks.append((sink, list(ages))),
        }  # fmt: skip
        self.dispatcher = Dispatcher(**{**settings, **options})

    def value(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(name, {"sink": "pusher", **labels}) or 0.0


@contextlib.asynccontextmanager
async def relaying(outbox: Outbox, sink: ScriptedSink, **options: Any) -> AsyncIterator[Relay]:
    """A dispatcher that runs; cancelled at the end, as a crash would."""
    relay = Relay(outbox, sink, **options)
    task = asyncio.create_task(relay.dispatcher.run())
    try:
        yield relay
        assert not task.done() or task.exception() is None
    finally:
        await gone(task)


async def gone(task: asyncio.Task[Any]) -> None:
    """Cancel a task and insist that it ends."""
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=60)
    assert done, "a cancelled task did not end"
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


def lane_order(arrived: Iterable[str]) -> dict[str, list[str]]:
    """First arrivals by lane: ids are written lane.number."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in arrived:
        found[name.split(".")[0]].append(name)
    return dict(found)


async def settled_in_time(waiting: Awaitable[Any], seconds: float) -> Any:
    """Await with a bound in virtual seconds."""
    async with asyncio.timeout(seconds):
        return await waiting
