"""The process that relays: one dispatcher for each sink, notified by Realtime. API clients cannot reach it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gre_bridge.config.settings import Settings
from gre_bridge.daemon.health import ProcessHealth
from gre_bridge.daemon.process import DaemonProcess, ProcessContext
from gre_bridge.daemon.registration import WorkerRegistration
from gre_bridge.db.media import MediaDatabase
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.status import DatabaseStatus
from gre_bridge.db.types import NewRow
from gre_bridge.errors import ConfigurationError
from gre_bridge.jobs.assignment import AssignmentJob
from gre_bridge.jobs.files import FileJobs, off_reason
from gre_bridge.jobs.packing import PackingJob
from gre_bridge.jobs.timers import TimerJob
from gre_bridge.media.decoding import available
from gre_bridge.polling import Poller
from gre_bridge.relay.bindings import SinkBinding, build_sinks
from gre_bridge.relay.dispatcher import Dispatcher
from gre_bridge.relay.policy import Breaker, BreakerState, Pace, RetryPolicy
from gre_bridge.tracing import Tracing

log = structlog.get_logger()

FILES = "files"
"""The broadcast of the database for a stored file (`gre.notify_media`)."""
RELEASE_TIMEOUT = 2.0
"""Seconds for the release of leases after the drain timed out."""


def check(settings: Settings) -> list[SinkBinding]:
    """Return the sinks of these settings. Raises ConfigurationError if there is none, or one is invalid."""
    bindings = build_sinks(settings)
    if not bindings:
        raise ConfigurationError("PUSHER_APP_ID: is missing, and ONESIGNAL_APP_ID too: no sink to relay to")
    off_reason(settings, decoder=available())
    return bindings


class BreakerMetrics(Collector):
    """The state of each sink's breaker, and the reason of each that is not closed, so that no series outlives its reason."""

    def __init__(self, dispatchers: Sequence[Dispatcher]) -> None:
        """`dispatchers` is filled when relaying begins."""
        self._dispatchers = dispatchers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the current states and reasons."""
        states = GaugeMetricFamily("gre_breaker_state", "0 closed, 1 half open, 2 open", labels=["sink"])
        text = "1 for the reason why a sink's breaker is not closed"
        reasons = GaugeMetricFamily("gre_breaker_reason", text, labels=["sink", "reason"])
        for dispatcher in self._dispatchers:
            sink, state, reason = dispatcher.sink.name, dispatcher.breaker_state, dispatcher.breaker.reason
            states.add_metric([sink], list(BreakerState).index(state))
            if reason and state is not BreakerState.CLOSED:
                reasons.add_metric([sink, reason], 1)
        yield from (states, reasons)


class RelayProcess(DaemonProcess):
    """Relays the outbox to the sinks."""

    name = "relay"

    def __init__(self, context: ProcessContext) -> None:
        """See DaemonProcess."""
        super().__init__(context)
        self._bindings = check(context.settings)
        self._tracing = Tracing.from_environment()
        self._dispatchers: list[Dispatcher] = []
        self.metrics.registry.register(BreakerMetrics(self._dispatchers))
        self._poller: Poller | None = None
        self._assignment: AssignmentJob | None = None
        self._files: FileJobs | None = None

    def _make_registration(self, database: DatabaseStatus) -> WorkerRegistration:
        registration = WorkerRegistration(
            sinks=frozenset(o.sink.name for o in self._bindings),
            listener=self,
            facts={"player_external_id": self._settings.push_player_external_id},
        )
        self.health = ProcessHealth(
            process=self.name,
            settings=self._settings,
            subscription=self._subscription,
            database=database,
            schema=lambda: registration.problem,
            stopping=self._stop,
            dispatchers=self._dispatchers,
        )
        return registration

    async def _work(self, store: RelayDatabase) -> None:
        for name, on in (
            ("pusher", self._settings.has_pusher), ("onesignal", self._settings.has_onesignal)
        ):  # fmt: skip
            if not on:
                log.warning("sink_off", sink=name, message="no credentials")
        relaying = asyncio.create_task(self._relay(store))
        stop = asyncio.create_task(self._stop.wait())
        try:
            # Before the stop only a failure ends the relaying.
            await asyncio.wait({relaying, stop}, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                await self._drain(relaying)
            with contextlib.suppress(asyncio.CancelledError):
                await relaying
        finally:
            stop.cancel()
            relaying.cancel()
            for binding in self._bindings:
                await binding.sink.aclose()
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)

    async def _drain(self, relaying: asyncio.Task[None]) -> None:
        """Stop claiming, finish the work in flight, and release the leases of the rest."""
        for dispatcher in self._dispatchers:
            dispatcher.stop()
        if not self._dispatchers:
            relaying.cancel()
        _, late = await asyncio.wait({relaying}, timeout=self._settings.drain_seconds)
        if late:
            log.warning("drain_timed_out", message="leases of unfinished work are released")
            relaying.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_TIMEOUT):
                    await asyncio.gather(*(d.release_all() for d in self._dispatchers))

    async def _relay(self, store: RelayDatabase) -> None:
        """Wait for the schema, then relay until the dispatchers have stopped."""
        subscription = self._subscription
        await self._registration.ready.wait()
        self._reports.status("relaying to " + ", ".join(o.sink.name for o in self._bindings))
        settings = self._settings
        poller = self._poller = Poller(
            registry=store,
            target=self,
            wakeups=subscription,
            slow=settings.poll_interval,
            fast=settings.fast_poll_interval,
        )
        dispatchers = [
            Dispatcher(
                store=store,
                sink=binding.sink,
                route=binding.route,
                metrics=self.metrics,
                retry=RetryPolicy(max_attempts=settings.max_attempts),
                breaker=Breaker(),
                pace=Pace(binding.rate),
                tracing=self._tracing,
                lease_seconds=settings.lease_seconds,
                poll_interval=settings.poll_interval,
                fast_poll_interval=settings.fast_poll_interval,
                lanes_per_claim=1000 // binding.rows,
                rows_per_lane=binding.rows,
                wakeups=subscription,
                observer=poller,
            )
            for binding in self._bindings
        ]
        self._dispatchers.extend(dispatchers)
        if self._stop.is_set():
            return
        assignment = self._assignment = AssignmentJob(store=store, metrics=self.metrics)
        timers = TimerJob(store=store, metrics=self.metrics, late_after=settings.auto_late)
        files = self._files = FileJobs(settings, MediaDatabase(store), self.metrics)
        packing = PackingJob(store=store, metrics=self.metrics)
        jobs = (assignment.run, timers.run, packing.run, files.run)
        beside = {asyncio.create_task(run()) for run in (poller.run, *jobs)}
        try:
            async with asyncio.TaskGroup() as group:
                for dispatcher in dispatchers:
                    group.create_task(dispatcher.run())
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    def on_wakeup(self, sessions: frozenset[str] | None) -> None:
        """See SubscriptionListener."""
        self.metrics.wakeups.inc()
        for dispatcher in self._dispatchers:
            dispatcher.notify(sessions or ())
        if self._poller is not None:
            self._poller.on_wakeup()
        if self._assignment is not None:
            self._assignment.notify()
        if self._files is not None:
            self._files.poll()

    def poll(self) -> None:
        """See PollTarget. A process that polls gets no wake-ups, so the jobs are notified too."""
        for dispatcher in self._dispatchers:
            dispatcher.poll()
        if self._assignment is not None:
            self._assignment.notify()
        if self._files is not None:
            self._files.poll()

    def on_missed_wakeup(self) -> None:
        """See PollTarget."""
        self.metrics.wakeups_missed.labels("relay").inc()

    def on_event(self, event: str, payload: object) -> None:  # noqa: ARG002 - nothing of it is believed
        """See SubscriptionListener. A file was stored; the API's events need nothing here."""
        if event != FILES:
            return
        self.metrics.wakeups.inc()
        if self._poller is not None:
            self._poller.on_wakeup()
        if self._files is not None:
            self._files.notify()

    def is_handled(self, row: NewRow) -> bool:
        """See SubscriptionListener."""
        if not all(dispatcher.has_claimed(row.id) for dispatcher in self._dispatchers):
            return False
        self.metrics.wakeups.inc()
        return True

    def on_hint(self, hint: str) -> None:
        """See HintListener. The API wrote into this session while wake-ups were unreliable."""
        for dispatcher in self._dispatchers:
            dispatcher.notify((hint,))

    def on_schema_checked(self, problem: str) -> None:
        """See SchemaListener."""
        self.metrics.schema_supported.set(not problem)
        for dispatcher in self._dispatchers:
            dispatcher.pause(problem)

    def database_recovered(self) -> None:
        """See StoreObserver."""
        super().database_recovered()
        for dispatcher in self._dispatchers:
            dispatcher.retry_now()

    def _on_realtime_change(self) -> None:
        if not self._subscription.healthy:  # switch to the fast poll
            for dispatcher in self._dispatchers:
                dispatcher.notify()
        if self._poller is not None:
            self._poller.refresh()
