"""The loop of one sink: when to claim, and how much.

A wake-up, the poll timer or the exact time of the next retry starts a claim. It leases lanes and hands them to the
sender. While requests are in flight new wake-ups lead to new claims, so work batches by itself under load and waits for
nothing when idle. It keeps no state that matters: lanes that are lost here are leased again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from gre_bridge.clock import shared_clock
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import Claim, ClaimRequest, LaneResult
from gre_bridge.errors import BridgeError, TransientError
from gre_bridge.metrics import Metrics
from gre_bridge.relay.lease import Lease, Leases
from gre_bridge.relay.policy import Breaker, BreakerState, Pace, RetryPolicy, Window
from gre_bridge.relay.schedule import LOCKED_PAUSE, ClaimSchedule
from gre_bridge.relay.sender import Route, Sender
from gre_bridge.relay.settler import Settler
from gre_bridge.sinks.base import Sink
from gre_bridge.tracing import Tracing

log = structlog.get_logger("gre.relay")

IN_HAND_PAUSE = 0.25
"""Seconds to leave a lane alone that was claimed while it is still being sent here."""
REMEMBERED = 4096
"""Claimed messages that are remembered, so that the slower wake-up causes no claim for them."""
UNSETTLED_LIMIT = 500
"""Lanes waiting to be settled above which nothing more is claimed."""


class WakeupSource(Protocol):
    """The subscription to Realtime, as the dispatcher needs it."""

    @property
    def healthy(self) -> bool:
        """True while wake-ups can be relied on."""

    def mark_unreliable(self) -> None:
        """Rely on no wake-up for some seconds: PostgreSQL crashed."""


class ClaimObserver(Protocol):
    """Hears of each claim."""

    def record_poll(self, source: str, ages: Sequence[float], took: float) -> None:
        """Take note of a claim for the sink `source` that took so long, and of the ages of the new deliveries in it."""


class Dispatcher:
    """Relays the deliveries of one sink until told to stop."""

    def __init__(
        self,
        *,
        store: RelayDatabase,
        sink: Sink,
        route: Route,
        metrics: Metrics,
        retry: RetryPolicy,
        wakeups: WakeupSource,
        observer: ClaimObserver,
        breaker: Breaker | None = None,
        pace: Pace | None = None,
        tracing: Tracing | None = None,
        lease_seconds: float = 30.0,
        poll_interval: float = 30.0,
        fast_poll_interval: float = 1.0,
        lanes_per_claim: int = 100,
        rows_per_lane: int = 10,
        clock: Callable[[], float] = shared_clock,
    ) -> None:
        """All times are in seconds; `clock` must not stop while the machine sleeps."""
        self.sink = sink
        self.breaker = breaker or Breaker()
        self.last_error = ""
        self.leases = Leases()
        self._schedule = ClaimSchedule(clock)
        self.settler = Settler(
            store=store, sink=sink.name, metrics=metrics, leases=self.leases, schedule=self._schedule
        )
        self.sender = Sender(
            sink=sink,
            route=route,
            settler=self.settler,
            breaker=self.breaker,
            retry=retry,
            pace=pace or Pace(),
            window=Window(sink.concurrency),
            metrics=metrics,
            clock=clock,
            tracing=tracing,
            schedule=self._schedule,
        )
        self._owner = str(uuid.uuid4())
        self._store = store
        self._metrics = metrics
        self._retry = retry
        self._wakeups = wakeups
        self._observer = observer
        self._lease_seconds = lease_seconds
        self._poll_interval = poll_interval
        self._fast_poll_interval = fast_poll_interval
        self._lanes = lanes_per_claim
        self._rows = rows_per_lane
        self._clock = clock
        self.turned = time.monotonic()
        """Start of the current turn of the loop, by `time.monotonic`: a machine that slept has not stalled."""
        self.patience = poll_interval + 30.0
        """Seconds that a turn may take: one wait, at most a poll interval, and one claim, which the store bounds."""
        self._stopping = False
        self._paused = ""
        self._failures = 0
        self._claimed: OrderedDict[str, None] = OrderedDict()

    @property
    def breaker_state(self) -> BreakerState:
        """The breaker's state now."""
        return self.breaker.state(self._clock())

    def has_claimed(self, message_id: str) -> bool:
        """Return True if this message was one of the last few thousand that were claimed here."""
        return message_id in self._claimed

    def notify(self, lanes: Collection[str] = ()) -> None:
        """There may be work, for example in these lanes: claim soon. Lanes in hand are claimed again after they are sent."""
        for lane in lanes:
            if lane in self.leases:
                self.settler.add_work(lane)
        self._schedule.notify()

    def poll(self) -> None:
        """Claim without a wake-up, unless more is in hand than one request takes."""
        if not self.sender.has_plenty:
            self._schedule.notify()

    def retry_now(self) -> None:
        """The database recovered: cancel the current backoff and retry at once."""
        self.settler.retry_now()
        self._schedule.retry_now()

    def pause(self, reason: str) -> None:
        """Claim nothing while there is a reason (one line) not to; an empty one ends it."""
        if self._paused != reason:
            self._paused = reason
            self._schedule.notify()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is in flight has been settled."""
        self._stopping = True
        self.sender.stop()
        self._schedule.notify()

    async def release_all(self) -> None:
        """Hand back what is still leased, after `run` was cancelled: another worker may go on at once.

        A claim that commits only after this keeps its lanes until the lease runs out.
        """
        with contextlib.suppress(BridgeError):
            await self._store.release(sink=self.sink.name, owner=self._owner)

    async def run(self) -> None:
        """Relay until `stop`; cancelling it ends at once and leaves the leases to run out."""
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self.settler.run()), group.create_task(self._extend_leases())]
            try:
                while not self._stopping:
                    await self._turn(group)
                await self.sender.finish()
                await self.settler.flush()
                if self._failures:  # the last claim may have leased lanes all the same
                    await self.release_all()
            finally:
                for task in helpers:
                    task.cancel()

    async def _turn(self, group: asyncio.TaskGroup) -> None:
        """Wait until there is a reason to claim, and claim if there is room."""
        self.turned = time.monotonic()
        await self._schedule.wait(self._poll_interval if self._wakeups.healthy else self._fast_poll_interval)
        if self._stopping:
            return
        if self._paused:
            self._schedule.claim_in(None)
        elif (pause := max(self.breaker.wait(self._clock()), self._schedule.pause)) > 0:
            self._schedule.claim_in(pause)
        elif not self.sender.has_room or self.settler.pending > UNSETTLED_LIMIT:
            self._schedule.wait_for_room()
        else:
            await self._claim(group)

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        began = self._clock()
        probing = self.breaker.state(began) is BreakerState.HALF_OPEN
        request = ClaimRequest(
            sink=self.sink.name,
            owner=self._owner,
            token=str(uuid.uuid4()),
            held=self.leases.held_tokens(began),
            lanes=1 if probing else self._lanes,
            per_lane=1 if probing else self._rows,
            lease=self._lease_seconds,
        )
        try:
            claim = await self.settler.claim(request)
        except BridgeError as error:
            self._claim_failed(error)
            return
        self._claim_succeeded(claim)
        now = self._clock()
        lease = Lease(claim.token, (lane.key for lane in claim.lanes), began + self._lease_seconds)
        claim = self._without_lanes_in_hand(claim)
        self.leases.add(lease)
        if not claim.lanes and self.breaker.nothing_due(now, waiting=claim.next_in is not None):
            log.info("breaker_closed", sink=self.sink.name, reason="nothing waits")
        new = [d.age for lane in claim.lanes for d in lane.deliveries if d.attempts == 0]
        self._observer.record_poll(self.sink.name, new, now - began)
        self._schedule_next(claim)
        if claim.lanes:
            self._count(claim)
            if probing:
                self.breaker.begin_probe()
            for lane in claim.lanes:
                if len(lane.deliveries) >= request.per_lane:
                    self.settler.add_work(lane.key)
            self.sender.start(group, claim, lease, probing=probing)

    def _schedule_next(self, claim: Claim) -> None:
        """Set the time of the next claim by what this one left."""
        took_any = bool(claim.lanes) or claim.emptied_lanes > 0
        if claim.next_in is not None and claim.next_in < LOCKED_PAUSE and not took_any:
            self._schedule.claim_after_lock(self._fast_poll_interval)
        else:
            self._schedule.claim_in(claim.next_in)

    def _without_lanes_in_hand(self, claim: Claim) -> Claim:
        """Free lanes that were claimed before their last result was written: sending them would repeat it."""
        in_hand = {lane.key for lane in claim.lanes if lane.key in self.leases}
        for key in in_hand:
            pause = 0.0 if self.settler.has(key) else IN_HAND_PAUSE
            self.settler.put(LaneResult(key, claim.token, retry_in=pause))
        return replace(claim, lanes=tuple(lane for lane in claim.lanes if lane.key not in in_hand))

    def _claim_succeeded(self, claim: Claim) -> None:
        if self._failures:
            log.info("claim_recovered", sink=self.sink.name, failures=self._failures)
        elif claim.recovered_lanes:
            log.warning("leases_recovered", sink=self.sink.name, lanes=claim.recovered_lanes)
            self._wakeups.mark_unreliable()
        self._failures, self.last_error = 0, ""

    def _claim_failed(self, error: BridgeError) -> None:
        self._metrics.database_errors.labels(error.kind).inc()
        if self._failures == 0 or str(error) != self.last_error:
            log.warning("claim_failed", sink=self.sink.name, error=str(error), kind=error.kind)
        self._failures += 1
        self.last_error = str(error)
        longest = 5.0 if isinstance(error, TransientError) else 15.0
        self._schedule.pause_for(
            0.02 + self._retry.jitter() * min(longest, 0.1 * 2.0 ** min(self._failures, 10))
        )

    def _count(self, claim: Claim) -> None:
        ages = [d.age for lane in claim.lanes for d in lane.deliveries]
        self._metrics.claimed.labels(self.sink.name).inc(len(ages))
        observe = self._metrics.claim_age.labels(self.sink.name).observe
        for age in ages:
            observe(age)
        self._claimed.update(
            (d.message["id"], None) for lane in claim.lanes for d in lane.deliveries if d.message
        )
        while len(self._claimed) > REMEMBERED:
            self._claimed.popitem(last=False)

    async def _extend_leases(self) -> None:
        """Prolong the leases of lanes still in hand, well before they run out."""
        while True:
            await asyncio.sleep(self._lease_seconds / 8)
            await asyncio.gather(*(self._extend(lease) for lease in self.leases))

    async def _extend(self, lease: Lease) -> None:
        now = self._clock()
        lanes = lease.expiring(now + self._lease_seconds / 2)
        if not lanes:
            return
        try:
            extended, busy = await self._store.extend(
                sink=self.sink.name, token=lease.token, lanes=lanes, lease=self._lease_seconds
            )
        except BridgeError as error:
            log.warning("extend_failed", sink=self.sink.name, error=str(error))
            return
        lease.extend(extended, now + self._lease_seconds)
        gone = [lane for lane in lanes if lane not in extended | busy and not self.settler.has(lane)]
        if lost := lease.drop(gone):
            self._metrics.lost_leases.labels(self.sink.name).inc(lost)
