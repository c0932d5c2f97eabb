"""Sends what one claim leased: send tasks of some lanes each, in order, one request at a time.

A lane belongs to one send task, and a send task waits for each answer before its next request: this keeps a session's
order. Send tasks of several claims share the sink's requests in flight, so that the next claim is made while the last
one is sent. A lane stops at its first failure. Its result goes to the settler as soon as its last record was sent. It
must not decide when to claim.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from gre_bridge.db.types import Claim, Delivery, Failure, Lane, LaneResult
from gre_bridge.errors import PermanentError, TransientError
from gre_bridge.logging import ACCESS_LOG
from gre_bridge.metrics import Metrics
from gre_bridge.relay.gate import Gate
from gre_bridge.relay.lease import Lease
from gre_bridge.relay.policy import Breaker, Pace, RetryPolicy, Window
from gre_bridge.relay.schedule import ClaimSchedule
from gre_bridge.relay.settler import Settler
from gre_bridge.sinks.base import Outcome, Result, Sink, SinkRecord
from gre_bridge.tracing import Tracing

Route = Callable[[Lane, Claim], list[SinkRecord]]
log = structlog.get_logger("gre.relay")

PROGRESS = 0.25
"""Seconds after which a long lane's progress is recorded, so that a crash repeats little."""

FAILING_LIMIT = 10_000
"""Lanes whose failures are remembered, at most."""

AHEAD = 4
"""Requests that may wait for each one in flight before nothing more is claimed: enough to send while a claim runs."""


class Sender:
    """The send tasks of one sink."""

    def __init__(
        self,
        *,
        sink: Sink,
        route: Route,
        settler: Settler,
        breaker: Breaker,
        retry: RetryPolicy,
        pace: Pace,
        window: Window,
        metrics: Metrics,
        clock: Callable[[], float],
        tracing: Tracing | None,
        schedule: ClaimSchedule,
    ) -> None:
        """`schedule` is notified of room for more, and when the service works again."""
        self._sink = sink
        self._route = route
        self._settler = settler
        self._breaker = breaker
        self._retry = retry
        self._pace = pace
        self._metrics = metrics
        self._clock = clock
        self._tracing = tracing
        self._schedule = schedule
        self._tasks: set[asyncio.Task[None]] = set()
        self._window = window
        self._gate = Gate(window)
        self._unsent = 0
        self._failing: dict[str, tuple[float, int]] = {}
        """By lane: since when the service fails on it, and how often it has."""
        # Looked up once: finding a metric by its labels costs as much as counting.
        self._done = metrics.settled.labels(sink.name, "done")
        self._expired = metrics.settled.labels(sink.name, "expired")
        self._send_time = metrics.send_time.labels(sink.name)
        self._total_time = metrics.total_time.labels(sink.name)
        self._in_flight = metrics.in_flight.labels(sink.name)
        self._allowed = metrics.allowed.labels(sink.name)
        self._allowed.set(window.size)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin no further request."""
        self._stop.set()

    @property
    def has_room(self) -> bool:
        """True while so little waits to be sent that the next claim should be made."""
        return self._unsent < AHEAD * self._window.size * self._sink.batch_size

    @property
    def has_plenty(self) -> bool:
        """True while more waits to be sent than fits one request."""
        return self._unsent > self._sink.batch_size

    async def finish(self) -> None:
        """Return when every send task has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def start(self, group: asyncio.TaskGroup, claim: Claim, lease: Lease, *, probing: bool) -> None:
        """Spread the claimed lanes over send tasks of about equal length and start them."""
        routed = [(lane, self._records(lane, claim)) for lane in claim.lanes]
        total = sum(max(len(records), 1) for _, records in routed)
        count = max(1, min(self._window.size, -(-total // self._sink.batch_size), len(routed)))
        share = -(-total // count)
        self._unsent += total
        lanes: list[tuple[Lane, list[SinkRecord]]] = []
        size = 0
        for n, item in enumerate(routed):
            lanes.append(item)
            size += max(len(item[1]), 1)
            if size >= share or n == len(routed) - 1:
                task = group.create_task(self._run(lanes, size, lease, probing))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                lanes, size = [], 0

    def _sent(self, number: int) -> None:
        """Count records that do not wait any more: they were sent, or will not be."""
        self._unsent -= number
        if self.has_room:
            self._schedule.notify_room()

    def _records(self, lane: Lane, claim: Claim) -> list[SinkRecord]:
        """Route a lane. If the route raises, its deliveries count as rejected, so that they cannot stop the relay."""
        try:
            return self._route(lane, claim)
        except Exception as error:  # noqa: BLE001 - one lane's data must not end the loop of all
            log.error("route_failed", sink=self._sink.name, lane=lane.key, error=type(error).__name__)
            refused = PermanentError(f"cannot be routed ({type(error).__name__})")
            return [
                SinkRecord(lane.key, (d.id,), attempts=d.attempts, error=refused) for d in lane.deliveries
            ]

    async def _send(self, batch: list[SinkRecord]) -> list[Outcome]:
        self._in_flight.inc()
        try:
            return await self._sink.send(batch)
        except Exception as error:  # noqa: BLE001 - a bug in a sink must not end the loop of all
            log.error("sink_raised", sink=self._sink.name, error=type(error).__name__)
            refused = PermanentError(f"the sink raised {type(error).__name__}")
            first = {record.lane_key: n for n, record in reversed(list(enumerate(batch)))}
            return [
                Outcome(Result.REJECTED, refused) if first[p.lane_key] == n else Outcome(Result.UNSENT)
                for n, p in enumerate(batch)
            ]
        finally:
            self._in_flight.dec()

    async def _run(
        self, lanes: Sequence[tuple[Lane, list[SinkRecord]]], size: int, lease: Lease, probing: bool
    ) -> None:
        """Send the records of these lanes in order until all went or the sink fails; settle every lane."""
        began = self._clock()
        results = {lane.key: LaneResult(lane.key, lease.token) for lane, _ in lanes}
        deliveries = {d.id: d for lane, _ in lanes for d in lane.deliveries}
        waiting = [record for _, records in lanes for record in records]
        left = Counter(record.lane_key for record in waiting)
        at = 0
        reported = 0.0
        failed = False
        try:
            while at < len(waiting) and not failed:
                async with self._gate.slot():
                    end = self._request_end(waiting, at)
                    if any(record.payloads for record in waiting[at:end]):
                        await self._wait_for_rate()
                    if self._must_stop(probing):
                        break
                    batch = self._sendable(waiting[at:end], results, lease)
                    size -= end - at
                    self._sent(end - at)
                    at = end
                    asked = self._clock()
                    outcomes = await self._send(batch) if batch else []
                    full = self._gate.full
                took = self._clock() - began
                for record, outcome in zip(batch, outcomes, strict=True):
                    left[record.lane_key] -= 1
                    if not self._add_outcome(record, outcome, results[record.lane_key], deliveries, took):
                        left[record.lane_key] = 0
                failed = self._update_breaker(batch, outcomes)
                self._update_window(batch, failed, asked, full)
                slow = took - reported >= PROGRESS
                reported = took if slow else reported
                for key in {record.lane_key for record in batch}:
                    if left[key] <= 0 or slow:
                        self._settler.put(results[key].part() if left[key] > 0 else results.pop(key))
            for result in results.values():
                self._settler.put(result)
        finally:
            self._sent(size)
        if probing and self._breaker.cancel_probe():
            self._schedule.notify()

    def _sendable(
        self, batch: list[SinkRecord], results: dict[str, LaneResult], lease: Lease
    ) -> list[SinkRecord]:
        """The records of `batch` that may be sent. Stopped lanes are not in `results`; lanes without a lease stop here."""
        now = self._clock()
        for key in {record.lane_key for record in batch}:
            if key in results and not lease.holds(key, now):
                self._settler.put(results.pop(key))
        return [record for record in batch if record.lane_key in results]

    async def _wait_for_rate(self) -> None:
        """Wait until the rate limit allows this request, or until the stop."""
        if pause := self._pace.take(self._clock()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop.wait()

    def _must_stop(self, probing: bool) -> bool:
        """Return True if no further request may be made: after `stop`, or while the breaker is open."""
        return self._stop.is_set() or (not probing and self._breaker.wait(self._clock()) > 0)

    def _request_end(self, waiting: list[SinkRecord], at: int) -> int:
        """The end of the request that begins at `at`: it has as many records as fit, at least one."""
        size = len(waiting[at].payloads)
        end = at + 1
        while end < len(waiting) and size + len(waiting[end].payloads) <= self._sink.batch_size:
            size += len(waiting[end].payloads)
            end += 1
        return end

    def _add_outcome(
        self,
        record: SinkRecord,
        outcome: Outcome,
        result: LaneResult,
        deliveries: dict[str, Delivery],
        took: float,
    ) -> bool:
        """Add the outcome of a record to its lane's result; False when the lane stops here."""
        sink = self._sink.name
        if self._tracing and record.payloads and outcome.result in (Result.ACCEPTED, Result.REJECTED):
            sent = [deliveries[delivery] for delivery in record.deliveries]
            refusal = str(outcome.error) if outcome.error else None
            self._tracing.sent(sink, record.lane_key, sent, took, refusal)
        result.receipts.extend(outcome.receipts)
        if outcome.result is Result.ACCEPTED:
            self._failing.pop(record.lane_key, None)
            (result.expired if record.expired else result.done).extend(record.deliveries)
            (self._expired if record.expired else self._done).inc(len(record.deliveries))
            if record.payloads:
                for delivery in record.deliveries:
                    self._send_time.observe(took)
                    self._total_time.observe(deliveries[delivery].age + took)
                    if ACCESS_LOG.on:
                        message = deliveries[delivery].message or {}
                        ACCESS_LOG.write(
                            "delivered", sink=sink, delivery=delivery, event_name=deliveries[delivery].event,
                            session=record.lane_key, message=message.get("id"), seq=message.get("seq"),
                            ms=round(took * 1e3, 1), age_ms=round((deliveries[delivery].age + took) * 1e3),
                        )  # fmt: skip
            return True
        error = outcome.error or TransientError("not sent")
        if outcome.result is Result.REJECTED:
            attempts = record.attempts + 1
            dead = self._retry.gives_up(attempts)
            result.failure = Failure(
                deliveries=record.deliveries,
                state="dead" if dead else "retry",
                error=str(error),
                spend=True,
                retry_in=0.0 if dead else self._retry.delay(attempts),
            )
            self._metrics.settled.labels(sink, "dead" if dead else "retry").inc()
            log.warning(
                "delivery_refused", sink=sink, lane=record.lane_key, delivery=record.deliveries[0],
                message=(deliveries[record.deliveries[0]].message or {}).get("id"), attempts=attempts,
                dead=dead, error=str(error),
            )  # fmt: skip
        elif outcome.result is Result.FAILED:
            pause = self._lane_backoff(record.lane_key)
            result.failure = Failure(record.deliveries, "retry", str(error), retry_in=pause)
            self._metrics.settled.labels(sink, "held").inc(len(record.deliveries))
        return False

    def _lane_backoff(self, lane: str) -> float:
        """Seconds for a lane to wait after the service failed on it.

        It grows while this lane fails, so that an event which is always answered with 500 is not sent in a loop while
        the service works for all others. It is no longer than the lane has been failing, so that a short failure costs
        a short pause. It is kept in memory only.
        """
        if len(self._failing) > FAILING_LIMIT:
            self._failing.clear()
        since, times = self._failing.get(lane, (self._clock(), 0))
        self._failing[lane] = since, times + 1
        backoff = min(self._breaker.cap, 0.05 * 2.0 ** min(times + 1, 20)) * self._retry.jitter()
        backoff = min(backoff, max(0.1, self._clock() - since))
        return max(backoff, self._breaker.delay(self._clock()))

    def _update_window(self, batch: Sequence[SinkRecord], failed: bool, asked: float, full: bool) -> None:
        """Count a request made at `asked` in the window; one with nothing to send needed no request."""
        if failed:
            self._window.failed(asked, self._clock())
        elif any(record.payloads for record in batch):
            self._window.answered(asked, self._clock(), full=full)
        self._allowed.set(self._window.size)

    def _update_breaker(self, batch: Sequence[SinkRecord], outcomes: Sequence[Outcome]) -> bool:
        """Count the request in the breaker; True when the sink as a whole failed."""
        sink = self._sink.name
        failure = next((o.error for o in outcomes if o.result is Result.FAILED), None)
        if failure is not None:
            self._metrics.requests.labels(sink, failure.kind).inc()
            if self._breaker.failure(self._clock(), failure):
                log.error("breaker_opened", sink=sink, error=str(failure), kind=failure.kind)
            return True
        if any(p.payloads and o.result is not Result.UNSENT for p, o in zip(batch, outcomes, strict=True)):
            self._metrics.requests.labels(sink, "ok").inc()
            if self._breaker.success(self._clock()):
                log.info("breaker_closed", sink=sink)
                self._schedule.notify()
        return False
