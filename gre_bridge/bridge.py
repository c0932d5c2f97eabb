"""Composes the parts into the running daemon: store, feed, one dispatcher for each sink, HTTP.

Start: anything that a person must mend (settings) stops the start with one line; anything that may mend
itself (Supabase down, migrations not yet applied) is waited for, and `/readyz` says what is waited for.
Stop: on the first SIGTERM or SIGINT nothing more is claimed, what is in flight is settled within
`GRE_DRAIN_SECONDS`; a second signal ends it at once. Killed anywhere, nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable

import structlog

from gre_bridge import __version__
from gre_bridge.api.access import Access
from gre_bridge.api.app import create_app, serve
from gre_bridge.api.door import Door
from gre_bridge.api.guard import Guard
from gre_bridge.api.health import Health
from gre_bridge.api.hub import Hub
from gre_bridge.condition import Condition
from gre_bridge.errors import ConfigurationError
from gre_bridge.feed import Feed, FeedState, Timing
from gre_bridge.heartbeat import Heartbeat
from gre_bridge.models import NewRow
from gre_bridge.notify import Notifier
from gre_bridge.portal import Portal
from gre_bridge.relay.dispatcher import Dispatcher
from gre_bridge.relay.outlets import build_sinks
from gre_bridge.relay.policy import Breaker, Pace, RetryPolicy
from gre_bridge.rest import Rest
from gre_bridge.settings import Settings
from gre_bridge.store import Store
from gre_bridge.telemetry import Metrics
from gre_bridge.tracing import Tracing

log = structlog.get_logger("gre.bridge")

GIVE_UP = 2.0
"""Seconds that a stop which ran out of time may take to hand its leases back."""


class Bridge:
    """One daemon. `run` returns after a graceful stop."""

    def __init__(self, settings: Settings, *, relay: bool = True, http: bool = True) -> None:
        """Check the settings as a whole; nothing is connected yet.

        Raises ConfigurationError when there is nothing that this daemon could do.
        """
        self._settings = settings
        self._http = http
        self.metrics = Metrics()
        self._outlets = build_sinks(settings) if relay else []
        if relay and not self._outlets:
            raise ConfigurationError(
                "PUSHER_APP_ID: is missing, and ONESIGNAL_APP_ID too: no sink to relay to"
            )
        self._tracing = Tracing.from_environment() if relay else None
        self._dispatchers: list[Dispatcher] = []
        self._hub: Hub | None = None
        self._feed = Feed(
            url=settings.supabase_url,
            key=settings.service_key,
            apikey=settings.anon_key,
            on_ring=self._ring,
            on_state=self._feed_changed,
            on_event=lambda event, body: self._hub.heard(event, body) if self._hub else None,
            known=self._known,
            private=settings.realtime_private,
            timing=Timing(renew=settings.realtime_renew),
        )
        self._heart = Heartbeat(
            sinks=frozenset(o.sink.name for o in self._outlets),
            on_schema=self._schema_checked,
        )
        self._stop = asyncio.Event()
        self._condition = Condition(
            dispatchers=self._dispatchers,
            feed=self._feed,
            hub=lambda: self._hub,
            schema=lambda: self._heart.problem,
            stopping=self._stop,
        )

    def stop(self) -> None:
        """Begin a graceful stop."""
        self._stop.set()

    async def run(self) -> None:
        """Run until `stop`, SIGTERM, SIGINT or SIGHUP (a terminal that closes)."""
        settings = self._settings
        for name, on in (("pusher", settings.has_pusher), ("onesignal", settings.has_onesignal)):
            if not on:
                log.warning("sink is off: no credentials", sink=name)
        store = await Store.open(
            url=settings.supabase_url,
            key=settings.service_key,
            apikey=settings.anon_key,
            # A claim that took longer than its lease could send nothing.
            timeout=min(settings.request_timeout, settings.lease_seconds),
        )
        portal = await self._open_portal() if self._http else None
        store.on_request = self._count_request
        store.on_back = self._database_back
        if portal is not None:
            portal.on_request = self._count_request
        self._heed_signals()
        try:
            await self._run(store, portal)
        finally:
            if portal is not None:
                await portal.aclose()
            for outlet in self._outlets:
                await outlet.sink.aclose()
            await store.aclose()
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)
            log.info("stopped")

    def _heed_signals(self) -> None:
        """Stop gracefully on the first signal to end, at once on the second."""
        main = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if self._stop.is_set() and main is not None:
                log.warning("second signal: stopping at once")
                main.cancel()
            self._stop.set()

        with contextlib.suppress(RuntimeError, ValueError):  # not in the main thread: the caller stops us
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, on_signal)
            # A terminal that closes sends it twice, and nohup does not want to hear of it.
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                loop.add_signal_handler(signal.SIGHUP, self._stop.set)

    async def _open_portal(self) -> Portal | None:
        settings = self._settings
        if settings.supabase_anon_key is None:
            log.warning("the portals' API is off: SUPABASE_ANON_KEY is missing")
            return None
        # A pool of its own: however many call, the relay's calls do not queue behind them.
        return Portal(
            await Rest.open(
                url=settings.supabase_url,
                key=settings.service_key,
                apikey=settings.anon_key,
                timeout=settings.request_timeout,
                connections=32,
            )
        )

    def _count_request(self, function: str) -> None:
        self.metrics.store_requests.labels(function).inc()

    async def _run(self, store: Store, portal: Portal | None) -> None:
        log.info("starting", version=__version__, sinks=[o.sink.name for o in self._outlets])
        notifier = Notifier.from_environment()
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._heart.run(store, self._condition.report)),
                group.create_task(notifier.feed_watchdog(self._condition.stuck)),
            ]
            if self._outlets or portal is not None:
                background.append(group.create_task(self._feed.run()))
            if self._http:
                background.append(group.create_task(self._serve(store, portal)))
            else:
                _keep_what_is_there()
            relaying = group.create_task(self._relay(store, notifier)) if self._outlets else None
            # Ready is: the loops run. Supabase may be away; then they wait for it.
            notifier.ready("waiting for the database")
            await self._stop.wait()
            log.info("stopping")
            notifier.stopping("finishing what is in flight")
            if relaying is not None:
                for dispatcher in self._dispatchers:
                    dispatcher.stop()
                if not self._dispatchers:
                    relaying.cancel()
                _, late = await asyncio.wait({relaying}, timeout=self._settings.drain_seconds)
                if late:
                    log.warning("not everything was settled in time")
                    relaying.cancel()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(GIVE_UP):
                            await asyncio.gather(*(d.give_up() for d in self._dispatchers))
            for task in background:
                task.cancel()

    def _ring(self, sessions: frozenset[str] | None) -> None:
        """A bell: wake whoever reads."""
        self.metrics.rings.inc()
        for dispatcher in self._dispatchers:
            dispatcher.ring(sessions or ())
        if self._hub is not None:
            self._hub.ring(sessions)

    def _known(self, row: NewRow) -> bool:
        """Whether the bell for this row, which has been heard, would ring for nobody."""
        claimed = all(dispatcher.has_claimed(row.id) for dispatcher in self._dispatchers)
        if not claimed or (self._hub is not None and not self._hub.has_told(row)):
            return False
        self.metrics.rings.inc()
        return True

    async def _serve(self, store: Store, portal: Portal | None) -> None:
        """Serve HTTP and the sockets until cancelled."""
        settings = self._settings
        access = Access(portal, Guard(settings.auth_failures))
        health = Health(self.metrics, store, self._condition.problems, self._condition.alive, settings)
        if portal is None:
            app = create_app(
                health=health,
                access=access,
                settings=settings,
                sockets=None,
                overview=self._condition.overview,
            )
            _keep_what_is_there()
            await serve(app, settings=settings)
            return

        def wrote(session: str) -> None:
            if not self._feed.healthy:  # no bell will tell us what we have just done
                self._ring(frozenset((session,)))

        portal.on_write = wrote
        hub = self._hub = Hub(
            portal=portal,
            metrics=self.metrics,
            sweep_interval=settings.sweep_interval,
            fast_sweep_interval=settings.fast_sweep_interval,
            feed_healthy=lambda: self._feed.healthy,
            broadcast=self._feed.broadcast,
            on_missed=self._feed.missed,
        )
        door = Door(hub=hub, portal=portal, metrics=self.metrics, settings=settings, access=access)
        app = create_app(
            health=health,
            access=access,
            settings=settings,
            sockets=door.serve,
            overview=self._condition.overview,
        )
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(hub.run())
            _keep_what_is_there()
            try:
                await serve(app, settings=settings)
            finally:
                telling.cancel()

    async def _relay(self, store: Store, notifier: Notifier) -> None:
        """Wait for the schema, then relay until the dispatchers have stopped."""
        await self._heart.ready.wait()
        notifier.status("relaying to " + ", ".join(o.sink.name for o in self._outlets))
        settings = self._settings
        feed = self._feed
        dispatchers = [
            Dispatcher(
                store=store,
                sink=outlet.sink,
                route=outlet.route,
                metrics=self.metrics,
                retry=RetryPolicy(max_attempts=settings.max_attempts),
                breaker=Breaker(),
                pace=Pace(outlet.rate),
                tracing=self._tracing,
                lease_seconds=settings.lease_seconds,
                sweep_interval=settings.sweep_interval,
                fast_sweep_interval=settings.fast_sweep_interval,
                lanes_per_claim=1000 // outlet.rows,
                rows_per_lane=outlet.rows,
                feed_healthy=lambda: feed.healthy,
                on_missed=feed.missed,
                on_forgotten=feed.doubt,
            )
            for outlet in self._outlets
        ]
        self._dispatchers.extend(dispatchers)
        if self._stop.is_set():
            return
        async with asyncio.TaskGroup() as relaying:
            for dispatcher in dispatchers:
                relaying.create_task(dispatcher.run())

    def _schema_checked(self, problem: str) -> None:
        self.metrics.schema_supported.set(not problem)
        for dispatcher in self._dispatchers:
            dispatcher.pause(problem)

    def _database_back(self) -> None:
        self._feed.doubt()
        for dispatcher in self._dispatchers:
            dispatcher.hurry()

    def _feed_changed(self, state: FeedState) -> None:
        for known in FeedState:
            self.metrics.feed_state.labels(known.value).set(known is state)
        if not self._feed.healthy:  # a slow sweep that is waiting becomes a fast one
            for dispatcher in self._dispatchers:
                dispatcher.ring()
            if self._hub is not None:
                self._hub.ring(None)
        for reason, count in self._feed.reconnections.items():
            counter = self.metrics.reconnections.labels(reason)
            counter.inc(max(0.0, count - counter._value.get()))  # noqa: SLF001 - the feed keeps the count


def _keep_what_is_there() -> None:
    """Leave what the start has made out of all later collections: each whole one held the loop for some 50 ms."""
    gc.collect()
    gc.freeze()


def run(settings: Settings, *, relay: bool = True, http: bool = True) -> None:
    """Run the daemon in this process until it is told to stop. Raises ConfigurationError."""
    loops: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - an optional extra

        loops = uvloop.new_event_loop

    async def main() -> None:
        await Bridge(settings, relay=relay, http=http).run()

    with (
        contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt),
        asyncio.Runner(loop_factory=loops) as runner,
    ):
        runner.run(main())
