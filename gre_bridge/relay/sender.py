"""Sends what one claim leased: chains of lanes, each in order, one request at a time.

A lane belongs to one chain and a chain waits for each answer before its next request, which is what keeps
a session's order. Chains of several claims share the sink's requests in flight, so that the next claim is
under way while the last one is sent. A lane stops at its first failure; what became of it goes to the
settler as soon as the lane is through. Nothing here decides when to claim.
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
from gre_bridge.relay.lease import Lease
from gre_bridge.relay.policy import Breaker, Pace, RetryPolicy
from gre_bridge.relay.settler import Settler
from gre_bridge.sinks.base import Outcome, Parcel, Result, Sink
from gre_bridge.tracing import Tracing

Route = Callable[[Lane, Claim], list[Parcel]]
Chain = Sequence[tuple[Lane, list[Parcel]]]
log = structlog.get_logger("gre.relay")

PROGRESS = 0.25
"""Seconds after which a long lane's progress is recorded, so that a crash repeats little."""

HELD_LIMIT = 10_000
"""Lanes whose failures are remembered, at most."""

AHEAD = 4
"""Requests that may wait for each one in flight before nothing more is claimed: what is sent while a claim runs."""


class Sender:
    """The chains of one sink that are under way."""

    def __init__(
        self,
        *,
        sink: Sink,
        route: Route,
        settler: Settler,
        breaker: Breaker,
        retry: RetryPolicy,
        pace: Pace,
        metrics: Metrics,
        clock: Callable[[], float],
        tracing: Tracing | None,
        on_room: Callable[[], None],
        on_recovery: Callable[[], None],
    ) -> None:
        """`on_room` is called when more should be claimed, `on_recovery` when held work may go (on) at once."""
        self._sink = sink
        self._route = route
        self._settler = settler
        self._breaker = breaker
        self._retry = retry
        self._pace = pace
        self._metrics = metrics
        self._clock = clock
        self._tracing = tracing
        self._on_room = on_room
        self._on_recovery = on_recovery
        self._chains: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(sink.concurrency)
        self._unsent = 0
        self._held: dict[str, tuple[float, int]] = {}
        """By lane: since when the service fails on it, and how often it has."""
        # Looked up once: finding a metric by its labels costs as much as counting.
        self._done = metrics.settled.labels(sink.name, "done")
        self._expired = metrics.settled.labels(sink.name, "expired")
        self._send_time = metrics.send_time.labels(sink.name)
        self._total_time = metrics.total_time.labels(sink.name)
        self._in_flight = metrics.in_flight.labels(sink.name)
        self.leases: dict[str, Lease] = {}
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin no further request."""
        self._stop.set()

    @property
    def has_room(self) -> bool:
        """Whether so little waits to be sent that the next claim should be under way."""
        return self._unsent < AHEAD * self._sink.concurrency * self._sink.batch_size

    @property
    def has_plenty(self) -> bool:
        """Whether more waits to be sent than goes into one request."""
        return self._unsent > self._sink.batch_size

    async def finish(self) -> None:
        """Return when every chain has ended."""
        while self._chains:
            await asyncio.wait(self._chains)

    def start(self, group: asyncio.TaskGroup, claim: Claim, lease: Lease, *, probing: bool) -> None:
        """Spread the claimed lanes over chains of about equal length and start them."""
        routed = [(lane, self._parcels(lane, claim)) for lane in claim.lanes]
        total = sum(max(len(parcels), 1) for _, parcels in routed)
        count = max(1, min(self._sink.concurrency, -(-total // self._sink.batch_size), len(routed)))
        share = -(-total // count)
        self._unsent += total
        self.leases[lease.token] = lease
        chain: list[tuple[Lane, list[Parcel]]] = []
        size = 0
        for n, item in enumerate(routed):
            chain.append(item)
            size += max(len(item[1]), 1)
            if size >= share or n == len(routed) - 1:
                task = group.create_task(self._run(chain, size, lease, probing))
                self._chains.add(task)
                task.add_done_callback(self._chains.discard)
                chain, size = [], 0

    def _sent(self, number: int) -> None:
        """So many of the parcels that waited have been sent, or will not be."""
        self._unsent -= number
        if self.has_room:
            self._on_room()

    def written(self, results: Sequence[LaneResult]) -> None:
        """These results are in the database: their lanes are no longer ours."""
        for result in results:
            lease = self.leases.get(result.token)
            if lease is not None and not result.keep:
                lease.drop([result.lane_key])
                if not lease:
                    del self.leases[result.token]
        self._on_room()

    def _parcels(self, lane: Lane, claim: Claim) -> list[Parcel]:
        """Route a lane; what routing cannot digest counts as refused, so that it cannot stop the relay."""
        try:
            return self._route(lane, claim)
        except Exception as error:  # noqa: BLE001 - one lane's data must not end the loop of all
            log.error("cannot route", sink=self._sink.name, lane=lane.key, error=type(error).__name__)
            refused = PermanentError(f"cannot be routed ({type(error).__name__})")
            return [Parcel(lane.key, (d.id,), attempts=d.attempts, error=refused) for d in lane.deliveries]

    async def _send(self, batch: list[Parcel]) -> list[Outcome]:
        self._in_flight.inc()
        try:
            return await self._sink.send(batch)
        except Exception as error:  # noqa: BLE001 - a bug in a sink must not end the loop of all
            log.error("sink raised", sink=self._sink.name, error=type(error).__name__)
            refused = PermanentError(f"the sink raised {type(error).__name__}")
            first = {parcel.lane_key: n for n, parcel in reversed(list(enumerate(batch)))}
            return [
                Outcome(Result.REJECTED, refused) if first[p.lane_key] == n else Outcome(Result.UNSENT)
                for n, p in enumerate(batch)
            ]
        finally:
            self._in_flight.dec()

    async def _run(self, chain: Chain, size: int, lease: Lease, probing: bool) -> None:
        """Send the parcels of these lanes in order until all went or the sink fails; settle every lane."""
        began = self._clock()
        results = {lane.key: LaneResult(lane.key, lease.token) for lane, _ in chain}
        known = {d.id: d for lane, _ in chain for d in lane.deliveries}
        waiting = [parcel for _, parcels in chain for parcel in parcels]
        left = Counter(parcel.lane_key for parcel in waiting)
        at = 0
        noted = 0.0
        failed = False
        try:
            while at < len(waiting) and not failed:
                async with self._slots:
                    end = self._fill(waiting, at)
                    if any(parcel.payloads for parcel in waiting[at:end]):
                        await self._take_a_place()
                    if self._halted(probing):
                        break
                    batch = self._still_ours(waiting[at:end], results, lease)
                    size -= end - at
                    self._sent(end - at)
                    at = end
                    outcomes = await self._send(batch) if batch else []
                took = self._clock() - began
                for parcel, outcome in zip(batch, outcomes, strict=True):
                    left[parcel.lane_key] -= 1
                    if not self._note(parcel, outcome, results[parcel.lane_key], known, took):
                        left[parcel.lane_key] = 0
                failed = self._judge(batch, outcomes)
                slow = took - noted >= PROGRESS
                noted = took if slow else noted
                for key in {parcel.lane_key for parcel in batch}:
                    if left[key] <= 0 or slow:
                        self._settler.put(results[key].part() if left[key] > 0 else results.pop(key))
            for result in results.values():
                self._settler.put(result)
        finally:
            self._sent(size)
        if probing and self._breaker.cancel_probe():
            self._on_recovery()

    def _still_ours(self, batch: list[Parcel], results: dict[str, LaneResult], lease: Lease) -> list[Parcel]:
        """What of `batch` may go: a lane that has stopped has left `results`; one that is no longer ours stops here."""
        now = self._clock()
        for key in {parcel.lane_key for parcel in batch}:
            if key in results and not lease.holds(key, now):
                self._settler.put(results.pop(key))
        return [parcel for parcel in batch if parcel.lane_key in results]

    async def _take_a_place(self) -> None:
        """Wait for this request's turn by the rate limit, but not beyond a stop."""
        if pause := self._pace.take(self._clock()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop.wait()

    def _halted(self, probing: bool) -> bool:
        """Whether no further request may go: we are stopping, or the breaker has opened meanwhile."""
        return self._stop.is_set() or (not probing and self._breaker.wait(self._clock()) > 0)

    def _fill(self, waiting: list[Parcel], at: int) -> int:
        """Where the request that begins at `at` ends: as many parcels as fit it, at least one."""
        size = len(waiting[at].payloads)
        end = at + 1
        while end < len(waiting) and size + len(waiting[end].payloads) <= self._sink.batch_size:
            size += len(waiting[end].payloads)
            end += 1
        return end

    def _note(
        self, parcel: Parcel, outcome: Outcome, result: LaneResult, known: dict[str, Delivery], took: float
    ) -> bool:
        """Write down what became of a parcel; False when its lane stops here."""
        sink = self._sink.name
        if self._tracing and parcel.payloads and outcome.result in (Result.ACCEPTED, Result.REJECTED):
            told = [known[delivery] for delivery in parcel.deliveries]
            refusal = str(outcome.error) if outcome.error else None
            self._tracing.sent(sink, parcel.lane_key, told, took, refusal)
        result.receipts.extend(outcome.receipts)
        if outcome.result is Result.ACCEPTED:
            self._held.pop(parcel.lane_key, None)
            (result.expired if parcel.expired else result.done).extend(parcel.deliveries)
            (self._expired if parcel.expired else self._done).inc(len(parcel.deliveries))
            if parcel.payloads:
                for delivery in parcel.deliveries:
                    self._send_time.observe(took)
                    self._total_time.observe(known[delivery].age + took)
                    if ACCESS_LOG.on:
                        message = known[delivery].message or {}
                        ACCESS_LOG.write(
                            "delivered", sink=sink, delivery=delivery, event_name=known[delivery].event,
                            session=parcel.lane_key, message=message.get("id"), seq=message.get("seq"),
                            ms=round(took * 1e3, 1), age_ms=round((known[delivery].age + took) * 1e3),
                        )  # fmt: skip
            return True
        error = outcome.error or TransientError("not sent")
        if outcome.result is Result.REJECTED:
            attempts = parcel.attempts + 1
            dead = self._retry.gives_up(attempts)
            result.failure = Failure(
                deliveries=parcel.deliveries,
                state="dead" if dead else "retry",
                error=str(error),
                spend=True,
                retry_in=0.0 if dead else self._retry.delay(attempts),
            )
            self._metrics.settled.labels(sink, "dead" if dead else "retry").inc()
            log.warning(
                "delivery refused", sink=sink, lane=parcel.lane_key, delivery=parcel.deliveries[0],
                message=(known[parcel.deliveries[0]].message or {}).get("id"), attempts=attempts,
                dead=dead, error=str(error),
            )  # fmt: skip
        elif outcome.result is Result.FAILED:
            pause = self._hold(parcel.lane_key)
            result.failure = Failure(parcel.deliveries, "retry", str(error), retry_in=pause)
            self._metrics.settled.labels(sink, "held").inc(len(parcel.deliveries))
        return False

    def _hold(self, lane: str) -> float:
        """Seconds for a lane to wait after the service failed on it.

        It grows while this lane goes on to fail, so that one event which always meets a 500 is not sent
        over and over while the service works for all others; but it is no longer than the lane has been failing,
        so that a short trouble costs no more than itself. A hint only: it is forgotten with the process.
        """
        if len(self._held) > HELD_LIMIT:
            self._held.clear()
        since, times = self._held.get(lane, (self._clock(), 0))
        self._held[lane] = since, times + 1
        own = min(self._breaker.cap, 0.05 * 2.0 ** min(times + 1, 20)) * self._retry.jitter()
        own = min(own, max(0.1, self._clock() - since))
        return max(own, self._breaker.delay(self._clock()))

    def _judge(self, batch: Sequence[Parcel], outcomes: Sequence[Outcome]) -> bool:
        """Tell the breaker how the request went; True when the sink as a whole failed."""
        sink = self._sink.name
        failure = next((o.error for o in outcomes if o.result is Result.FAILED), None)
        if failure is not None:
            self._metrics.requests.labels(sink, failure.kind).inc()
            if self._breaker.failure(self._clock(), failure):
                log.error("breaker opened", sink=sink, error=str(failure), kind=failure.kind)
            return True
        if any(p.payloads and o.result is not Result.UNSENT for p, o in zip(batch, outcomes, strict=True)):
            self._metrics.requests.labels(sink, "ok").inc()
            if self._breaker.success(self._clock()):
                log.info("breaker closed", sink=sink)
                self._on_recovery()
        return False
