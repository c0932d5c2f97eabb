"""The loop of one sink: when to claim, and how much.

A bell, the sweep timer or the exact time of the next retry wakes it. It leases lanes and hands them to the
sender; while requests are in flight new bells lead to new claims, so work batches by itself under load and
waits for nothing when idle. It keeps nothing that matters: whatever is lost here is leased again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import structlog

from gre_bridge.clock import shared_clock
from gre_bridge.db.relay import NOTHING_DONE, RelayDatabase
from gre_bridge.db.types import Claim, LaneResult
from gre_bridge.errors import BridgeError, TransientError
from gre_bridge.metrics import Metrics
from gre_bridge.relay.lease import Lease
from gre_bridge.relay.policy import Breaker, BreakerState, Pace, RetryPolicy
from gre_bridge.relay.sender import Route, Sender
from gre_bridge.relay.settler import Settler
from gre_bridge.sinks.base import Sink
from gre_bridge.tracing import Tracing

log = structlog.get_logger("gre.relay")

FIRST_PAUSE = 0.02
"""Seconds to wait when due lanes were all locked by others; doubles up to the fast sweep."""
OURS_PAUSE = 0.25
"""Seconds to leave a lane alone that was leased again before its last result was written."""
REMEMBERED = 4096
"""Messages claimed lately that are remembered, so that the slower bell rings for none of them."""
UNSETTLED_LIMIT = 500
"""Lanes waiting to be settled above which nothing more is claimed."""


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
        breaker: Breaker | None = None,
        pace: Pace | None = None,
        tracing: Tracing | None = None,
        lease_seconds: float = 30.0,
        sweep_interval: float = 30.0,
        fast_sweep_interval: float = 1.0,
        lanes_per_claim: int = 100,
        rows_per_lane: int = 10,
        feed_healthy: Callable[[], bool] = lambda: False,
        on_looked: Callable[[str, Sequence[float], float], None] = lambda *_: None,
        on_forgotten: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = shared_clock,
    ) -> None:
        """All times are in seconds; `clock` must not stop while the machine sleeps.

        `on_looked` hears after each claim: the sink, the ages of what is new, how long it took.
        `on_forgotten` is called when PostgreSQL turns out to have crashed.
        """
        self.sink = sink
        self.breaker = breaker or Breaker()
        self.last_error = ""
        self.settler = Settler(
            store=store, sink=sink.name, metrics=metrics, on_waiting=self.ring, on_settled=self._written,
            on_forgotten=on_forgotten,
        )  # fmt: skip
        self.sender = Sender(
            sink=sink,
            route=route,
            settler=self.settler,
            breaker=self.breaker,
            retry=retry,
            pace=pace or Pace(),
            metrics=metrics,
            clock=clock,
            tracing=tracing,
            on_room=self._room_again,
            on_recovery=self.ring,
        )
        self._store = store
        self._metrics = metrics
        self._retry = retry
        self._lease_seconds = lease_seconds
        self._sweep = sweep_interval
        self._fast_sweep = fast_sweep_interval
        self._lanes = lanes_per_claim
        self._rows = rows_per_lane
        self._feed_healthy = feed_healthy
        self._on_looked = on_looked
        self._clock = clock
        self.turned = time.monotonic()
        """When its loop last turned, by `time.monotonic`: a machine that slept has not stalled."""
        self.patience = sweep_interval + 30.0
        """Seconds that a turn may take: one wait, at most a sweep, and one claim, which the store bounds."""
        state = metrics.breaker.labels(sink.name)
        state.set_function(lambda: list(BreakerState).index(self.breaker_state))
        metrics.breaker_reasons.by_sink[sink.name] = self._breaker_reason
        self._bell = asyncio.Event()
        self._stopping = False
        self._paused = ""
        self._abandoned: list[str] = []
        self._more = True
        self._blocked = False
        self._due_at: float | None = None
        self._not_before = 0.0
        self._spins = 0
        self._errors = 0
        self._claimed: OrderedDict[str, None] = OrderedDict()

    @property
    def breaker_state(self) -> BreakerState:
        """Where the breaker stands now."""
        return self.breaker.state(self._clock())

    def _breaker_reason(self) -> str:
        return "" if self.breaker_state is BreakerState.CLOSED else self.breaker.reason

    def has_claimed(self, message_id: str) -> bool:
        """Whether this message was claimed here a moment ago (one of the last few thousand)."""
        return message_id in self._claimed

    def ring(self, lanes: Collection[str] = ()) -> None:
        """There may be work, in these lanes for one: claim soon, and of those in hand again when they are through."""
        for lane in lanes:
            if any(lane in lease for lease in self.sender.leases.values()):
                self.settler.rung(lane)
        self._bell.set()

    def poll(self) -> None:
        """Look for work without having been woken, unless there is plenty in hand: then its results ring."""
        if not self.sender.has_plenty:
            self._bell.set()

    def hurry(self) -> None:
        """The database is back: ask it now, however long it was meant to be left alone."""
        self.settler.hurry()
        if self._not_before > self._clock():
            self._not_before = 0.0
            self.ring()

    def pause(self, reason: str) -> None:
        """Claim nothing while there is a reason (one line) not to; an empty one ends it."""
        if self._paused != reason:
            self._paused = reason
            self.ring()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is in flight has been settled."""
        self._stopping = True
        self.sender.stop()
        self._bell.set()

    async def give_up(self) -> None:
        """Hand back what is still leased, after `run` was cancelled: another worker may go on at once.

        A claim that commits only after this keeps its lanes until the lease runs out.
        """
        for token in (*self.sender.leases, *self._abandoned):
            with contextlib.suppress(BridgeError):
                await self._store.release(sink=self.sink.name, token=token)

    async def run(self) -> None:
        """Relay until `stop`; cancelling it gives up at once and leaves the leases to run out."""
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self.settler.run()), group.create_task(self._extend_leases())]
            try:
                while not self._stopping:
                    await self._turn(group)
                await self.sender.finish()
                await self.settler.flush()
                with contextlib.suppress(BridgeError):
                    await self._release_abandoned()
            finally:
                for task in helpers:
                    task.cancel()

    async def _turn(self, group: asyncio.TaskGroup) -> None:
        """Wait until there is a reason to claim, and claim if there is room."""
        self.turned = time.monotonic()
        await self._wait()
        if self._stopping:
            return
        now = self._clock()
        hold = max(self.breaker.wait(now), self._not_before - now)
        if self._paused:
            self._more, self._due_at = False, None
        elif hold > 0:
            self._more, self._due_at = False, now + hold
        elif not self.sender.has_room or self.settler.pending > UNSETTLED_LIMIT:
            # What is sent or settled meanwhile rings.
            self._more, self._due_at = False, None
            self._blocked = True
        else:
            await self._claim(group)

    async def _wait(self) -> None:
        """Wait for a bell, the next due lane or the sweep timer."""
        if self._more:
            self._more = False
            self._bell.clear()
            await asyncio.sleep(0)
            return
        sweep = self._sweep if self._feed_healthy() else self._fast_sweep
        due = math.inf if self._due_at is None else max(0.0, self._due_at - self._clock())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(sweep, due)):
                await self._bell.wait()
            self._bell.clear()

    def _written(self, results: Sequence[LaneResult]) -> None:
        self.sender.written(results)

    def _room_again(self) -> None:
        """What waited was sent, or a settle came back: claim what could not be claimed for want of room."""
        if self._blocked:
            self._blocked = False
            self._bell.set()

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        probing = self.breaker.state(self._clock()) is BreakerState.HALF_OPEN
        try:
            await self._release_abandoned()
        except BridgeError as error:
            self._claim_failed(error)
            return
        self.settler.claiming()
        await asyncio.sleep(0)  # the settle first, so that both go in one call
        token = str(uuid.uuid4())
        rows = 1 if probing else self._rows
        began = self._clock()
        self._abandoned.append(token)  # until it is answered: who cancels us meanwhile gives it up too
        try:
            claim = await self._store.claim(
                sink=self.sink.name,
                token=token,
                lanes=1 if probing else self._lanes,
                per_lane=rows,
                lease=self._lease_seconds,
            )
        except BridgeError as error:
            if (
                error.code in NOTHING_DONE
            ):  # no lease to give back: a release would wait as long as the claim did
                self._abandoned.remove(token)
            self._claim_failed(error)
            return
        self._abandoned.remove(token)
        if self._errors:
            log.info("claiming again", sink=self.sink.name, failures=self._errors)
        self._errors, self.last_error = 0, ""
        self.settler.answers(leased=claim.next_in is not None)
        now = self._clock()
        self._due_at = None if claim.next_in is None else now + claim.next_in
        claim = self._without_ours(claim)
        if not claim.lanes and self.breaker.nothing_due(now, waiting=claim.next_in is not None):
            log.info("breaker closed: nothing waits", sink=self.sink.name)
        new = [d.age for lane in claim.lanes for d in lane.deliveries if d.attempts == 0]
        self._on_looked(self.sink.name, new, now - began)
        if claim.lanes:
            self._spins = 0
            self._more = claim.next_in == 0
            self._count(claim)
            if probing:
                self.breaker.begin_probe()
            self.settler.more_in(lane.key for lane in claim.lanes if len(lane.deliveries) >= rows)
            lease = Lease(token, (lane.key for lane in claim.lanes), began + self._lease_seconds)
            self.sender.start(group, claim, lease, probing=probing)
        elif claim.emptied_lanes:
            self._spins, self._more = 0, claim.next_in == 0
        elif claim.next_in is not None and claim.next_in < FIRST_PAUSE:
            # Due lanes that others hold locked for a moment: look again soon, but not in a spin.
            self._spins = min(self._spins + 1, 8)
            self._due_at = now + min(FIRST_PAUSE * 2.0 ** (self._spins - 1), self._fast_sweep)
        else:
            self._spins = 0

    def _without_ours(self, claim: Claim) -> Claim:
        """Put back lanes whose lease ran out while their result is still on its way: sending would repeat them."""
        ours = {
            lane.key
            for lane in claim.lanes
            if any(lane.key in lease for lease in self.sender.leases.values())
        }
        for key in ours:
            self.settler.put(LaneResult(key, claim.token, retry_in=OURS_PAUSE))
        return replace(claim, lanes=tuple(x for x in claim.lanes if x.key not in ours)) if ours else claim

    def _claim_failed(self, error: BridgeError) -> None:
        self._metrics.database_errors.labels(error.kind).inc()
        if self._errors == 0 or str(error) != self.last_error:
            log.warning("cannot claim", sink=self.sink.name, error=str(error), kind=error.kind)
        self._errors += 1
        self.last_error = str(error)
        cap = 5.0 if isinstance(error, TransientError) else 15.0
        pause = 0.02 + self._retry.jitter() * min(cap, 0.1 * 2.0 ** min(self._errors, 10))
        self._due_at = self._not_before = self._clock() + pause

    async def _release_abandoned(self) -> None:
        """Free what claims with lost answers may have leased."""
        while self._abandoned:
            if not await self._store.release(sink=self.sink.name, token=self._abandoned[0]):
                return
            self._abandoned.pop(0)

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
            await asyncio.gather(*(self._extend(lease) for lease in list(self.sender.leases.values())))

    async def _extend(self, lease: Lease) -> None:
        now = self._clock()
        lanes = lease.due(now + self._lease_seconds / 2)
        if not lanes:
            return
        try:
            extended, busy = await self._store.extend(
                sink=self.sink.name, token=lease.token, lanes=lanes, lease=self._lease_seconds
            )
        except BridgeError as error:
            log.warning("cannot extend leases", sink=self.sink.name, error=str(error))
            return
        lease.extend(extended, now + self._lease_seconds)
        gone = [lane for lane in lanes if lane not in extended | busy and not self.settler.has(lane)]
        if lost := lease.drop(gone):
            self._metrics.lost_leases.labels(self.sink.name).inc(lost)
