"""The process that relays: one dispatcher for each sink, woken by Realtime. No client of the API reaches it."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from gre_bridge.config.settings import Settings
from gre_bridge.daemon.health import ProcessHealth
from gre_bridge.daemon.process import DaemonProcess, Surroundings
from gre_bridge.daemon.registration import WorkerRegistration
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import NewRow
from gre_bridge.errors import ConfigurationError
from gre_bridge.polling import Poller
from gre_bridge.relay.bindings import SinkBinding, build_sinks
from gre_bridge.relay.dispatcher import Dispatcher
from gre_bridge.relay.policy import Breaker, Pace, RetryPolicy
from gre_bridge.tracing import Tracing

log = structlog.get_logger("gre.daemon")

RELEASE_TIMEOUT = 2.0
"""Seconds that a stop which ran out of time may take to hand its leases back."""


def check(settings: Settings) -> list[SinkBinding]:
    """The sinks of these settings. Raises ConfigurationError when there are none, or one cannot be made."""
    bindings = build_sinks(settings)
    if not bindings:
        raise ConfigurationError("PUSHER_APP_ID: is missing, and ONESIGNAL_APP_ID too: no sink to relay to")
    return bindings


class RelayProcess(DaemonProcess):
    """Relays the outbox to the sinks."""

    name = "relay"

    def __init__(self, surroundings: Surroundings) -> None:
        """See DaemonProcess."""
        super().__init__(surroundings)
        self._bindings = check(surroundings.settings)
        self._tracing = Tracing.from_environment()
        self._dispatchers: list[Dispatcher] = []
        self._poller: Poller | None = None

    @property
    def health(self) -> ProcessHealth:
        """See DaemonProcess."""
        return self._health

    def _make_registration(self) -> WorkerRegistration:
        registration = WorkerRegistration(
            sinks=frozenset(o.sink.name for o in self._bindings),
            on_schema=self._schema_checked,
            facts={"player_external_id": self._settings.push_player_external_id},
        )
        self._health = ProcessHealth(
            process=self.name,
            settings=self._settings,
            feed=self._feed,
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
                log.warning("sink is off: no credentials", sink=name)
        relaying = asyncio.create_task(self._relay(store))
        stop = asyncio.create_task(self._stop.wait())
        try:
            # (Relaying ends only by a failure before the stop.)
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
        """Claim nothing more, finish what is in flight in time, and hand back what is not."""
        for dispatcher in self._dispatchers:
            dispatcher.stop()
        if not self._dispatchers:
            relaying.cancel()
        _, late = await asyncio.wait({relaying}, timeout=self._settings.drain_seconds)
        if late:
            log.warning("not everything was settled in time")
            relaying.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_TIMEOUT):
                    await asyncio.gather(*(d.release_all() for d in self._dispatchers))

    async def _relay(self, store: RelayDatabase) -> None:
        """Wait for the schema, then relay until the dispatchers have stopped."""
        feed = self._feed
        await self._registration.ready.wait()
        self._reports.status("relaying to " + ", ".join(o.sink.name for o in self._bindings))
        settings = self._settings
        poller = self._poller = Poller(
            listen=store.listen,
            unlisten=store.unlisten,
            look=self._look,
            wakeups=feed,
            slow=settings.poll_interval,
            fast=settings.fast_poll_interval,
            on_missed=self.metrics.wakeups_missed.labels("relay").inc,
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
                wakeups=feed,
                observer=poller,
            )
            for binding in self._bindings
        ]
        self._dispatchers.extend(dispatchers)
        if self._stop.is_set():
            return
        polling = asyncio.create_task(poller.run())
        try:
            async with asyncio.TaskGroup() as group:
                for dispatcher in dispatchers:
                    group.create_task(dispatcher.run())
        finally:
            polling.cancel()
            await asyncio.wait({polling})

    def on_wakeup(self, sessions: frozenset[str] | None) -> None:
        """See SubscriptionListener."""
        self.metrics.wakeups.inc()
        for dispatcher in self._dispatchers:
            dispatcher.notify(sessions or ())
        if self._poller is not None:
            self._poller.woken()

    def _look(self) -> None:
        """Look for work without having been woken."""
        for dispatcher in self._dispatchers:
            dispatcher.poll()

    def on_event(self, event: str, payload: object) -> None:
        """See SubscriptionListener. The API's events need nothing here."""

    def is_handled(self, row: NewRow) -> bool:
        """See SubscriptionListener."""
        if not all(dispatcher.has_claimed(row.id) for dispatcher in self._dispatchers):
            return False
        self.metrics.wakeups.inc()
        return True

    def _heard_hint(self, hint: str) -> None:
        """The API wrote into this session while Realtime was away."""
        for dispatcher in self._dispatchers:
            dispatcher.notify((hint,))

    def _schema_checked(self, problem: str) -> None:
        self.metrics.schema_supported.set(not problem)
        for dispatcher in self._dispatchers:
            dispatcher.pause(problem)

    def database_recovered(self) -> None:
        """See StoreObserver."""
        super().database_recovered()
        for dispatcher in self._dispatchers:
            dispatcher.retry_now()

    def _on_realtime_change(self) -> None:
        if not self._feed.healthy:  # a slow poll that is waiting becomes a fast one
            for dispatcher in self._dispatchers:
                dispatcher.notify()
        if self._poller is not None:
            self._poller.refresh()
