"""A relay without a network: an outbox in memory, a scripted sink, and virtual time.

`virtual` runs a coroutine on a loop whose clock moves to the next timer as soon as nothing else can run: an
hour's outage takes milliseconds, every wait has its exact length, and a wait without an end fails at once.
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

from gre_bridge.daemon.relay_process import BreakerMetrics
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import Claim, ClaimRequest, Delivery, Lane, LaneResult, Settled
from gre_bridge.errors import BridgeError, PermanentError, TransientError
from gre_bridge.metrics import Metrics
from gre_bridge.relay.dispatcher import Dispatcher
from gre_bridge.relay.policy import Breaker, RetryPolicy
from gre_bridge.sinks.base import Outcome, PusherEvent, Result, SinkRecord
from tests.support import waiting

START = 1000.0
DOWN = TransientError("no connection")
REFUSED = PermanentError("400", code="400")
PARTS = {"exchange": ("settle", "claim")}
"""An exchange counts as a settle and a claim, and fails when either would."""
MAX_LEASE = 300.0
"""`gre.max_lease()`, in seconds: a lease that ends later is as good as over."""
MAX_BACKOFF = 600.0
"""`gre.max_backoff()`, in seconds: a lane that is ready later is due now."""


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
    await waiting.pause(seconds, "virtual time")


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
    await waiting.until(condition, within, within / 5000)


@dataclass
class Row:
    id: str
    ord: int
    created: float
    attempts: int = 0
    state: str = "pending"
    error: str = ""

    def to_delivery(self, at: float) -> Delivery:
        return Delivery(self.id, self.ord, "message", self.attempts, round(at - self.created, 4))


@dataclass
class Queue:
    rows: list[Row] = field(default_factory=list)
    ready: float | None = None
    until: float = 0.0
    token: str | None = None
    owner: str | None = None

    @property
    def pending(self) -> list[Row]:
        return [row for row in self.rows if row.state == "pending"]

    def lease(self, token: str, owner: str, seconds: float) -> None:
        self.token, self.owner, self.until = token, owner, _lease_end(seconds)

    def free(self) -> None:
        self.token, self.owner, self.until = None, None, 0.0


def _lease_end(seconds: float) -> float:
    return now() + min(max(seconds, 0.1), MAX_LEASE)


class Outbox:
    """The outbox of one sink as its SQL functions behave, shared by any number of workers.

    tests/integration/test_outbox_contract.py and test_outbox_model.py hold it to the SQL; only the content of rows,
    receipts and the limit of an answer's size are the database's alone.

    `latency` is how long each call takes, in seconds. `fail` has a function's next calls fail. Lanes and
    deliveries in `locked` are held by the open transaction of another. `calls` has (function, time, arguments).
    """

    def __init__(self, *, latency: float = 0.001) -> None:
        self.latency = latency
        self.lanes: dict[str, Queue] = defaultdict(Queue)
        self.locked: set[str] = set()
        self.calls: list[tuple[str, float, dict[str, Any]]] = []
        self.refuse: Callable[[list[LaneResult]], bool] = lambda _: False
        self._failures: dict[str, list[tuple[BridgeError, bool]]] = defaultdict(list)
        self._ord = itertools.count(1)
        self._rows: dict[str, Row] = {}
        self._owners: dict[str, str] = {}

    @property
    def store(self) -> RelayDatabase:
        """This object, typed as the relay's database."""
        return cast("RelayDatabase", self)

    def put(self, lane: str, *ids: str, age: float = 0.0) -> None:
        """Commit deliveries."""
        queue = self.lanes[lane]
        for name in ids:
            self._rows[name] = Row(name, next(self._ord), now() - age)
            queue.rows.append(self._rows[name])
        if queue.ready is None:
            queue.ready = now() - age

    def fail(
        self, function: str, error: BridgeError = DOWN, *, times: int = 1, applied: bool = False
    ) -> None:
        """Let the next calls fail; `applied`: the statement still commits, only its answer is lost."""
        self._failures[function] += [(error, applied)] * times

    def crash(self, *lanes: str) -> None:
        """Keep the claims of these lanes and undo later settles, without a wake-up."""
        for _, at, call in reversed([call for call in self.calls if "results" in call[2]]):
            for result in call["results"]:
                queue = self.lanes[result["lane"]]
                if result["lane"] in lanes and queue.token is None:
                    queue.token, queue.until, queue.ready = result["token"], at + 30.0, at
                    queue.owner = self._owners.get(result["token"])
                    for name in result.get("done", ()):
                        self._rows[name].state = "pending"

    def heal(self) -> None:
        self._failures.clear()

    def count(self, function: str) -> int:
        return len(self.times(function))

    def times(self, function: str) -> list[float]:
        return [at for name, at, _ in self.calls if name == function or function in PARTS.get(name, ())]

    def rows(self) -> dict[str, Row]:
        return self._rows

    def states(self) -> dict[str, str]:
        return {name: row.state for name, row in self.rows().items()}

    def drained(self) -> bool:
        """Return True if nothing is pending and nothing is leased."""
        return not any(q.pending or q.token for q in self.lanes.values())

    async def _call(self, function: str, apply: Callable[[], Any], **arguments: Any) -> Any:
        self.calls.append((function, now(), arguments))
        await waiting.pause(self.latency, "latency of the server")
        failures = next(filter(None, map(self._failures.get, (function, *PARTS.get(function, ())))), None)
        error, applied = failures.pop(0) if failures else (None, True)
        answer = apply() if applied else None
        if error is not None:
            raise error
        return answer

    async def claim(self, request: ClaimRequest) -> Claim:
        return cast("Claim", await self._call("claim", lambda: self._claim(request), token=request.token))

    def _claim(self, request: ClaimRequest) -> Claim:
        self._owners[request.token] = request.owner
        at = now()
        due = sorted(
            (q.ready > at, q.ready, key)
            for key, q in self.lanes.items()
            if q.ready is not None
            and not at < q.ready <= at + MAX_BACKOFF
            and key not in self.locked
            and self._free_for(q, request)
        )
        taken, emptied, recovered = [], 0, 0
        for late, ready, key in due[: request.lanes]:
            queue = self.lanes[key]
            recovered += queue.owner == request.owner and queue.until > at and not late
            queue.lease(request.token, request.owner, request.lease)
            queue.ready = min(ready, at)
            rows = queue.pending[: request.per_lane]
            if rows:
                taken.append(Lane(key, tuple(row.to_delivery(at) for row in rows)))
            else:
                queue.free()
                queue.ready, emptied = None, emptied + 1
        others = (
            q.ready if q.ready > at else at if self._free_for(q, request) else q.until
            for q in self.lanes.values()
            if q.ready is not None and q.ready <= at + MAX_BACKOFF and q.token != request.token
        )
        nearest = at if len(due) >= request.lanes else min(others, default=None)
        next_in = None if nearest is None else round(nearest - at, 4)
        return Claim(request.token, tuple(taken), next_in, emptied, recovered)

    def _free_for(self, queue: Queue, request: ClaimRequest) -> bool:
        """Return True if no lease excludes the lane from this claim."""
        own = queue.owner == request.owner and queue.token not in request.held
        return own or not now() < queue.until <= now() + MAX_LEASE

    async def settle(self, *, sink: str, results: Iterable[LaneResult]) -> Settled:
        batch = list(results)
        if self.refuse(batch):
            self.fail("settle", PermanentError("settle: 22P02"))
        written = [r.to_json() for r in batch]
        return cast(
            "Settled", await self._call("settle", lambda: self._settle(batch), sink=sink, results=written)
        )

    async def exchange(self, results: Iterable[LaneResult], request: ClaimRequest) -> tuple[Settled, Claim]:
        batch = list(results)
        if self.refuse(batch):
            self.fail("exchange", PermanentError("exchange: 22P02"))

        def apply() -> tuple[Settled, Claim]:
            return self._settle(batch), self._claim(request)

        written = [r.to_json() for r in batch]
        return cast(
            "tuple[Settled, Claim]",
            await self._call("exchange", apply, results=written, token=request.token),
        )

    def _settle(self, batch: list[LaneResult]) -> Settled:
        skipped = set()
        for state in ("expired", "done"):  # a delivery that is named as both is expired
            for name in itertools.chain.from_iterable(getattr(result, state) for result in batch):
                row = self._rows.get(name)
                if row is None or row.state != "pending":
                    continue
                if name in self.locked:
                    skipped.add(name)
                else:
                    row.state = state
        incomplete = {result.lane_key for result in batch if skipped & {*result.done, *result.expired}}
        verdicts = [
            (result, self._verdict(result, incomplete))
            for result in batch
            if result.lane_key in self.lanes and (not result.keep or result.lane_key in incomplete)
        ]
        freed = [result for result, verdict in verdicts if verdict == "free"]
        for result in freed:
            self._free(result)
        return Settled(
            frozenset(result.lane_key for result, verdict in verdicts if verdict == "busy"),
            frozenset(result.lane_key for result, verdict in verdicts if verdict == "lost"),
            sum(self.lanes[key].ready is not None for key in {result.lane_key for result in freed}),
        )

    def _verdict(self, result: LaneResult, incomplete: set[str]) -> str:
        """Return `free` if a settle may free the lane, `lost` if its token is another's, `busy` if it must be repeated."""
        held = self.lanes[result.lane_key].token == result.token
        if result.lane_key in self.locked or (held and result.lane_key in incomplete):
            return "busy"
        return "free" if held else "lost"

    def _free(self, result: LaneResult) -> None:
        queue, failure = self.lanes[result.lane_key], result.failure
        for row in queue.pending:
            if failure is not None and row.id in failure.deliveries and row.id not in self.locked:
                row.attempts += failure.spend
                row.error = failure.error[:500]
                row.state = "dead" if failure.state == "dead" else row.state
        queue.free()
        queue.ready = None
        if queue.pending:
            pause = failure.retry_in if failure else result.retry_in
            created = queue.pending[0].created
            queue.ready = created if pause is None else max(created, now() + min(pause, MAX_BACKOFF))

    async def extend(
        self, *, sink: str, token: str, lanes: list[str], lease: float
    ) -> tuple[frozenset[str], frozenset[str]]:
        def apply() -> tuple[frozenset[str], frozenset[str]]:
            mine = {key for key in lanes if key in self.lanes and self.lanes[key].token == token}
            for key in mine - self.locked:
                self.lanes[key].until = _lease_end(lease)
            return frozenset(mine - self.locked), frozenset(mine & self.locked)

        return cast(
            "tuple[frozenset[str], frozenset[str]]",
            await self._call("extend", apply, sink=sink, token=token, lanes=lanes),
        )

    async def release(self, *, sink: str, owner: str) -> bool:
        def apply() -> bool:
            mine = {key for key, q in self.lanes.items() if q.ready is not None and q.owner == owner}
            for key in mine - self.locked:
                self.lanes[key].free()
            return not mine & self.locked

        return cast("bool", await self._call("release", apply, sink=sink, owner=owner))


Answer = Callable[[SinkRecord], BridgeError | None]


class ScriptedSink:
    """A sink that implements the protocol of sinks/base.py and answers as the test sets.

    `answer` says for each record what goes wrong: a permanent error refuses it, any other means that the
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
        self.raises: Callable[[Sequence[SinkRecord]], bool] = lambda _: False
        self.received: list[tuple[float, str]] = []
        self.requests: list[list[str]] = []
        self.times: list[float] = []
        self.flying = 0
        self.most = 0

    async def send(self, records: Sequence[SinkRecord]) -> list[Outcome]:
        assert sum(len(p.payloads) for p in records) <= self.batch_size or len(records) == 1
        self.requests.append([name for p in records for name in p.deliveries])
        self.times.append(now())
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await waiting.pause(self.latency, "latency of the server")
        finally:
            self.flying -= 1
        if self.raises(records):
            raise ZeroDivisionError("a bug with chat text in its message")
        outcomes: list[Outcome] = []
        stopped: set[str] = set()
        down = False
        for record in records:
            error = None if record.outcome_without_request() else self.answer(record)
            if record.lane_key in stopped or (down and not record.outcome_without_request()):
                outcomes.append(Outcome(Result.UNSENT))
            elif (decided := record.outcome_without_request()) is not None:
                outcomes.append(decided)
            elif error is None:
                self.received += [(now(), name) for name in record.deliveries]
                outcomes.append(Outcome(Result.ACCEPTED))
            elif isinstance(error, PermanentError):
                outcomes.append(Outcome(Result.REJECTED, error))
            else:
                down = True
                outcomes.append(Outcome(Result.FAILED, error))
            if outcomes[-1].result is not Result.ACCEPTED:
                stopped.add(record.lane_key)
        return outcomes

    async def aclose(self) -> None:
        """Nothing to close."""

    @property
    def arrived(self) -> list[str]:
        """First arrivals, in order."""
        return list(dict.fromkeys(name for _, name in self.received))


def one_each(lane: Lane, _: Claim) -> list[SinkRecord]:
    """Route every delivery to one event of its own."""
    return [
        SinkRecord(lane.key, (d.id,), (PusherEvent("c", "e", d.id),), attempts=d.attempts)
        for d in lane.deliveries
    ]


class Relay:
    """A dispatcher with its metrics and the calls that it made."""

    def __init__(self, outbox: Outbox, sink: ScriptedSink, **options: Any) -> None:
        self.outbox, self.sink = outbox, sink
        self.metrics = Metrics()
        self.healthy = True
        self.crashes: list[float] = []
        """Times at which the dispatcher found that PostgreSQL had crashed."""
        self.polls: list[tuple[str, list[float]]] = []
        """The reports of the claims: the sink, and the ages of new deliveries."""
        settings: dict[str, Any] = {
            "store": outbox.store, "sink": sink, "route": one_each, "metrics": self.metrics,
            "retry": RetryPolicy(jitter=lambda: 1.0), "breaker": Breaker(jitter=lambda: 0.0),
            "poll_interval": 30.0, "fast_poll_interval": 1.0, "clock": now, "wakeups": self, "observer": self,
        }  # fmt: skip
        self.dispatcher = Dispatcher(**{**settings, **options})
        self.metrics.registry.register(BreakerMetrics([self.dispatcher]))

    def mark_unreliable(self) -> None:
        self.crashes.append(now())

    def record_poll(self, source: str, ages: Sequence[float], took: float) -> None:
        assert took >= 0
        self.polls.append((source, list(ages)))

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
        await cancelled(task)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and assert that it ends."""
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
